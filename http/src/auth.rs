//! Who asks: applications and their secrets, and who runs the node.
//!
//! Invariants: a secret is compared in constant time and never shown; a configured secret never
//! leaves the process, only one made up at start for development can be told.
//!
//! Not here: what an application may do; sessions of others simply do not exist for it.

use std::fmt;

use shards::ids::AppId;

use crate::problem::Problem;

/// An application allowed to use this node.
#[derive(Clone, PartialEq, Eq)]
pub struct App {
    id: String,
    secret: String,
    development: bool,
}

impl App {
    /// An application from the configuration.
    pub fn configured(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { id: id.into(), secret: secret.into(), development: false }
    }

    /// An application made up at start, for trying the node out: its secret is served to
    /// whoever opens the demo page.
    pub fn development(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { id: id.into(), secret: secret.into(), development: true }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn is_development(&self) -> bool {
        self.development
    }

    /// The secret, if it may be told.
    pub(crate) fn open_secret(&self) -> Option<&str> {
        self.development.then_some(self.secret.as_str())
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("id", &self.id).field("development", &self.development).finish()
    }
}

/// The node's applications; an [`AppId`] is an index into them.
#[derive(Debug, Clone, Default)]
pub struct Apps(Vec<App>);

impl Apps {
    /// More than 65,536 applications, or two of one id, are a mistake of the configuration,
    /// which should say so first; here the surplus is unreachable.
    pub fn new(apps: Vec<App>) -> Self {
        Self(apps)
    }

    /// The application the demo page uses.
    pub(crate) fn first(&self) -> Option<&App> {
        self.0.first()
    }

    /// Whose request this is, by the id in its path and its `Authorization` header.
    pub fn identify(&self, id: &str, authorization: Option<&str>) -> Result<AppId, Problem> {
        let at = self.0.iter().position(|app| app.id == id).ok_or(Problem::NoSuchApp)?;
        let index = u16::try_from(at).map_err(|_| Problem::NoSuchApp)?;
        let token = authorization.and_then(bearer).ok_or(Problem::Unauthorized)?;
        same(token, &self.0[at].secret)?;
        Ok(AppId(index))
    }
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// At a listener that only this machine reaches.
    Loopback,
    Network,
}

/// Who may read what the node has counted.
#[derive(Clone, Default)]
pub struct Admin(Option<String>);

impl Admin {
    /// Without a secret, whoever is on this machine.
    pub fn new(secret: Option<String>) -> Self {
        Self(secret)
    }

    /// Whether to answer a request with these headers that came in there.
    ///
    /// A loopback listener alone is not enough: a proxy on this machine passes on what strangers
    /// ask, and their DNS may point a page's own name here. The latter shows in `Host`, a proxy
    /// mostly there or in what it adds (`Request::named_loopback`).
    pub(crate) fn admit(
        &self,
        authorization: Option<&str>,
        named_loopback: bool,
        door: Door,
    ) -> Result<(), Problem> {
        match &self.0 {
            Some(secret) => {
                same(authorization.and_then(bearer).ok_or(Problem::Unauthorized)?, secret)
            }
            None if door == Door::Loopback && named_loopback => Ok(()),
            None => Err(Problem::NoAdminSecret),
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("secret", &self.0.is_some()).finish()
    }
}

/// Compares in constant time.
fn same(token: &str, secret: &str) -> Result<(), Problem> {
    aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), secret.as_bytes())
        .map_err(|_| Problem::Unauthorized)
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 section 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_known_by_id_and_secret() {
        let apps = Apps::new(vec![App::configured("a", "s1"), App::configured("b", "s2")]);
        assert_eq!(apps.identify("b", Some("Bearer s2")), Ok(AppId(1)));
        assert_eq!(apps.identify("b", Some("bearer  s2 ")), Ok(AppId(1)));
        assert_eq!(apps.identify("c", Some("Bearer s2")), Err(Problem::NoSuchApp));
        for wrong in [None, Some("Bearer s1"), Some("Bearer "), Some("Basic s2"), Some("s2")] {
            assert_eq!(apps.identify("b", wrong), Err(Problem::Unauthorized), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_secret_lets_nobody_in() {
        let apps = Apps::new(vec![App::configured("a", "")]);
        assert_eq!(apps.identify("a", Some("Bearer ")), Err(Problem::Unauthorized));
    }

    #[test]
    fn without_a_secret_only_this_machine_reads_the_metrics() {
        let admin = Admin::new(None);
        assert_eq!(admin.admit(None, true, Door::Loopback), Ok(()));
        for (named_loopback, door) in
            [(true, Door::Network), (false, Door::Network), (false, Door::Loopback)]
        {
            let asked = admin.admit(Some("Bearer x"), named_loopback, door);
            assert_eq!(asked, Err(Problem::NoAdminSecret), "{named_loopback} {door:?}");
        }
        assert!(Problem::NoAdminSecret.to_string().contains("--admin-secret"));
    }

    #[test]
    fn with_a_secret_it_is_needed_everywhere_and_enough() {
        let admin = Admin::new(Some("0123456789abcdef".into()));
        for door in [Door::Loopback, Door::Network] {
            assert_eq!(admin.admit(Some("Bearer 0123456789abcdef"), false, door), Ok(()));
            for wrong in [None, Some("Bearer x"), Some("Bearer "), Some("0123456789abcdef")] {
                let asked = admin.admit(wrong, true, door);
                assert_eq!(asked, Err(Problem::Unauthorized), "{wrong:?}");
            }
        }
        assert!(!format!("{admin:?}").contains("0123"));
    }

    #[test]
    fn only_a_development_secret_is_told_and_none_is_shown() {
        assert_eq!(App::configured("a", "hidden").open_secret(), None);
        assert_eq!(App::development("a", "open").open_secret(), Some("open"));
        assert!(!format!("{:?}", App::development("a", "open")).contains("open"));
    }
}

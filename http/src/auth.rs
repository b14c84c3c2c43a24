//! Who asks: applications and their secrets.
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
        let secret = self.0[at].secret.as_bytes();
        aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), secret)
            .map_err(|_| Problem::Unauthorized)?;
        Ok(AppId(index))
    }
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
    fn only_a_development_secret_is_told_and_none_is_shown() {
        assert_eq!(App::configured("a", "hidden").open_secret(), None);
        assert_eq!(App::development("a", "open").open_secret(), Some("open"));
        assert!(!format!("{:?}", App::development("a", "open")).contains("open"));
    }
}

//! Applications: who may use the API; and who may read the metrics.
//!
//! Invariants: a [`Secret`] has no `Display`, and its `Debug` shows nothing.

use std::fmt;

use crate::config::Said;
use crate::start_error::{BadSetting, StartError};

/// An application; its index in the plan is its `AppId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    pub id: String,
    pub secret: Secret,
}

/// The bearer token of an application.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for comparing and for the development app's banner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads the configured applications. No complaint repeats a secret.
pub fn configured(said: &Said) -> Result<Vec<App>, StartError> {
    let flaw = |expected: &str| {
        let expected = expected.to_owned();
        StartError::from(BadSetting::Value { place: said.place.clone(), value: None, expected })
    };
    if said.texts.len() > MAX_APPS {
        return Err(flaw("at most 1000 apps"));
    }
    let mut apps: Vec<App> = Vec::with_capacity(said.texts.len());
    for text in &said.texts {
        let Some((id, secret)) = text.split_once(':') else {
            return Err(flaw("an id, a colon and a secret"));
        };
        let of_id = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(of_id) {
            return Err(flaw("ID:SECRET with an id of 1 to 64 letters, digits, `_` or `-`"));
        }
        match flaw_of(secret) {
            Some(Flaw::Short) => {
                return Err(flaw(&format!(
                    "ID:SECRET with a secret of at least 16 characters, because a shorter one can \
                     be guessed by trying (make one for `{id}` with `openssl rand -hex 32`)"
                )));
            }
            Some(Flaw::Character) => {
                return Err(flaw(&format!(
                    "ID:SECRET with a secret (for `{id}`) of letters, digits and `-._~+/=`, \
                     because it travels as a bearer token"
                )));
            }
            None => {}
        }
        if apps.iter().any(|app| app.id == id) {
            return Err(flaw(&format!("apps with different ids, but `{id}` is there twice")));
        }
        apps.push(App { id: id.to_owned(), secret: Secret(secret.to_owned()) });
    }
    Ok(apps)
}

/// Reads the secret the metrics are told for. No complaint repeats it.
pub fn admin(said: &Said) -> Result<Secret, StartError> {
    let secret = &said.texts[0];
    let expected = match flaw_of(secret) {
        None => return Ok(Secret(secret.clone())),
        Some(Flaw::Short) => {
            "at least 16 characters, because a shorter secret can be guessed by trying (make one \
             with `openssl rand -hex 32`)"
        }
        Some(Flaw::Character) => {
            "letters, digits and `-._~+/=`, because it travels as a bearer token"
        }
    };
    let (place, expected) = (said.place.clone(), expected.to_owned());
    Err(BadSetting::Value { place, value: None, expected }.into())
}

/// What makes a text unfit as a secret.
enum Flaw {
    Short,
    Character,
}

fn flaw_of(secret: &str) -> Option<Flaw> {
    // RFC 6750 §2.1: what may follow `Bearer`. Anything else could never be presented.
    let of_secret = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if secret.len() < MIN_SECRET_LEN {
        Some(Flaw::Short)
    } else if !secret.bytes().all(of_secret) {
        Some(Flaw::Character)
    } else {
        None
    }
}

/// The development app: 32 hex digits of id, 64 of secret.
pub fn development(random: &[u8; 48]) -> App {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    App { id: hex(&random[..16]), secret: Secret(hex(&random[16..])) }
}

/// Authentication walks the list; more tenants than this want a directory in front.
const MAX_APPS: usize = 1000;
/// 16 characters of a base64 alphabet are 96 bits.
const MIN_SECRET_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<App>, String> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        configured(&Said { texts, place: "--app".into() }).map_err(|error| error.to_string())
    }

    #[test]
    fn apps_are_read_in_order() {
        let apps = read(&["b:0123456789abcdef", "A_-9:abcdefghij-._~+/="]).unwrap();
        assert_eq!(apps[0].id, "b");
        assert_eq!(apps[1].secret.expose(), "abcdefghij-._~+/=");
    }

    #[test]
    fn a_bad_app_is_refused_without_its_secret() {
        let cases = [
            ("justasecretwithoutid", "a colon"),
            (":0123456789abcdef", "1 to 64"),
            ("a b:0123456789abcdef", "1 to 64"),
            ("app:sh0rt", "guessed by trying (make one for `app`"),
            ("app:0123456789 abcdef", "bearer token"),
        ];
        for (text, reason) in cases {
            let error = read(&[text]).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains(text.rsplit(':').next().unwrap()), "{error}");
        }
        let twice = read(&["a:0123456789abcdef", "a:fedcba9876543210"]).unwrap_err();
        assert!(twice.contains("`a` is there twice"), "{twice}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let app = development(&[7; 48]);
        assert_eq!((app.id.len(), app.secret.expose().len()), (32, 64));
        assert_eq!(format!("{:?}", app.secret), "Secret(…)");
    }
}

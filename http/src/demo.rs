//! The demo page, in the binary.
//!
//! Invariants: served for the same origin only (no CORS), so that no other site can read a
//! development secret; a page loads nothing from elsewhere.
//!
//! Not here: the page's content.

use serde::Serialize;

use crate::auth::Apps;
use crate::problem::Problem;
use crate::response::Response;

/// A file of the demo by its name; the page is the empty name.
pub(crate) fn file(name: &str) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, content_type, text)) => {
            guarded(Response::plain(200, content_type, text.as_bytes()))
        }
        None => Problem::NoSuchEndpoint.response(),
    }
}

/// What the page must know: which application to use, and its secret if that is no secret.
///
/// Only a page that was asked of this machine gets a secret: a name that somebody else's DNS
/// points here would make his page one of the same origin.
pub(crate) fn config(apps: &Apps, named_loopback: bool) -> Response {
    let app = apps.first();
    let config = Config {
        app_id: app.map(|app| app.id()),
        secret: app.filter(|_| named_loopback).and_then(|app| app.open_secret()),
        api_base: "/v1",
        development: app.is_some_and(|app| app.is_development()),
    };
    let body = serde_json::to_vec(&config).expect("our own types have string keys only");
    guarded(Response::plain(200, "application/json", body))
}

fn guarded(response: Response) -> Response {
    response
        .with("cache-control", "no-store")
        .with("content-security-policy", POLICY)
        .with("x-content-type-options", "nosniff")
        .with("referrer-policy", "no-referrer")
        .with("x-frame-options", "DENY")
        .with("cross-origin-resource-policy", "same-origin")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    app_id: Option<&'a str>,
    secret: Option<&'a str>,
    api_base: &'static str,
    development: bool,
}

const FILES: &[(&str, &str, &str)] =
    &[("", "text/html; charset=utf-8", include_str!("demo/index.html"))];

/// Script and style are inline, which makes the page one file; nothing of a request is ever
/// echoed into it.
const POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; \
    style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data: blob:; \
    media-src 'self' blob: mediastream:; worker-src 'self' blob:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::App;

    #[test]
    fn a_configured_secret_is_never_served() {
        let tell = |app| {
            let response = config(&Apps::new(vec![app]), true);
            assert!(response.headers.iter().all(|(name, _)| !name.starts_with("access-control")));
            serde_json::from_slice::<serde_json::Value>(&response.body).unwrap()
        };
        let expected = serde_json::json!(
            {"appId": "a", "secret": null, "apiBase": "/v1", "development": false});
        assert_eq!(tell(App::configured("a", "hidden")), expected);
        let expected = serde_json::json!(
            {"appId": "a", "secret": "open", "apiBase": "/v1", "development": true});
        assert_eq!(tell(App::development("a", "open")), expected);
    }

    #[test]
    fn a_development_secret_is_told_only_to_a_page_of_this_machine() {
        let apps = Apps::new(vec![App::development("a", "open")]);
        let told = |here| String::from_utf8_lossy(&config(&apps, here).body).contains("open");
        assert!(told(true) && !told(false));
    }

    #[test]
    fn the_page_is_served_and_nothing_else() {
        assert_eq!(file("").status, 200);
        assert_eq!(file("../secret").status, 404);
    }
}

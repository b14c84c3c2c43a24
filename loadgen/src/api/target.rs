//! The server to test, as it is named on the command line.
//!
//! Invariants: what is wrong with it is one sentence for the person who typed it.

use std::str::FromStr;

use reqwest::Url;

use super::dialect::Api;
use super::realtime::Realtime;

/// Which API a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ApiKind {
    #[default]
    Realtime,
}

impl ApiKind {
    pub const ALL: [Self; 1] = [Self::Realtime];

    pub fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
        }
    }
}

impl FromStr for ApiKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no API known here: it is one of {names}")
        })
    }
}

/// What is said about the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Where its API is.
    pub url: String,
    /// Realtime: the app's id, unless the URL has it.
    pub app: Option<String>,
    /// Realtime: the app's secret.
    pub secret: Option<String>,
}

impl Target {
    /// The API at this target.
    pub fn api(&self, kind: ApiKind) -> Result<Api, String> {
        match kind {
            ApiKind::Realtime => self.realtime().map(Api::Realtime),
        }
    }

    fn realtime(&self) -> Result<Realtime, String> {
        let url = base(&self.url)?;
        let path = url.path().trim_end_matches('/');
        let (before, named) = match path.rsplit_once("/apps/") {
            Some((before, id)) => (format!("{before}/apps"), Some(id)),
            None if path.ends_with("/v1") => (format!("{path}/apps"), None),
            None => (format!("{path}/v1/apps"), None),
        };
        let app = match (named, self.app.as_deref()) {
            (Some(named), Some(app)) if named != app => {
                return Err(format!("--target names the app {named}, but --app says {app}"));
            }
            (Some(app), _) | (None, Some(app)) => app,
            (None, None) => {
                let why =
                    "--app is missing: the id of the app, as the server shows it at its start";
                return Err(why.into());
            }
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if app.is_empty() || !app.chars().all(fits) {
            return Err(format!(
                "`{app}` is no id of an app: it has letters, digits, - and _ only"
            ));
        }
        let secret = self.secret.clone().filter(|secret| !secret.is_empty());
        let secret = secret.ok_or("--secret is missing: the secret of the app")?;
        if !secret.chars().all(|c| c.is_ascii_graphic()) {
            return Err("--secret has characters that no bearer token has".into());
        }
        let origin = url.origin().ascii_serialization();
        Ok(Realtime::new(format!("{origin}{before}/{app}"), secret))
    }
}

/// An address of HTTP, without what has no place in a base.
fn base(text: &str) -> Result<Url, String> {
    let example = "write it as http://127.0.0.1:8080";
    if text.is_empty() {
        return Err(format!("--target is missing: {example}"));
    }
    if !text.contains("://") {
        return Err(format!("--target `{text}` does not say http or https: {example}"));
    }
    let url = Url::parse(text);
    let url = url.map_err(|error| format!("--target `{text}` is no URL ({error}): {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        let scheme = url.scheme();
        return Err(format!("--target is a {scheme} address, but the API speaks http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("--target holds a user name or password: credentials are flags".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("--target `{text}` has a query or fragment, which the API does not"));
    }
    Ok(url)
}

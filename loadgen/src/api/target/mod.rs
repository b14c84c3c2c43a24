//! The server to test, as it is named on the command line.
//!
//! Invariants: what is wrong with it is one sentence for the person who typed it.

use std::str::FromStr;

use reqwest::Url;

use super::dialect::Api;
use super::janus::{Credentials, Janus};
use super::realtime::Realtime;
use super::whip::{Tokens, Whip};

#[cfg(test)]
mod tests;

/// Which API a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ApiKind {
    #[default]
    Realtime,
    Whip,
    Janus,
}

impl ApiKind {
    pub const ALL: [Self; 3] = [Self::Realtime, Self::Whip, Self::Janus];

    pub fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Whip => "whip",
            Self::Janus => "janus",
        }
    }

    /// It can be asked what it knows of a session.
    pub fn tells_of_sessions(self) -> bool {
        self == Self::Realtime
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
    /// Where its API is. WHIP: where streams are published, with `{name}` for the stream's.
    pub url: String,
    /// Realtime: the app's id, unless the URL has it.
    pub app: Option<String>,
    /// Realtime: the app's secret. Janus: the API secret. WHIP: what `tokens` asks for.
    pub secret: Option<String>,
    /// WHIP: the bearer token, with `{name}` for the stream's. Janus: the token.
    pub token: Option<String>,
    /// WHIP: where streams are played, unless it is `url` with `whep` for `whip`.
    pub whep: Option<String>,
    /// WHIP: where tokens are made for `secret`, as atm0s-media-server does.
    pub tokens: Option<String>,
    /// Janus: a room that exists, instead of one made for the run.
    pub room: Option<u64>,
}

impl Target {
    /// The API at this target.
    pub fn api(&self, kind: ApiKind) -> Result<Api, String> {
        match kind {
            ApiKind::Realtime => self.realtime().map(Api::Realtime),
            ApiKind::Whip => self.whip().map(Api::Whip),
            ApiKind::Janus => self.janus().map(Api::Janus),
        }
    }

    fn realtime(&self) -> Result<Realtime, String> {
        let url = base("--target", &self.url)?;
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
        let secret = bearer("--secret", self.secret.as_deref())?;
        let secret = secret.ok_or("--secret is missing: the secret of the app")?;
        let origin = url.origin().ascii_serialization();
        Ok(Realtime::new(format!("{origin}{before}/{app}"), secret))
    }

    fn whip(&self) -> Result<Whip, String> {
        base("--target", &self.url)?;
        let play = match &self.whep {
            Some(whep) => whep.clone(),
            None => {
                let place = self.url.rsplit_once("whip");
                let (before, after) = place.ok_or(
                    "--whep is missing: where streams are played, because --target has no `whip` \
                     to put `whep` for",
                )?;
                format!("{before}whep{after}")
            }
        };
        base("--whep", &play)?;
        let token = bearer("--token", self.token.as_deref())?;
        let secret = bearer("--secret", self.secret.as_deref())?;
        let tokens = match (token, &self.tokens, secret) {
            (Some(_), Some(_), _) => {
                return Err("--token and --tokens exclude each other".into());
            }
            (Some(token), None, _) => Tokens::Fixed(token),
            (None, Some(url), Some(secret)) => {
                base("--tokens", url)?;
                Tokens::Issued { url: url.trim_end_matches('/').to_owned(), secret }
            }
            (None, Some(_), None) => {
                return Err("--secret is missing: what --tokens are asked for with".into());
            }
            (None, None, Some(_)) => {
                let why = "--secret alone is of no use for WHIP: give the bearer --token, or \
                           where --tokens are made";
                return Err(why.into());
            }
            (None, None, None) => Tokens::None,
        };
        Ok(Whip::new(self.url.clone(), play, tokens))
    }

    fn janus(&self) -> Result<Janus, String> {
        let url = base("--target", &self.url)?;
        let path = match url.path().trim_end_matches('/') {
            // Where it is unless configured otherwise.
            "" => "/janus",
            path => path,
        };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (api_secret, token) = (given(&self.secret), given(&self.token));
        let mut carried = url.clone();
        for (name, value) in [("apisecret", &api_secret), ("token", &token)] {
            if let Some(value) = value {
                carried.query_pairs_mut().append_pair(name, value);
            }
        }
        let query = carried.query().map_or(String::new(), |query| format!("&{query}"));
        let base = format!("{}{path}", url.origin().ascii_serialization());
        Ok(Janus::new(base, Credentials { api_secret, token, query }, self.room))
    }
}

/// A bearer token, if it is given.
fn bearer(flag: &str, text: Option<&str>) -> Result<Option<String>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("{flag} has characters that no bearer token has"));
    }
    Ok(Some(text.to_owned()))
}

/// An address of HTTP, without what has no place in a base.
fn base(flag: &str, text: &str) -> Result<Url, String> {
    let example = "write it as http://127.0.0.1:8080";
    if text.is_empty() {
        return Err(format!("{flag} is missing: {example}"));
    }
    if !text.contains("://") {
        return Err(format!("{flag} `{text}` does not say http or https: {example}"));
    }
    let url = Url::parse(text);
    let url = url.map_err(|error| format!("{flag} `{text}` is no URL ({error}): {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        let scheme = url.scheme();
        return Err(format!("{flag} is a {scheme} address, but the API speaks http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{flag} holds a user name or password: credentials are flags"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{flag} `{text}` has a query or fragment, which the API has not"));
    }
    Ok(url)
}

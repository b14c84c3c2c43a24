//! The file that says which servers are compared: how each is started and spoken to.
//!
//! ```toml
//! [[server]]
//! name = "shardcast"
//! start = "target/release/shardcast --http 127.0.0.1:8080 --shards 1"
//! cpus = "0"
//! env = { SHARDCAST_APP = "bench:0123456789abcdef0123456789abcdef" }
//! api = "realtime"
//! url = "http://127.0.0.1:8080/v1/apps/bench"
//! secret = "0123456789abcdef0123456789abcdef"
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::api::{ApiKind, Target};
use crate::peer::Dtls;

/// One server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    /// A shell command whose process becomes the server's: a script ends in `exec`.
    pub start: String,
    /// CPUs the server is pinned to, as `taskset -c` takes them.
    pub cpus: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(deserialize_with = "api_kind")]
    pub api: ApiKind,
    pub url: String,
    pub app: Option<String>,
    pub secret: Option<String>,
    pub token: Option<String>,
    pub whep: Option<String>,
    pub tokens: Option<String>,
    pub room: Option<u64>,
    /// The peers' DTLS: "dimpl" if not said, "openssl" if its certificate is an RSA one.
    #[serde(default, deserialize_with = "dtls")]
    pub dtls: Dtls,
    /// Its metrics in Prometheus text, if it has any.
    pub metrics: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Vec<Entry>,
}

fn api_kind<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ApiKind, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn dtls<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Dtls, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// Reads the files, in their order; a sentence for the person who wrote them if they are wrong.
pub fn read(paths: &[impl AsRef<Path>]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        let shown = path.display();
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| format!("{shown} cannot be read: {error}"))?;
        entries.extend(parse(&text).map_err(|what| format!("{shown}: {what}"))?);
    }
    if entries.len() < 2 {
        return Err(format!("{} server to compare: there must be two", entries.len()));
    }
    Ok(entries)
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    for entry in &file.server {
        entry.target().api(entry.api).map_err(|what| format!("{}: {what}", entry.name))?;
    }
    Ok(file.server)
}

impl Entry {
    pub fn target(&self) -> Target {
        Target {
            url: self.url.clone(),
            app: self.app.clone(),
            secret: self.secret.clone(),
            token: self.token.clone(),
            whep: self.whep.clone(),
            tokens: self.tokens.clone(),
            room: self.room,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_and_what_is_wrong_is_said() {
        let good = "[[server]]\nname = \"a\"\nstart = \"a --b\"\napi = \"realtime\"\n\
                    url = \"http://127.0.0.1:1/v1/apps/x\"\nsecret = \"s\"\n";
        let entries = parse(good).unwrap();
        assert_eq!((entries[0].name.as_str(), entries[0].api), ("a", ApiKind::Realtime));
        for (from, to, expected) in [
            ("api = \"realtime\"", "api = \"sip\"", "`sip` is no API"),
            ("secret = \"s\"", "", "a: --secret is missing"),
            ("secret = \"s\"", "dtls = \"gnutls\"", "`gnutls` is no DTLS"),
            ("name = \"a\"", "nom = \"a\"", "unknown field `nom`"),
        ] {
            let error = parse(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! Gathers settings from the configuration file, the environment and the command line.
//!
//! Invariants: later wins (file, environment, flags), setting by setting; each value remembers
//! where it was said, so that a complaint points there; a key nobody knows is an error in the
//! file but not in the environment, where an orchestrator may put names of its own
//! (Kubernetes sets `SHARDCAST_SERVICE_HOST` for a service called shardcast).
//!
//! Not here: what a value means ([`crate::resolve`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::flags::Flags;
use crate::start_error::{BadSetting, StartError};

/// A setting, under one name everywhere: `--udp-ports`, `udp-ports =`, `SHARDCAST_UDP_PORTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    AdminSecret,
    App,
    Cluster,
    ClusterKey,
    Cpus,
    Drain,
    Http,
    Https,
    Log,
    PacketIo,
    PublicIp,
    RecordSends,
    Seed,
    Shards,
    TlsCert,
    TlsKey,
    TlsSelfSigned,
    Udp,
    UdpPorts,
    WakeDelay,
}

impl Key {
    /// Every setting, in the order in which they are named to people.
    pub const ALL: [Self; 20] = [
        Self::AdminSecret,
        Self::App,
        Self::Cluster,
        Self::ClusterKey,
        Self::Cpus,
        Self::Drain,
        Self::Http,
        Self::Https,
        Self::Log,
        Self::PacketIo,
        Self::PublicIp,
        Self::RecordSends,
        Self::Seed,
        Self::Shards,
        Self::TlsCert,
        Self::TlsKey,
        Self::TlsSelfSigned,
        Self::Udp,
        Self::UdpPorts,
        Self::WakeDelay,
    ];

    /// The name in a configuration file and, after two dashes, on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdminSecret => "admin-secret",
            Self::App => "app",
            Self::Cluster => "cluster",
            Self::ClusterKey => "cluster-key",
            Self::Cpus => "cpus",
            Self::Drain => "drain",
            Self::Http => "http",
            Self::Https => "https",
            Self::Log => "log",
            Self::PacketIo => "packet-io",
            Self::PublicIp => "public-ip",
            Self::RecordSends => "record-sends",
            Self::Seed => "seed",
            Self::Shards => "shards",
            Self::TlsCert => "tls-cert",
            Self::TlsKey => "tls-key",
            Self::TlsSelfSigned => "tls-self-signed",
            Self::Udp => "udp",
            Self::UdpPorts => "udp-ports",
            Self::WakeDelay => "wake-delay",
        }
    }

    fn repeats(self) -> bool {
        matches!(self, Self::App | Self::PublicIp | Self::Seed | Self::Udp)
    }

    fn variable(self) -> String {
        format!("SHARDCAST_{}", self.name().replace('-', "_").to_uppercase())
    }
}

/// What was said for one setting, and where. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Said {
    pub texts: Vec<String>,
    /// `--http`, `SHARDCAST_HTTP`, or `http in shardcast.toml`.
    pub place: String,
}

/// Texts may hold secrets.
impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} values of {}", self.texts.len(), self.place)
    }
}

/// The settings that were said; the others have defaults.
pub type Settings = BTreeMap<Key, Said>;

/// Merges the file that `flags` or the environment names, the environment, and `flags`.
pub fn gather(
    flags: &Flags,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Settings, StartError> {
    let path = flags
        .config
        .clone()
        .or_else(|| env("SHARDCAST_CONFIG").filter(|path| !path.is_empty()).map(Into::into));
    let mut settings = match path {
        Some(path) => {
            let text = std::fs::read_to_string(&path).map_err(|cause| {
                BadSetting::FileUnreadable { path: path.clone(), cause: cause.to_string() }
            })?;
            from_file(&text, &path)?
        }
        None => Settings::new(),
    };
    settings.extend(from_environment(env)?);
    settings.extend(from_flags(flags));
    Ok(settings)
}

fn from_file(text: &str, path: &Path) -> Result<Settings, StartError> {
    let table = text.parse::<toml::Table>().map_err(|error| BadSetting::FileMalformed {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    let mut settings = Settings::new();
    for (name, value) in table {
        let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) else {
            return Err(BadSetting::FileUnknownKey { path: path.to_owned(), key: name }.into());
        };
        let place = format!("{name} in {}", path.display());
        let Some(texts) = texts(key, value) else {
            let expected = if key.repeats() {
                "a string, a number, or a list of them"
            } else {
                "one string, number or boolean"
            };
            return Err(BadSetting::Value { place, value: None, expected: expected.into() }.into());
        };
        if !texts.is_empty() {
            settings.insert(key, Said { texts, place });
        }
    }
    Ok(settings)
}

fn texts(key: Key, value: toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::Array(items) if key.repeats() => items.into_iter().map(text).collect(),
        single => text(single).map(|text| vec![text]),
    }
}

fn text(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

fn from_environment(env: impl Fn(&str) -> Option<OsString>) -> Result<Settings, StartError> {
    let mut settings = Settings::new();
    for key in Key::ALL {
        let place = key.variable();
        let Some(raw) = env(&place).filter(|raw| !raw.is_empty()) else { continue };
        let Ok(text) = raw.into_string() else {
            let expected = "text in UTF-8".to_owned();
            return Err(BadSetting::Value { place, value: None, expected }.into());
        };
        let texts = if key.repeats() {
            text.split(',').map(|item| item.trim().to_owned()).collect()
        } else {
            vec![text]
        };
        settings.insert(key, Said { texts, place });
    }
    Ok(settings)
}

fn from_flags(flags: &Flags) -> Settings {
    let list = |one: &Option<String>| one.iter().cloned().collect::<Vec<_>>();
    let said = |key| match key {
        Key::AdminSecret => list(&flags.admin_secret),
        Key::App => flags.app.clone(),
        Key::Cluster => list(&flags.cluster),
        Key::ClusterKey => list(&flags.cluster_key),
        Key::Cpus => list(&flags.cpus),
        Key::Drain => list(&flags.drain),
        Key::Http => list(&flags.http),
        Key::Https => list(&flags.https),
        Key::Log => list(&flags.log),
        Key::PacketIo => list(&flags.packet_io),
        Key::PublicIp => flags.public_ip.clone(),
        Key::RecordSends => list(&flags.record_sends),
        Key::Seed => flags.seed.clone(),
        Key::Shards => list(&flags.shards),
        Key::TlsCert => list(&flags.tls_cert),
        Key::TlsKey => list(&flags.tls_key),
        Key::TlsSelfSigned => flags.tls_self_signed.then(|| "true".into()).into_iter().collect(),
        Key::Udp => flags.udp.clone(),
        Key::UdpPorts => list(&flags.udp_ports),
        Key::WakeDelay => list(&flags.wake_delay),
    };
    let place = |key: Key| format!("--{}", key.name());
    Key::ALL
        .into_iter()
        .map(|key| (key, Said { texts: said(key), place: place(key) }))
        .filter(|(_, said)| !said.texts.is_empty())
        .collect()
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Settings, StartError> {
        from_file(text, Path::new("shardcast.toml"))
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let dir = std::env::temp_dir().join(format!("shardcast-config-{}", std::process::id()));
        std::fs::write(&dir, "http = '1'\nhttps = '1'\nudp = [1, 2]\n").unwrap();
        let flags = Flags {
            config: Some(dir.clone()),
            http: Some("3".into()),
            udp: vec!["9".into()],
            ..Flags::default()
        };
        let env = |name: &str| match name {
            "SHARDCAST_HTTP" | "SHARDCAST_HTTPS" => Some(OsString::from("2")),
            "SHARDCAST_PUBLIC_IP" => Some("a, b".into()),
            "SHARDCAST_LOG" => Some("".into()),
            _ => None,
        };
        let settings = gather(&flags, env).unwrap();
        std::fs::remove_file(dir).unwrap();
        let texts = |key| settings[&key].texts.join("|");
        assert_eq!(texts(Key::Http), "3");
        assert_eq!(settings[&Key::Http].place, "--http");
        assert_eq!(texts(Key::Https), "2");
        assert_eq!(settings[&Key::Https].place, "SHARDCAST_HTTPS");
        assert_eq!(texts(Key::Udp), "9");
        assert_eq!(texts(Key::PublicIp), "a|b");
        assert!(!settings.contains_key(&Key::Log), "an empty variable says nothing");
    }

    #[test]
    fn the_file_takes_strings_numbers_booleans_and_lists() {
        let settings =
            file("udp = [3478]\nshards = 4\ntls-self-signed = true\napp = 'a:b'\npublic-ip = []")
                .unwrap();
        let said: Vec<_> =
            settings.iter().map(|(key, said)| (key.name(), said.texts.join("|"))).collect();
        let expected =
            [("app", "a:b"), ("shards", "4"), ("tls-self-signed", "true"), ("udp", "3478")];
        assert_eq!(said, expected.map(|(name, text)| (name, text.to_owned())));
    }

    #[test]
    fn a_key_nobody_knows_is_named() {
        assert_eq!(
            file("htpp = ''").unwrap_err().to_string(),
            "shardcast.toml has the key `htpp`, which is none of: admin-secret, app, cluster, cluster-key, \
             cpus, drain, http, https, log, packet-io, public-ip, record-sends, seed, shards, \
             tls-cert, tls-key, tls-self-signed, udp, udp-ports, wake-delay"
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_an_error_with_its_line() {
        let error = file("http = '1'\nudp 3478").unwrap_err().to_string();
        assert!(error.starts_with("shardcast.toml is not valid TOML at line 2: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_list_where_one_value_belongs_is_refused() {
        assert_eq!(
            file("http = ['1', '2']").unwrap_err().to_string(),
            "http in shardcast.toml must be one string, number or boolean"
        );
    }
}

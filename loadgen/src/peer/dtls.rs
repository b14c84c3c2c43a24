//! Which implementation of DTLS the peers of a run speak.

use std::str::FromStr;
use std::sync::Arc;

use shards::session::keys;
use str0m::crypto::CryptoProvider;

/// An implementation of DTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtls {
    /// The one the node has: with ECDSA certificates only.
    #[default]
    Dimpl,
    /// With RSA certificates too; slower, and only in a binary built with it.
    Openssl,
}

impl Dtls {
    pub const ALL: [Self; 2] = [Self::Dimpl, Self::Openssl];

    pub fn name(self) -> &'static str {
        match self {
            Self::Dimpl => "dimpl",
            Self::Openssl => "openssl",
        }
    }

    /// str0m's cryptography with it; a sentence if this binary has it not.
    pub fn provider(self) -> Result<Arc<CryptoProvider>, String> {
        match self {
            Self::Dimpl => Ok(keys::provider()),
            Self::Openssl => openssl(),
        }
    }
}

#[cfg(feature = "openssl")]
fn openssl() -> Result<Arc<CryptoProvider>, String> {
    use super::openssl::Openssl;

    static DTLS: Openssl = Openssl::new();
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Ok(PROVIDER.get_or_init(|| keys::provider_with(&DTLS)).clone())
}

#[cfg(not(feature = "openssl"))]
fn openssl() -> Result<Arc<CryptoProvider>, String> {
    Err("this shardcast-loadgen has no OpenSSL for `openssl` as its DTLS. One that has it, where \
         libssl-dev and pkg-config are installed: \
         cargo build --release -p loadgen --features openssl"
        .to_owned())
}

impl FromStr for Dtls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|dtls| dtls.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no DTLS known here: it is one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_there_and_what_is_not_says_how_to_get_it() {
        assert!(Dtls::default().provider().is_ok());
        let openssl: Dtls = "openssl".parse().unwrap();
        let missing = openssl.provider().err();
        assert_eq!(missing.is_none(), cfg!(feature = "openssl"));
        let remedy = "cargo build --release -p loadgen --features openssl";
        assert!(missing.is_none_or(|what| what.contains(remedy)));
        let error = "gnutls".parse::<Dtls>().unwrap_err();
        assert_eq!(error, "`gnutls` is no DTLS known here: it is one of dimpl, openssl");
    }
}

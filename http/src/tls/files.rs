//! Certificates and keys: from PEM files, or made up.
//!
//! Invariants: every error is a sentence that names the file and what to do about it; a pair
//! that does not belong together is refused at start, not at the first handshake.
//!
//! Not here: noticing that files changed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Identity;

/// Where a certificate chain and its key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// Why there is no usable certificate.
#[derive(Debug)]
pub enum TlsError {
    NoFile {
        path: PathBuf,
    },
    Unreadable {
        path: PathBuf,
        error: io::Error,
    },
    NoCertificate {
        path: PathBuf,
    },
    NoKey {
        path: PathBuf,
    },
    /// The key is not the certificate's.
    KeyMismatch,
    /// The certificate or key is in a form rustls cannot use.
    Unusable(rustls::Error),
    /// A name for a self-signed certificate is none.
    BadName(String),
    Library(rustls::Error),
}

impl TlsFiles {
    /// Reads both files. The pair is checked when a configuration is made of it.
    pub fn load(&self) -> Result<Identity, TlsError> {
        let chain = read(&self.chain)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::NoCertificate { path: self.chain.clone() })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: self.chain.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|_: pem::Error| TlsError::NoKey { path: self.key.clone() })?;
        Ok(Identity { chain, key })
    }
}

/// Makes a certificate for `names` (DNS names and IP addresses), signed by itself.
pub fn self_signed(names: &[String], now: SystemTime) -> Result<Identity, TlsError> {
    let bad = |error: rcgen::Error| TlsError::BadName(error.to_string());
    let key = rcgen::KeyPair::generate().map_err(bad)?;
    let mut params = rcgen::CertificateParams::new(names).map_err(bad)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "shardcast self-signed");
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + SELF_SIGNED_FOR).into();
    let certificate = params.self_signed(&key).map_err(bad)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok(Identity { chain: vec![certificate.der().clone()], key: key.into() })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TlsError::NoFile { path: path.to_owned() },
        _ => TlsError::Unreadable { path: path.to_owned(), error },
    })
}

impl TlsError {
    /// What rustls says about a pair of chain and key.
    pub(super) fn from_identity(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
                Self::KeyMismatch
            }
            other => Self::Unusable(other),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile { path } => write!(f, "there is no file {}", path.display()),
            Self::Unreadable { path, error } => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            Self::NoCertificate { path } => {
                write!(f, "{} holds no certificate in PEM form", path.display())
            }
            Self::NoKey { path } => {
                write!(f, "{} holds no private key in PEM form", path.display())
            }
            Self::KeyMismatch => f.write_str("the private key is not the certificate's"),
            Self::Unusable(error) => write!(f, "the certificate or key cannot be used: {error}"),
            Self::BadName(error) => {
                write!(f, "a self-signed certificate cannot be made for these names: {error}")
            }
            Self::Library(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Clocks of clients may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Under the 398 days that browsers accept at most.
const SELF_SIGNED_FOR: Duration = Duration::from_secs(390 * 24 * 3600);

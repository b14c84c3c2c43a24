//! The node's TLS identity: a certificate chain and its key, from files or made up. The work is
//! `http::tls`'s; here it gets its place in the plan, and its errors their exit code.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use http::tls::{self, TlsFiles};

use crate::start_error::{BadTls, StartError};

/// A certificate chain with its key, and where it is kept up to date from.
#[derive(Debug)]
pub struct Identity {
    pub pair: tls::Identity,
    /// Watched for changes; `None` for a pair that was made up, of which browsers will warn.
    pub files: Option<TlsFiles>,
}

/// Reads and tries a chain and a key in PEM.
pub fn from_files(cert: &Path, key: &Path) -> Result<Identity, StartError> {
    let files = TlsFiles { chain: cert.to_owned(), key: key.to_owned() };
    let pair = files.load().map_err(|error| BadTls { problem: error.to_string() })?;
    Ok(Identity { pair, files: Some(files) })
}

/// Makes up an identity for localhost and `ips`.
pub fn self_signed(ips: &[IpAddr]) -> Result<Identity, StartError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    names.extend(ips.iter().map(ToString::to_string));
    names.dedup();
    let pair = tls::self_signed(&names, SystemTime::now());
    let pair = pair.map_err(|error| BadTls { problem: error.to_string() })?;
    Ok(Identity { pair, files: None })
}

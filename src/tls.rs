//! The node's TLS identity: a certificate chain and its key, from files or made up.
//!
//! Invariants: an [`Identity`] has been tried: the key fits the certificate and is of a kind
//! that the TLS library can sign with.

use std::net::IpAddr;
use std::path::Path;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::start_error::{BadTls, StartError};

/// A certificate chain, leaf first, and the leaf's key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// Browsers will warn.
    pub self_signed: bool,
}

/// Reads and tries a chain and a key in PEM.
pub fn from_files(cert: &Path, key: &Path) -> Result<Identity, StartError> {
    let bad = |path: &Path, what, error: pem::Error| BadTls::File {
        path: path.to_owned(),
        what,
        cause: plain(&error),
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|error| bad(cert, "certificate", error))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, "private key", error))?;
    CertifiedKey::from_der(chain.clone(), private.clone_key(), &aws_lc_rs::default_provider())
        .map_err(|error| BadTls::Pair {
            cert: cert.to_owned(),
            key: key.to_owned(),
            cause: error.to_string(),
        })?;
    Ok(Identity { chain, key: private, self_signed: false })
}

/// Makes up an identity for localhost and `ips`.
pub fn self_signed(ips: &[IpAddr]) -> Result<Identity, StartError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    names.extend(ips.iter().map(ToString::to_string));
    names.dedup();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| BadTls::SelfSigned { cause: error.to_string() })?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok(Identity { chain: vec![made.cert.der().clone()], key: key.into(), self_signed: true })
}

fn plain(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(cause) => cause.to_string(),
        pem::Error::NoItemsFound => "there is none".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A file of its own for one test, gone with the value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tls-{}-{name}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn pair(name: &str) -> (Scratch, Scratch) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let cert = Scratch::new(&format!("{name}.cert"), &made.cert.pem());
        (cert, Scratch::new(&format!("{name}.key"), &made.signing_key.serialize_pem()))
    }

    #[test]
    fn a_pair_of_files_is_read_and_its_key_never_shown() {
        let (cert, key) = pair("good");
        let identity = from_files(&cert.0, &key.0).unwrap();
        assert_eq!(identity.chain.len(), 1);
        let private = identity.key.secret_der();
        assert!(!format!("{:?}", identity.key).contains(&format!("{:?}", &private[..8])));
    }

    #[test]
    fn files_that_do_not_fit_are_one_sentence_each() {
        let ((cert, key), (_, other)) = (pair("one"), pair("two"));
        let missing = PathBuf::from("/nonexistent/chain.pem");
        for (cert, key, reason) in [
            (&missing, &key.0, "no certificate in /nonexistent/chain.pem: No such file"),
            (&cert.0, &missing, "no private key in /nonexistent/chain.pem: No such file"),
            (&key.0, &key.0, "there is none; it must be a PEM file"),
            (&cert.0, &cert.0, "no private key in"),
            (&cert.0, &other.0, "cannot be used with the key in"),
        ] {
            let error = from_files(cert, key).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
            assert_eq!(error.exit_code(), 5);
        }
    }

    #[test]
    fn a_made_up_identity_fits_itself() {
        let made = self_signed(&["192.0.2.7".parse().unwrap()]).unwrap();
        CertifiedKey::from_der(made.chain, made.key, &aws_lc_rs::default_provider()).unwrap();
    }
}

use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject;

use super::*;

#[test]
fn errors_are_sentences_that_name_the_file() {
    let dir = scratch("errors");
    let (chain, key, other) = (dir.join("chain.pem"), dir.join("key.pem"), dir.join("other.pem"));
    let files = TlsFiles { chain: chain.clone(), key: key.clone() };
    let said = |files: &TlsFiles| {
        files.load().and_then(TlsConfig::new).expect_err("must fail").to_string()
    };
    assert_eq!(said(&files), format!("there is no file {}", chain.display()));

    let (pem, key_pem) = pair("a");
    std::fs::write(&chain, "hello").unwrap();
    std::fs::write(&key, "hello").unwrap();
    assert_eq!(said(&files), format!("{} holds no certificate in PEM form", chain.display()));
    std::fs::write(&chain, &pem).unwrap();
    assert_eq!(said(&files), format!("{} holds no private key in PEM form", key.display()));
    std::fs::write(&key, pair("b").1).unwrap();
    assert_eq!(said(&files), "the private key is not the certificate's");
    std::fs::write(&key, &key_pem).unwrap();
    assert!(files.load().and_then(TlsConfig::new).is_ok());
    std::fs::create_dir(&other).unwrap();
    let unreadable = said(&TlsFiles { chain: other, key });
    assert!(unreadable.contains("cannot be read"), "{unreadable}");
}

#[test]
fn a_changed_pair_is_served_and_a_broken_one_is_not() {
    let dir = scratch("reload");
    let files = TlsFiles { chain: dir.join("chain.pem"), key: dir.join("key.pem") };
    let write = |name| {
        let (chain, key) = pair(name);
        std::fs::write(&files.chain, &chain).unwrap();
        std::fs::write(&files.key, &key).unwrap();
    };
    write("a");
    let config = TlsConfig::new(files.load().unwrap()).unwrap();
    let mut reloader = Reloader::new(files.clone(), config.clone());
    assert!(reloader.check().is_none());
    let before = config.current();

    std::thread::sleep(Duration::from_millis(20));
    write("longer-name");
    assert!(reloader.check().is_none());
    assert!(reloader.check().unwrap().is_ok());
    assert!(!Arc::ptr_eq(&before, &config.current()));

    let before = config.current();
    std::fs::write(&files.key, pair("c").1).unwrap();
    std::fs::write(&files.chain, "rubbish").unwrap();
    assert!(reloader.check().is_none());
    assert!(reloader.check().unwrap().is_err());
    assert!(reloader.check().is_none(), "reported once");
    assert!(Arc::ptr_eq(&before, &config.current()));
}

#[test]
fn a_self_signed_certificate_ends_within_what_browsers_accept() {
    let now = SystemTime::now();
    let identity =
        self_signed(&["localhost".into(), "127.0.0.1".into(), "::1".into()], now).unwrap();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let days = (identity.expires_at().unwrap() - now) / 86_400;
    assert!((380..398).contains(&days), "{days}");
    assert!(!identity.has_expired(SystemTime::now()));
    assert!(identity.has_expired(SystemTime::now() + Duration::from_secs(400 * 86_400)));
    assert!(self_signed(&["schön".into()], SystemTime::now()).is_err());
}

/// A certificate and its key, in PEM.
fn pair(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let chain = certificate.pem();
    assert!(CertificateDer::from_pem_slice(chain.as_bytes()).is_ok());
    (chain, key.serialize_pem())
}

fn scratch(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("shardcast-tls-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

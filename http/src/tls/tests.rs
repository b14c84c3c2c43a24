//! Pairs good and bad, records cut anywhere, certificates that change.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
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

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 48,
        ..Default::default()
    })]

    #[test]
    fn how_records_are_cut_changes_nothing(cuts in prop::collection::vec(1usize..3000, 1..20)) {
        let said = vec![b'a'; 100_000];
        let mut session = Session::new();
        session.shake_hands(&cuts);
        prop_assert!(!session.filter.is_handshaking());
        session.client.writer().write_all(&said).unwrap();
        prop_assert_eq!(session.carry_up(&cuts), Ok((said.clone(), true)));
        session.filter.handle_plain(&said);
        prop_assert_eq!(session.carry_down(), said);
        session.client.send_close_notify();
        prop_assert_eq!(session.carry_up(&cuts), Ok((Vec::new(), false)));
    }

    #[test]
    fn arbitrary_records_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        at in 0..3,
    ) {
        let mut session = Session::new();
        if at > 0 {
            session.shake_hands(&[1000]);
        }
        let mut plain = Vec::new();
        let _ = session.filter.handle_cipher(&bytes, &mut plain);
        let _ = session.filter.handle_cipher(&[22, 3, 3, 0, 1, 0], &mut plain);
        prop_assert!(plain.is_empty());
    }
}

/// A client and our filter, joined by memory.
struct Session {
    client: ClientConnection,
    filter: Filter,
}

impl Session {
    fn new() -> Self {
        let identity = self_signed(&["localhost".into()], SystemTime::now()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(identity.leaf().to_vec().into()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client =
            ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        client.set_buffer_limit(None);
        let filter = Filter::new(TlsConfig::new(identity).unwrap().current()).unwrap();
        Self { client, filter }
    }

    fn shake_hands(&mut self, cuts: &[usize]) {
        for _ in 0..3 {
            self.carry_up(cuts).unwrap();
            self.carry_down();
        }
    }

    /// Carries what the client has to say, cut like that.
    fn carry_up(&mut self, cuts: &[usize]) -> Result<(Vec<u8>, bool), rustls::Error> {
        let mut cipher = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut cipher).unwrap();
        }
        let (mut plain, mut open, mut rest) = (Vec::new(), true, &cipher[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (front, back) = rest.split_at(rest.len().min(*cut));
            open = self.filter.handle_cipher(front, &mut plain)?;
            rest = back;
        }
        Ok((plain, open))
    }

    /// Carries what we have to say; what the client heard.
    fn carry_down(&mut self) -> Vec<u8> {
        let (mut cipher, mut heard) = (Vec::new(), Vec::new());
        self.filter.poll_cipher(&mut cipher);
        let mut rest = &cipher[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            let state = self.client.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.client.reader().read_exact(&mut plain).unwrap();
            heard.extend(plain);
        }
        heard
    }
}

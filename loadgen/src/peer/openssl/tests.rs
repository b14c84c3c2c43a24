//! OpenSSL's handshakes with dimpl and with itself, over a network of memory.
//!
//! dimpl repeats its flights in virtual time. OpenSSL looks at the system's clock for it, so the
//! one test in which it has to takes a real second, with no bound on how much more.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::rsa::Rsa;
use openssl::x509::{X509Builder, X509NameBuilder};

use super::*;

/// An endpoint and what it told.
struct Side {
    dtls: Box<dyn DtlsInstance>,
    told: Vec<&'static str>,
    peer_cert: Vec<u8>,
    keys: Option<(Vec<u8>, SrtpProfile)>,
    data: Vec<Vec<u8>>,
    timeout: Instant,
}

impl Side {
    fn new(provider: &dyn DtlsProvider, cert: &DtlsCert, active: bool, now: Instant) -> Self {
        let mut dtls = provider.new_dtls(cert, now, DtlsVersion::Dtls12, Some(MTU)).unwrap();
        dtls.set_active(active);
        dtls.handle_timeout(now).unwrap();
        let (told, data) = (Vec::new(), Vec::new());
        Self { dtls, told, peer_cert: Vec::new(), keys: None, data, timeout: now }
    }

    /// Everything it has to say; the datagrams of it.
    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut buffer = [0; 2000];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                DtlsOutput::Packet(bytes) => {
                    assert!(bytes.len() <= MTU, "{} bytes", bytes.len());
                    datagrams.push(bytes.to_vec());
                }
                DtlsOutput::Connected => self.told.push("connected"),
                DtlsOutput::CloseNotify => self.told.push("closed"),
                DtlsOutput::PeerCert(der) => self.peer_cert = der.to_vec(),
                DtlsOutput::KeyingMaterial(keys, profile) => {
                    self.keys = Some((keys.to_vec(), profile));
                }
                DtlsOutput::ApplicationData(data) => self.data.push(data.to_vec()),
                DtlsOutput::Timeout(at) => {
                    self.timeout = at;
                    return datagrams;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Moves datagrams both ways until neither side has any more; those `lose` takes are lost.
fn exchange(a: &mut Side, b: &mut Side, mut lose: impl FnMut(bool, &[u8]) -> bool) {
    loop {
        let mut quiet = true;
        for from_a in [true, false] {
            let (from, to) = if from_a { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            for datagram in from.drain() {
                quiet = false;
                if !lose(from_a, &datagram) {
                    to.dtls.handle_packet(&datagram).unwrap();
                }
            }
        }
        if quiet {
            return;
        }
    }
}

fn agree(a: &Side, b: &Side, a_cert: &DtlsCert, b_cert: &DtlsCert) {
    assert!(a.told.contains(&"connected") && b.told.contains(&"connected"));
    assert_eq!(a.keys.as_ref().unwrap().1, SrtpProfile::AEAD_AES_256_GCM);
    assert_eq!(a.keys, b.keys);
    assert_eq!((&a.peer_cert, &b.peer_cert), (&b_cert.certificate, &a_cert.certificate));
    assert_eq!(a.dtls.protocol_version(), Some(ProtocolVersion::DTLS1_2));
}

fn dimpl() -> &'static dyn DtlsProvider {
    keys::provider().dtls_provider
}

fn ecdsa() -> DtlsCert {
    dimpl().generate_certificate().unwrap()
}

/// As atm0s-media-server has one.
fn rsa() -> DtlsCert {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "WebRTC").unwrap();
    let name = name.build();
    let mut cert = X509Builder::new().unwrap();
    cert.set_version(2).unwrap();
    cert.set_serial_number(&BigNum::from_u32(7).unwrap().to_asn1_integer().unwrap()).unwrap();
    cert.set_subject_name(&name).unwrap();
    cert.set_issuer_name(&name).unwrap();
    cert.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    cert.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    cert.set_pubkey(&key).unwrap();
    cert.sign(&key, MessageDigest::sha256()).unwrap();
    DtlsCert {
        certificate: cert.build().to_der().unwrap(),
        private_key: key.private_key_to_der().unwrap(),
    }
}

fn now() -> Instant {
    crate::real::clock::moment().now
}

#[test]
fn both_sides_have_the_same_keys_whoever_is_client() {
    let (ours, theirs) = (ecdsa(), ecdsa());
    let openssl = Openssl::new();
    for active in [true, false] {
        let now = now();
        let mut a = Side::new(&openssl, &ours, active, now);
        let mut b = Side::new(dimpl(), &theirs, !active, now);
        exchange(&mut a, &mut b, |_, _| false);
        agree(&a, &b, &ours, &theirs);
        // Nothing is due any more.
        assert!(a.timeout > now + Duration::from_secs(3600));
    }
}

#[test]
fn a_server_with_an_rsa_certificate_is_spoken_to() {
    let (ours, theirs) = (ecdsa(), rsa());
    let now = now();
    let (openssl, server) = (Openssl::new(), Openssl::new());
    let mut a = Side::new(&openssl, &ours, true, now);
    let mut b = Side::new(&server, &theirs, false, now);
    exchange(&mut a, &mut b, |_, _| false);
    agree(&a, &b, &ours, &theirs);
}

#[test]
fn keys_go_to_the_slot_that_waits_for_them() {
    let (ours, theirs) = (ecdsa(), ecdsa());
    let now = now();
    let openssl = Openssl::new();
    let (mut a, slot) = keys::with_key_slot(|| Side::new(&openssl, &ours, true, now));
    let mut b = Side::new(dimpl(), &theirs, false, now);
    exchange(&mut a, &mut b, |_, _| false);
    let keys = slot.take().unwrap();
    assert!(keys.active && a.keys.is_none());
    let (material, profile) = b.keys.unwrap();
    assert_eq!((&*keys.material, keys.profile), (&material, profile));
}

#[test]
fn data_goes_both_ways_and_a_goodbye_is_heard() {
    let (ours, theirs) = (ecdsa(), ecdsa());
    let openssl = Openssl::new();
    for openssl_leaves in [true, false] {
        let now = now();
        let mut a = Side::new(&openssl, &ours, true, now);
        let mut b = Side::new(dimpl(), &theirs, false, now);
        assert_eq!(a.dtls.send_application_data(b"early"), Ok(0));
        exchange(&mut a, &mut b, |_, _| false);
        assert_eq!(a.dtls.send_application_data(b"to b"), Ok(4));
        assert_eq!(b.dtls.send_application_data(b"to a"), Ok(4));
        exchange(&mut a, &mut b, |_, _| false);
        assert_eq!((&a.data[..], &b.data[..]), (&[b"to a".to_vec()][..], &[b"to b".to_vec()][..]));
        let (leaving, staying) = if openssl_leaves { (&mut a, &mut b) } else { (&mut b, &mut a) };
        leaving.dtls.close().unwrap();
        exchange(leaving, staying, |_, _| false);
        assert!(leaving.dtls.is_closed() && staying.told.contains(&"closed"));
        // As str0m does then.
        staying.dtls.close().unwrap();
        staying.drain();
        assert!(staying.dtls.is_closed());
        assert!(a.dtls.send_application_data(b"late").is_err());
    }
}

#[test]
fn a_lost_flight_of_the_server_comes_again_in_its_time() {
    let (ours, theirs) = (ecdsa(), ecdsa());
    let now = now();
    let openssl = Openssl::new();
    let mut a = Side::new(&openssl, &ours, true, now);
    let mut b = Side::new(dimpl(), &theirs, false, now);
    let mut lost = 0;
    exchange(&mut a, &mut b, |from_a, _| {
        lost += usize::from(!from_a);
        !from_a
    });
    assert!(lost > 0 && a.told.is_empty());
    b.dtls.handle_timeout(b.timeout).unwrap();
    exchange(&mut a, &mut b, |_, _| false);
    agree(&a, &b, &ours, &theirs);
}

#[test]
fn what_is_no_dtls_changes_nothing() {
    let (ours, theirs) = (ecdsa(), ecdsa());
    let now = now();
    let openssl = Openssl::new();
    let mut a = Side::new(&openssl, &ours, true, now);
    let mut b = Side::new(dimpl(), &theirs, false, now);
    for noise in [&[][..], &[22], &[22, 254, 253, 0, 0], &[0xff; 64], &[23; 1400]] {
        assert!(a.dtls.handle_packet(noise).is_ok());
    }
    exchange(&mut a, &mut b, |_, _| false);
    agree(&a, &b, &ours, &theirs);
}

#[test]
fn a_lost_flight_of_openssl_comes_again_after_a_real_second() {
    let (ours, theirs) = (ecdsa(), ecdsa());
    let began = now();
    let openssl = Openssl::new();
    // The hello; the client's last flight, which begins with a certificate; and the server's
    // last, which comes again when the client's does.
    let losses: [fn(bool, usize) -> bool; 3] = [
        |from_a, number| from_a && number == 0,
        |from_a, number| from_a && number == 1,
        |from_a, number| !from_a && number == LAST,
    ];
    let mut pairs = losses.map(|loss| {
        let mut a = Side::new(&openssl, &ours, true, began);
        let mut b = Side::new(dimpl(), &theirs, false, began);
        let (mut sent, mut lost) = ([0, 0], 0);
        exchange(&mut a, &mut b, |from_a, datagram| {
            let is_last = !from_a && datagram[0] == CHANGE_CIPHER_SPEC;
            let number = if is_last { LAST } else { sent[usize::from(from_a)] };
            sent[usize::from(from_a)] += 1;
            lost += usize::from(loss(from_a, number));
            loss(from_a, number)
        });
        assert!(lost == 1 && a.told.is_empty());
        (a, b)
    });
    // OpenSSL's patience has an end, and this loop ends with it.
    while pairs.iter().any(|(a, _)| a.told.is_empty()) {
        std::thread::sleep(ASK);
        for (a, b) in &mut pairs {
            a.dtls.handle_timeout(now()).unwrap();
            exchange(a, b, |_, _| false);
        }
    }
    for (a, b) in &pairs {
        agree(a, b, &ours, &theirs);
    }
}

/// The number of the server's last flight here, however many datagrams came before it.
const LAST: usize = usize::MAX;

/// The record that begins the server's last flight.
const CHANGE_CIPHER_SPEC: u8 = 20;

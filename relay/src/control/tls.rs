//! TLS 1.3 between nodes, each proving that it holds a cluster key.
//!
//! There is no PKI: from each cluster key follows one Ed25519 key, by HKDF. A node shows the
//! public half of the one it sends with as a raw public key (RFC 7250) and accepts that of every
//! key it has. Who can sign with it holds the cluster key.
//!
//! What this does not give: to tell nodes apart (their numbers are what they say), or to shut
//! one node out; a key that leaked is changed everywhere.
//!
//! Invariants: both sides are authenticated, or there is no connection; no session is resumed, so
//! that each connection has fresh secrets.
//!
//! Not here: what is said afterwards (`hello`).

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use crate::keys::{ClusterKey, ClusterKeys, Purpose};

/// The protocol's name in the handshake.
pub(super) const ALPN: &[u8] = b"shardcast-relay/1";

/// What the certificate would be for: the same for all, since the key decides.
pub(super) const SERVER_NAME: &str = "shardcast-node";

/// What both ends of a connection have in common: 32 bytes, for the media links.
pub(super) const EXPORTER: &[u8] = b"EXPORTER-shardcast-link";

/// Both roles of a node.
pub(super) fn configs(keys: &ClusterKeys) -> (Arc<QuicClientConfig>, Arc<QuicServerConfig>) {
    let provider = Arc::new(crypto_provider());
    let verifier = Arc::new(Pinned {
        accepted: keys.iter().map(|key| public_key(&key_pair(key))).collect(),
        algorithms: provider.signature_verification_algorithms,
    });
    let own = Arc::new(certified(keys.sending()));
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own.clone())));
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let client = QuicClientConfig::try_from(client).expect("the provider has AES-128-GCM");
    let server = QuicServerConfig::try_from(server).expect("the provider has AES-128-GCM");
    (Arc::new(client), Arc::new(server))
}

/// X25519 alone: a hybrid with ML-KEM makes the first flight two datagrams, which doubles what
/// a flood of them costs and what loss does to a call.
fn crypto_provider() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![provider::kx_group::X25519], ..provider::default_provider() }
}

fn key_pair(key: &ClusterKey) -> Ed25519KeyPair {
    let seed = key.derive(Purpose::NodeTls);
    Ed25519KeyPair::from_seed_unchecked(&*seed).expect("any 32 bytes are an Ed25519 seed")
}

fn certified(key: &ClusterKey) -> CertifiedKey {
    let pair = key_pair(key);
    let spki = CertificateDer::from(public_key(&pair));
    let pkcs8 = pair.to_pkcs8v1().expect("a key pair has a PKCS#8 form");
    let private = PrivatePkcs8KeyDer::from(pkcs8.as_ref());
    let signer = provider::sign::any_eddsa_type(&private).expect("it is an Ed25519 key");
    CertifiedKey::new(vec![spki], signer)
}

/// The SubjectPublicKeyInfo (RFC 8410 §4).
fn public_key(pair: &Ed25519KeyPair) -> Vec<u8> {
    const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    [&HEAD, pair.public_key().as_ref()].concat()
}

/// Accepts just the public keys that follow from the cluster keys.
#[derive(Debug)]
struct Pinned {
    accepted: Vec<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        if self.accepted.iter().any(|key| key == shown.as_ref()) {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

const TLS12: &str = "nodes speak TLS 1.3 only";

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(TLS12.into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(TLS12.into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::testing::keys;

    #[test]
    fn the_public_key_follows_from_the_cluster_key_and_the_signer_has_it() {
        let keys = keys(&[1, 2]);
        let one = certified(keys.sending());
        assert_eq!(one.cert, certified(keys.sending()).cert);
        assert_ne!(one.cert, certified(keys.get(2).unwrap()).cert);
        assert_eq!(one.cert[0].len(), 44);
        let signers = one.key.public_key().unwrap();
        assert_eq!(signers.as_ref(), one.cert[0].as_ref());
    }

    #[test]
    fn only_keys_of_the_cluster_are_accepted() {
        let pinned = |kids: &[u8]| Pinned {
            accepted: keys(kids).iter().map(|key| public_key(&key_pair(key))).collect(),
            algorithms: provider::default_provider().signature_verification_algorithms,
        };
        let shown = certified(keys(&[2]).sending()).cert.remove(0);
        assert!(pinned(&[1, 2]).check(&shown).is_ok());
        assert!(pinned(&[1, 3]).check(&shown).is_err());
        assert!(pinned(&[2]).check(&CertificateDer::from(vec![])).is_err());
    }
}

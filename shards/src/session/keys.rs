//! The DTLS provider given to str0m: one shared configuration for all sessions, and a tap on
//! the SRTP keys that pass through it.
//!
//! str0m asks for its DTLS instance synchronously inside `RtcConfig::build`, so a thread-local
//! carries the slot the keys of that session go to. Sharing one `dimpl::Config` matters: each
//! one runs the crypto library's self-tests, 700 µs against 16 µs per session
//! (measured with str0m 0.25 and dimpl 0.9).
//!
//! Invariants: captured keys are wiped when dropped, handed out once, and go nowhere else:
//! what has them is alone in using up their nonces.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use str0m::crypto::CryptoProvider;
use str0m_proto::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};
use str0m_proto::crypto::{CryptoError, DtlsVersion};
use zeroize::Zeroizing;

/// The SRTP keying material of one session, as exported by its DTLS handshake (RFC 5764 §4.2).
pub struct Keys {
    pub profile: SrtpProfile,
    pub material: Zeroizing<Vec<u8>>,
    /// We were the DTLS client.
    pub active: bool,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// Where the keys of one session arrive.
#[derive(Debug, Clone, Default)]
pub struct KeySlot(Arc<Mutex<Option<Keys>>>);

impl KeySlot {
    /// The keys, once, after the handshake.
    pub fn take(&self) -> Option<Keys> {
        // A poisoned lock means a panic while storing keys: the session ends anyway.
        self.0.lock().ok()?.take()
    }

    /// Where the keys of the DTLS instance that is being made now are wanted, if anywhere: for
    /// implementations of DTLS.
    pub fn claim() -> Option<Self> {
        NEXT.with(|next| next.borrow_mut().take())
    }

    pub fn put(&self, keys: Keys) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = Some(keys);
        }
    }
}

thread_local! {
    /// The slot for the DTLS instance that is made next on this thread.
    static NEXT: RefCell<Option<KeySlot>> = const { RefCell::new(None) };
}

/// Runs `build`, which makes one `Rtc`, so that its keys arrive in the returned slot.
pub fn with_key_slot<T>(build: impl FnOnce() -> T) -> (T, KeySlot) {
    let slot = KeySlot::default();
    NEXT.with(|next| *next.borrow_mut() = Some(slot.clone()));
    let built = build();
    NEXT.with(|next| *next.borrow_mut() = None);
    (built, slot)
}

/// str0m's cryptography with our DTLS in it. One for the process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            static DTLS: TappedDtls = TappedDtls { config: OnceLock::new() };
            provider_with(&DTLS)
        })
        .clone()
}

/// str0m's cryptography with another DTLS, which gives keys to [`KeySlot::claim`]'s slot.
pub fn provider_with(dtls: &'static dyn DtlsProvider) -> Arc<CryptoProvider> {
    let mut provider = str0m_aws_lc_rs::default_provider();
    provider.dtls_provider = dtls;
    Arc::new(provider)
}

#[derive(Debug)]
struct TappedDtls {
    config: OnceLock<Result<Arc<dimpl::Config>, String>>,
}

impl DtlsProvider for TappedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _: DtlsVersion,
        _: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = self.config.get_or_init(|| {
            dimpl::Config::builder()
                // ICE has proved the return path before DTLS starts; a cookie would only add
                // a round trip.
                .use_server_cookie(false)
                .mtu(DTLS_MTU)
                .build()
                .map(Arc::new)
                .map_err(|error| error.to_string())
        });
        let config = config.clone().map_err(CryptoError::Other)?;
        // DTLS 1.2 on purpose: as its server we choose the SRTP profile, and choose AES-GCM;
        // in 1.3 the client's order decides, and Chromium's begins with AES-CM.
        let inner = dimpl::Dtls::new_12(config, cert.clone(), now);
        Ok(Box::new(Tap { inner, slot: KeySlot::claim() }))
    }
}

/// The largest DTLS datagram we send. Every network that carries WebRTC carries this.
const DTLS_MTU: usize = 1150;

struct Tap {
    inner: dimpl::Dtls,
    slot: Option<KeySlot>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tap")
    }
}

impl DtlsInstance for Tap {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.inner.poll_output(buf) {
            DtlsOutput::KeyingMaterial(material, profile) => {
                let Some(slot) = &self.slot else {
                    return DtlsOutput::KeyingMaterial(KeyingMaterial::new(&material), profile);
                };
                slot.put(Keys {
                    profile,
                    material: Zeroizing::new(material.to_vec()),
                    active: self.inner.is_active(),
                });
                // Media is ours: str0m would only make ciphers of them. That the handshake is
                // done, which it was told before, it may hear twice.
                DtlsOutput::Connected
            }
            other => other,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}

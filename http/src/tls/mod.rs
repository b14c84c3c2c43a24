//! TLS as a byte machine, and where its certificate comes from.
//!
//! Invariants: TLS 1.2 and 1.3 only, ALPN `http/1.1` only; a certificate is served only with
//! the key that belongs to it; tickets survive a change of the certificate.
//!
//! Not here: sockets; when to look at the files again.

mod expiry;
mod files;
mod filter;
mod reload;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use files::{TlsError, TlsFiles, self_signed};
pub(crate) use filter::Filter;
pub use reload::{Reloader, Stamp};

/// A certificate chain, leaf first, and its key.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// A pair from elsewhere. Whether it is one shows when a configuration is made of it.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// When the leaf stops being valid, in seconds since 1970; `None` when it cannot be read.
    pub fn expires_at(&self) -> Option<u64> {
        expiry::not_after(self.chain.first()?)
    }

    /// Whether the leaf's time is over. It is served all the same: a client may not care, and
    /// to refuse it would make a late renewal an outage.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.expires_at().is_some_and(|end| end < now)
    }

    /// The leaf, in DER: what a client must be told to trust when it is self-signed.
    pub fn leaf(&self) -> &[u8] {
        self.chain.first().map_or(&[], |leaf| leaf)
    }
}

/// The configuration every new connection takes; replaced when the certificate changes.
///
/// Clones share it, over shards too. Read once per connection, so a lock is cheap enough.
#[derive(Clone)]
pub struct TlsConfig {
    current: Arc<RwLock<Arc<ServerConfig>>>,
    lasting: Arc<Lasting>,
}

/// What outlives a certificate.
struct Lasting {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

impl TlsConfig {
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        let lasting = Lasting {
            provider: Arc::new(aws_lc_rs::default_provider()),
            tickets: aws_lc_rs::Ticketer::new().map_err(TlsError::Library)?,
            sessions: ServerSessionMemoryCache::new(CACHED_SESSIONS),
        };
        let config = lasting.configure(identity)?;
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(config))), lasting: Arc::new(lasting) })
    }

    /// Serves another certificate to connections from now on.
    pub fn replace(&self, identity: Identity) -> Result<(), TlsError> {
        let config = Arc::new(self.lasting.configure(identity)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Lasting {
    fn configure(&self, identity: Identity) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Library)?
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .map_err(TlsError::from_identity)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = self.tickets.clone();
        config.session_storage = self.sessions.clone();
        // One ticket per connection: browsers open few, and each costs bytes and CPU.
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

/// Sessions of TLS 1.2 clients without tickets; rustls keeps each for a day at most. Tickets
/// cost no memory and serve all others.
const CACHED_SESSIONS: usize = 1024;

#[cfg(test)]
mod tests;

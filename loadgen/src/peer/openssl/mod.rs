//! DTLS by OpenSSL, for servers whose certificate has an RSA key: dimpl speaks ECDSA only.
//!
//! OpenSSL reads and writes memory here, and time is an argument, but for one thing: when a
//! flight is to be repeated, it reads the system's clock itself (after 1 s, then 2 s, 4 s, …).
//! It is asked often enough to find out.
//!
//! Invariants: a datagram is one read or one write of OpenSSL; once a session is closed,
//! nothing is read any more; after each call what is to be sent waits in `Wire`, and never more
//! than a flight of it, because whoever drives a session drains it then.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode,
    SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use shards::session::keys::{self, KeySlot, Keys};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
    ProtocolVersion, SrtpProfile,
};

#[cfg(test)]
mod tests;

/// What RFC 5764 §4.2 calls the exported keys.
const EXPORTER: &str = "EXTRACTOR-dtls_srtp";

/// Suites with forward secrecy and AES-GCM, whatever the kind of the server's certificate.
const SUITES: &str = "ECDHE+AESGCM";

/// Datagrams of the handshake, if nobody says how long they may be.
const MTU: usize = 1150;

/// During a handshake, how often OpenSSL is asked whether a flight is to be repeated.
const ASK: Duration = Duration::from_millis(100);

/// After it, nothing is due by itself.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest plaintext of a record.
const RECORD_MAX: usize = 1 << 14;

/// OpenSSL, for one certificate after the other.
#[derive(Debug)]
pub(super) struct Openssl {
    /// The last certificate and what was made of it: to make it takes longer than a handshake's
    /// beginning, and all peers of a run have the same.
    context: Mutex<Option<(DtlsCert, SslContext)>>,
}

impl Openssl {
    pub(super) const fn new() -> Self {
        Self { context: Mutex::new(None) }
    }

    fn context(&self, cert: &DtlsCert) -> Result<SslContext, ErrorStack> {
        // A context is whole or absent, whoever panicked.
        let mut last = self.context.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((known, context)) = &*last
            && known.certificate == cert.certificate
        {
            return Ok(context.clone());
        }
        let context = make_context(cert)?;
        *last = Some((cert.clone(), context.clone()));
        Ok(context)
    }
}

fn make_context(cert: &DtlsCert) -> Result<SslContext, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::dtls())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_cipher_list(SUITES)?;
    let profiles: Vec<String> = SrtpProfile::ALL.iter().map(ToString::to_string).collect();
    context.set_tlsext_use_srtp(&profiles.join(":"))?;
    // Both sides show their certificates; str0m compares them with the fingerprints.
    let both = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
    context.set_verify_callback(both, |_, _| true);
    context.set_certificate(X509::from_der(&cert.certificate)?.as_ref())?;
    context.set_private_key(PKey::private_key_from_der(&cert.private_key)?.as_ref())?;
    // No session is ever resumed.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_options(SslOptions::NO_TICKET | SslOptions::NO_QUERY_MTU);
    Ok(context.build())
}

impl DtlsProvider for Openssl {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        keys::provider().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        if version == DtlsVersion::Dtls13 {
            return Err(CryptoError::Other("OpenSSL has no DTLS 1.3".to_owned()));
        }
        let session = self.context(cert).and_then(|context| {
            let mut ssl = Ssl::new(&context)?;
            ssl.set_mtu(mtu.unwrap_or(MTU) as u32)?;
            Session::new(ssl, now)
        });
        let session = session.map_err(|error| CryptoError::Other(format!("OpenSSL: {error}")))?;
        Ok(Box::new(session))
    }
}

/// What OpenSSL takes for the network.
#[derive(Debug, Default)]
struct Wire {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.take().ok_or(io::ErrorKind::WouldBlock)?;
        // As with a socket, what does not fit is gone.
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl io::Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outgoing.push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Which side it is was not said yet.
    Idle,
    Handshaking,
    Connected,
    /// By us, or by an error.
    Closed,
}

/// What is to be sent or told.
enum News {
    Datagram(Vec<u8>),
    Connected,
    PeerCert(Vec<u8>),
    Keys(KeyingMaterial, SrtpProfile),
    Data(Vec<u8>),
    PeerClosed,
}

impl News {
    /// What of it goes into a buffer.
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Datagram(bytes) | Self::PeerCert(bytes) | Self::Data(bytes) => bytes,
            Self::Connected | Self::Keys(..) | Self::PeerClosed => &[],
        }
    }
}

/// One side of one connection.
struct Session {
    stream: SslStream<Wire>,
    /// Where the keys go, unless str0m is to have them.
    slot: Option<KeySlot>,
    active: bool,
    state: State,
    news: VecDeque<News>,
    now: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Session {
    fn new(ssl: Ssl, now: Instant) -> Result<Self, ErrorStack> {
        let stream = SslStream::new(ssl, Wire::default())?;
        let (slot, news) = (KeySlot::claim(), VecDeque::new());
        Ok(Self { stream, slot, active: false, state: State::Idle, news, now })
    }

    /// Goes on with the handshake, as far as it can be gone on with now.
    fn shake(&mut self) -> Result<(), DtlsImplError> {
        if self.state != State::Handshaking {
            return Ok(());
        }
        let shaken = if self.active { self.stream.connect() } else { self.stream.accept() };
        match shaken {
            Ok(()) => {
                let Some(news) = self.connected() else { return Err(self.fail()) };
                self.news.extend(news);
                self.state = State::Connected;
                Ok(())
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(()),
            Err(_) => Err(self.fail()),
        }
    }

    /// What there is to tell after the handshake, unless no SRTP was agreed on.
    fn connected(&self) -> Option<[News; 3]> {
        let ssl = self.stream.ssl();
        let name = ssl.selected_srtp_profile()?.name();
        let profile = *SrtpProfile::ALL.iter().find(|profile| profile.to_string() == name)?;
        let cert = ssl.peer_certificate()?.to_der().ok()?;
        let mut material = vec![0; profile.keying_material_len()];
        ssl.export_keying_material(&mut material, EXPORTER, None).ok()?;
        let keys = News::Keys(KeyingMaterial::new(&material), profile);
        Some([News::Connected, News::PeerCert(cert), keys])
    }

    /// Reads what the last datagram had besides a handshake.
    fn read(&mut self) -> Result<(), DtlsImplError> {
        let mut buffer = [0; RECORD_MAX];
        while self.state == State::Connected {
            match self.stream.ssl_read(&mut buffer) {
                Ok(len) => self.news.push_back(News::Data(buffer[..len].to_vec())),
                Err(error) if error.code() == ErrorCode::WANT_READ => break,
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                    self.news.push_back(News::PeerClosed);
                    break;
                }
                Err(_) => return Err(self.fail()),
            }
        }
        Ok(())
    }

    fn hand_over<'a>(&self, material: KeyingMaterial, profile: SrtpProfile) -> DtlsOutput<'a> {
        let Some(slot) = &self.slot else { return DtlsOutput::KeyingMaterial(material, profile) };
        slot.put(Keys { profile, material: material.to_vec().into(), active: self.active });
        // As str0m was told before: it only must be told something.
        DtlsOutput::Connected
    }

    /// It did not fit the buffer it was asked for with.
    fn put_back(&mut self, news: News) {
        match news {
            News::Datagram(datagram) => self.stream.get_mut().outgoing.push_front(datagram),
            news => self.news.push_front(news),
        }
    }

    /// An alert, sent or received: OpenSSL takes a session no further.
    fn fail(&mut self) -> DtlsImplError {
        self.state = State::Closed;
        DtlsImplError::ConnectionClosed
    }
}

impl DtlsInstance for Session {
    fn set_active(&mut self, active: bool) {
        self.active = active;
        self.state = State::Handshaking;
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        if matches!(self.state, State::Idle | State::Closed) {
            return Ok(());
        }
        // str0m starts a client with an empty one.
        self.stream.get_mut().incoming = (!packet.is_empty()).then(|| packet.to_vec());
        self.shake()?;
        self.read()
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let datagram = self.stream.get_mut().outgoing.pop_front().map(News::Datagram);
        let Some(news) = datagram.or_else(|| self.news.pop_front()) else {
            let rest = if self.state == State::Handshaking { ASK } else { NEVER };
            return DtlsOutput::Timeout(self.now + rest);
        };
        let needed = news.bytes().len();
        let Some(place) = buf.get_mut(..needed) else {
            self.put_back(news);
            return DtlsOutput::BufferTooSmall { needed };
        };
        place.copy_from_slice(news.bytes());
        match news {
            News::Datagram(_) => DtlsOutput::Packet(place),
            News::PeerCert(_) => DtlsOutput::PeerCert(place),
            News::Data(_) => DtlsOutput::ApplicationData(place),
            News::Connected => DtlsOutput::Connected,
            News::Keys(keys, profile) => self.hand_over(keys, profile),
            News::PeerClosed => DtlsOutput::CloseNotify,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        self.shake()
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        match self.state {
            State::Idle | State::Handshaking => Ok(0),
            State::Closed => Err(DtlsImplError::ConnectionClosed),
            State::Connected if data.is_empty() => Ok(0),
            State::Connected => self.stream.ssl_write(data).map_err(|_| self.fail()),
        }
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        (self.state == State::Connected).then_some(ProtocolVersion::DTLS1_2)
    }

    fn is_closing(&self) -> bool {
        self.state == State::Closed
    }

    fn is_closed(&self) -> bool {
        self.state == State::Closed && self.stream.get_ref().outgoing.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        if self.state == State::Connected {
            // The peer may be gone: nobody waits for its answer.
            let _ = self.stream.shutdown();
        }
        self.state = State::Closed;
        Ok(())
    }
}

//! ICE-lite, DTLS and SCTP of one session, by str0m through its direct API.
//!
//! str0m never sees a media packet and never writes SDP: it answers STUN, runs the DTLS
//! handshake as server, and yields the SRTP keys. Its local addresses are stand-ins, because
//! it would drop every datagram whose destination is not exactly a candidate; [`Paths`] knows
//! the real ones.
//!
//! Invariants: after every mutation the output is drained (str0m's single-mutation contract);
//! a panic inside str0m ends this transport only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::config::{DtlsCert, Fingerprint};
use str0m::ice::StunMessage;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig, RtcError};

use super::keys::{self, KeySlot, Keys};
use super::paths::{Checked, Paths};
use super::sdp::RemoteTransport;
use super::ufrag::Credentials;

/// What happened inside a transport, for the engine.
#[derive(Debug, Default)]
pub struct Happened {
    /// Datagrams to send: (remote, local, bytes).
    pub datagrams: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// The handshake is done: here are the keys, once.
    pub keys: Option<Keys>,
    /// The client closed, or the transport failed for good.
    pub closed: bool,
    /// A STUN check succeeded.
    pub checked: Option<Checked>,
}

pub struct Transport {
    rtc: Rtc,
    slot: KeySlot,
    credentials: Credentials,
    /// Before the last ICE restart; still good for finding the session until the client moves.
    previous_ufrag: Option<String>,
    pub paths: Paths,
    timeout: Option<Instant>,
    remote_known: bool,
    sctp_started: bool,
    dtls_client: bool,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Transport {
    pub fn new(cert: &DtlsCert, credentials: Credentials, now: Instant) -> Option<Self> {
        let creds = IceCreds { ufrag: credentials.ufrag.clone(), pass: credentials.pwd.clone() };
        let config = RtcConfig::new()
            .set_crypto_provider(keys::provider())
            .set_dtls_cert(cert.clone())
            .set_local_ice_credentials(creds)
            .set_ice_lite(true)
            .clear_codecs()
            .set_rtp_mode(true);
        let (rtc, slot) = keys::with_key_slot(|| catch_unwind(move || config.build(now)).ok());
        let mut rtc = rtc?;
        for address in [STAND_IN_V4, STAND_IN_V6] {
            let candidate = Candidate::host(address, "udp").ok()?;
            rtc.add_local_candidate(candidate);
        }
        Some(Self {
            rtc,
            slot,
            credentials,
            previous_ufrag: None,
            paths: Paths::default(),
            timeout: None,
            remote_known: false,
            sctp_started: false,
            dtls_client: false,
        })
    }

    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whether a STUN request for `ufrag` is for this session.
    pub fn answers_to(&self, ufrag: &str) -> bool {
        self.credentials.ufrag == ufrag || self.previous_ufrag.as_deref() == Some(ufrag)
    }

    /// The fingerprint of our certificate, as `a=fingerprint` writes it.
    pub fn fingerprint(&mut self) -> String {
        self.rtc.direct_api().local_dtls_fingerprint().to_string()
    }

    /// Takes the client's side of the transport from a description. The first one starts the
    /// handshake; a later one may restart ICE, for which `restart` brings our new credentials.
    pub fn set_remote(
        &mut self,
        remote: &RemoteTransport,
        restart: Option<Credentials>,
        now: Instant,
    ) -> Happened {
        self.guarded(now, |this| {
            let creds = IceCreds { ufrag: remote.ufrag.clone(), pass: remote.pwd.clone() };
            this.rtc.direct_api().set_remote_ice_credentials(creds);
            if let Some(credentials) = restart {
                let pass = credentials.pwd.clone();
                let creds = IceCreds { ufrag: credentials.ufrag.clone(), pass };
                this.rtc.direct_api().set_local_ice_credentials(creds);
                let old = std::mem::replace(&mut this.credentials, credentials);
                this.previous_ufrag = Some(old.ufrag);
                this.paths.restart();
            }
            if !this.remote_known {
                this.remote_known = true;
                this.dtls_client = remote.we_are_dtls_client;
                this.rtc.direct_api().set_remote_fingerprint(Fingerprint {
                    hash_func: "sha-256".to_owned(),
                    bytes: remote.fingerprint.to_vec(),
                });
                this.rtc.direct_api().start_dtls(remote.we_are_dtls_client)?;
            }
            Ok(())
        })
    }

    /// Brings up SCTP; the client's description had an application m-line.
    pub fn start_sctp(&mut self, now: Instant) -> Happened {
        if std::mem::replace(&mut self.sctp_started, true) {
            return Happened::default();
        }
        self.guarded(now, |this| {
            this.rtc.direct_api().start_sctp(this.dtls_client);
            Ok(())
        })
    }

    /// A STUN message that names this session, or answers it.
    pub fn stun(
        &mut self,
        message: &StunMessage<'_>,
        bytes: &[u8],
        source: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Happened {
        if !self.remote_known {
            // The check overtook the client's description, which we need for its ufrag.
            return Happened::default();
        }
        let mut happened = self.receive(bytes, source, Some(local), now);
        let success = happened.datagrams.iter().any(|(to, _, reply)| {
            *to == source && reply.starts_with(&STUN_SUCCESS) && reply.len() >= 20
        });
        if success {
            let (priority, nominated) = (message.prio().unwrap_or(0), message.use_candidate());
            let checked = self.paths.checked(source, local, priority, nominated, now);
            happened.checked = Some(checked);
        }
        happened
    }

    /// A DTLS datagram from an address that belongs to this session.
    pub fn dtls(&mut self, bytes: &[u8], source: SocketAddr, now: Instant) -> Happened {
        self.receive(bytes, source, None, now)
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Happened {
        self.guarded(now, |_| Ok(()))
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Says goodbye: DTLS close_notify.
    pub fn close(&mut self, now: Instant) -> Happened {
        self.guarded(now, |this| this.rtc.close())
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        local: Option<SocketAddr>,
        now: Instant,
    ) -> Happened {
        let destination = if source.is_ipv4() { STAND_IN_V4 } else { STAND_IN_V6 };
        let Ok(contents) = bytes.try_into() else {
            return Happened::default();
        };
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        let mut happened =
            self.guarded(now, |this| this.rtc.handle_input(Input::Receive(now, receive)));
        if let Some(local) = local {
            for datagram in &mut happened.datagrams {
                if datagram.0 == source {
                    datagram.1 = local;
                }
            }
        }
        happened.datagrams.retain(|(_, local, _)| *local != NOWHERE);
        happened
    }

    /// Runs one mutation and drains what it caused, containing a panic.
    fn guarded(
        &mut self,
        now: Instant,
        mutate: impl FnOnce(&mut Self) -> Result<(), RtcError>,
    ) -> Happened {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let result = mutate(self);
            let mut happened = Happened::default();
            let drained = result
                .and_then(|()| self.drain(&mut happened))
                .and_then(|()| self.rtc.handle_input(Input::Timeout(now)))
                .and_then(|()| self.drain(&mut happened));
            happened.closed |= drained.is_err();
            happened
        }));
        ran.unwrap_or_else(|_| Happened { closed: true, ..Happened::default() })
    }

    fn drain(&mut self, happened: &mut Happened) -> Result<(), RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.timeout = Some(at);
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    let bytes: Vec<u8> = transmit.contents.into();
                    // No stream was ever declared to it, so str0m has no media to send. What
                    // would carry our keys' nonces must not leave.
                    if bytes.first().is_some_and(|&first| first >= 128) {
                        continue;
                    }
                    let remote = transmit.destination;
                    let local = self.paths.local_for(remote).unwrap_or(NOWHERE);
                    happened.datagrams.push((remote, local, bytes));
                }
                Output::Event(Event::Connected) => happened.keys = self.slot.take(),
                Output::Event(Event::Closed) => happened.closed = true,
                Output::Event(_) => {}
            }
        }
    }
}

/// A STUN binding success response (RFC 8489 §5).
const STUN_SUCCESS: [u8; 2] = [0x01, 0x01];
/// What str0m takes for its own addresses. From the documentation ranges, never on a wire.
const STAND_IN_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const STAND_IN_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);
/// The local address of a remote that no check has come from yet.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

//! One ICE-lite agent with one DTLS association and what SCTP it carries: a str0m instance,
//! driven through its direct API.
//!
//! Its local addresses are stand-ins, because it would drop every datagram whose destination
//! is not exactly a candidate; `paths` knows the real ones.
//!
//! Invariants: after every mutation the output is drained (str0m's single-mutation contract);
//! a panic inside str0m ends this association only; a datagram that str0m refuses ends
//! nothing, as anybody can send one under a client's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::config::{DtlsCert, Fingerprint};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig, RtcError};

use super::keys::{self, KeySlot, Keys};
use super::recheck::Answered;
use super::sdp::RemoteTransport;
use super::ufrag::Credentials;

/// What an association did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// The handshake is done: here are the keys, once.
    pub(super) keys: Option<Keys>,
    /// The client closed, or the association failed for good.
    pub(super) closed: bool,
}

pub(super) struct Association {
    rtc: Rtc,
    slot: KeySlot,
    timeout: Option<Instant>,
    is_up: bool,
    sctp_started: bool,
    /// What its agent was told last; repetitions of it need not be told.
    pub(super) answered: Option<Box<Answered>>,
}

impl Association {
    pub(super) fn new(cert: &DtlsCert, credentials: &Credentials, now: Instant) -> Option<Self> {
        let config = RtcConfig::new()
            .set_crypto_provider(keys::provider())
            .set_dtls_cert(cert.clone())
            .set_local_ice_credentials(creds(&credentials.ufrag, &credentials.pwd))
            .set_ice_lite(true)
            .clear_codecs()
            .set_rtp_mode(true);
        let (rtc, slot) = keys::with_key_slot(|| catch_unwind(move || config.build(now)).ok());
        let mut rtc = rtc?;
        for address in [STAND_IN_V4, STAND_IN_V6] {
            let candidate = Candidate::host(address, "udp").ok()?;
            rtc.add_local_candidate(candidate);
        }
        let (timeout, is_up, sctp_started, answered) = (None, false, false, None);
        Some(Self { rtc, slot, timeout, is_up, sctp_started, answered })
    }

    /// The fingerprint of our certificate, as `a=fingerprint` writes it.
    pub(super) fn fingerprint(&mut self) -> String {
        let api = self.rtc.direct_api();
        let fingerprint = api.local_dtls_fingerprint();
        let mut text = String::with_capacity(fingerprint.hash_func.len() + 96);
        text.push_str(&fingerprint.hash_func);
        // By hand: the formatter takes longer over 32 numbers than most of a join's steps.
        for (at, byte) in fingerprint.bytes.iter().enumerate() {
            text.push(if at == 0 { ' ' } else { ':' });
            text.extend([byte >> 4, byte & 15].map(|four| char::from(HEX[usize::from(four)])));
        }
        text
    }

    /// Begins: the client's side is known.
    pub(super) fn start(&mut self, remote: &RemoteTransport, now: Instant) -> Outcome {
        self.guarded(now, |rtc| {
            rtc.direct_api().set_remote_ice_credentials(creds(&remote.ufrag, &remote.pwd));
            rtc.direct_api().set_remote_fingerprint(Fingerprint {
                hash_func: "sha-256".to_owned(),
                bytes: remote.fingerprint.to_vec(),
            });
            rtc.direct_api().start_dtls(remote.we_are_dtls_client)
        })
    }

    /// New ICE credentials on either side.
    pub(super) fn restart_ice(
        &mut self,
        ours: Option<&Credentials>,
        theirs: &RemoteTransport,
        now: Instant,
    ) -> Outcome {
        self.answered = None;
        self.guarded(now, |rtc| {
            rtc.direct_api().set_remote_ice_credentials(creds(&theirs.ufrag, &theirs.pwd));
            if let Some(ours) = ours {
                rtc.direct_api().set_local_ice_credentials(creds(&ours.ufrag, &ours.pwd));
            }
            Ok(())
        })
    }

    pub(super) fn start_sctp(&mut self, as_client: bool, now: Instant) -> Outcome {
        self.sctp_started = true;
        self.guarded(now, |rtc| {
            rtc.direct_api().start_sctp(as_client);
            Ok(())
        })
    }

    /// A STUN or DTLS datagram.
    pub(super) fn receive(&mut self, bytes: &[u8], source: SocketAddr, now: Instant) -> Outcome {
        let destination = if source.is_ipv4() { STAND_IN_V4 } else { STAND_IN_V6 };
        let Ok(contents) = bytes.try_into() else {
            return Outcome::default();
        };
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        self.guarded(now, |rtc| {
            // Whether a bad datagram is the client's fault or a forger's cannot be told.
            let _ = rtc.handle_input(Input::Receive(now, receive));
            Ok(())
        })
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Outcome {
        self.guarded(now, |_| Ok(()))
    }

    /// When [`Self::handle_timeout`] wants to be called.
    ///
    /// Not by an association that is up and carries no SCTP: its handshake repeats nothing by
    /// itself any more, and what the agent of an ICE-lite does by the clock is to forget paths
    /// that are silent, which is `paths`' and the session's business here. One it has forgotten
    /// it learns again from the next check it is told.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timeout.filter(|_| !self.is_up || self.sctp_started)
    }

    /// Says goodbye: DTLS close_notify.
    pub(super) fn close(&mut self, now: Instant) -> Outcome {
        self.guarded(now, Rtc::close)
    }

    /// Runs one mutation and drains what it caused, containing a panic.
    fn guarded(
        &mut self,
        now: Instant,
        mutate: impl FnOnce(&mut Rtc) -> Result<(), RtcError>,
    ) -> Outcome {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut outcome = Outcome::default();
            let drained = mutate(&mut self.rtc)
                .and_then(|()| self.drain(&mut outcome))
                .and_then(|()| self.rtc.handle_input(Input::Timeout(now)))
                .and_then(|()| self.drain(&mut outcome));
            outcome.closed |= drained.is_err() || !self.rtc.is_alive();
            outcome
        }));
        ran.unwrap_or_else(|_| Outcome { closed: true, ..Outcome::default() })
    }

    fn drain(&mut self, outcome: &mut Outcome) -> Result<(), RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.timeout = Some(at);
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    let bytes: Vec<u8> = transmit.contents.into();
                    // No stream was ever declared to it, so str0m has no media to send. What
                    // would use our keys' nonces must not leave.
                    if bytes.first().is_some_and(|&first| first < 128) {
                        outcome.datagrams.push((transmit.destination, bytes));
                    }
                }
                Output::Event(Event::Connected) => {
                    self.is_up = true;
                    outcome.keys = self.slot.take();
                }
                Output::Event(Event::Closed) => outcome.closed = true,
                Output::Event(_) => {}
            }
        }
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn creds(ufrag: &str, pwd: &str) -> IceCreds {
    IceCreds { ufrag: ufrag.to_owned(), pass: pwd.to_owned() }
}

/// What str0m takes for its own addresses. From the documentation ranges, never on a wire.
const STAND_IN_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const STAND_IN_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;
    use crate::testing::start;

    #[test]
    fn our_fingerprint_is_written_as_str0m_writes_it() {
        let cert = keys::provider().dtls_provider.generate_certificate().unwrap();
        let credentials = Credentials::new(ShardId(0), 0, &mut || 7);
        let mut association = Association::new(&cert, &credentials, start()).unwrap();
        let text = association.fingerprint();
        assert_eq!(text, association.rtc.direct_api().local_dtls_fingerprint().to_string());
    }
}

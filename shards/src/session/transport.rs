//! The transport of one session: its ICE credentials, its network paths, its DTLS association,
//! and the next one.
//!
//! Browsers give up a transport and begin another, under the same ICE credentials, when the
//! first m-line of BUNDLE is stopped. They close the old association, which looks like leaving
//! for good until a ClientHello comes from a new path: so a fresh association waits for one,
//! for a moment. Should the goodbye be lost, the ClientHello begins a second association
//! beside the one that is up, which takes over once its handshake is done (RFC 6347 §4.2.8); a
//! forged one comes to nothing: what is encrypted still reaches the association that is up, and
//! a handshake that is not done in time is given up.
//!
//! Not here: media, and who the session is.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::config::DtlsCert;

use super::association::{Association, Outcome};
use super::hello;
use super::keys::Keys;
use super::paths::{Checked, Paths};
use super::recheck::{Answered, Reply, Request};
use super::sdp::RemoteTransport;
use super::sources::Sources;
use super::stun::Check;
use super::ufrag::Credentials;

/// A second association is not begun sooner after the last one: a handshake costs a signature,
/// which a forger must not get for the asking.
const SUCCESSION: Duration = Duration::from_secs(2);

/// A second association that is not up after this time is given up: a handshake takes two round
/// trips and few repetitions.
const HANDSHAKE: Duration = Duration::from_secs(6);

/// ClientHellos remembered of one handshake: the client's, and some of a forger's.
const HELLOS: usize = 4;

/// How long after the client closed its association a new one may begin. Browsers check the
/// new path at once; more would keep the tracks of those who left.
const FAREWELL: Duration = Duration::from_secs(2);

/// Checks kept for a successor: a browser tries few pairs at a time.
const NOMINATIONS: usize = 4;

/// What happened inside a transport, for the engine.
#[derive(Debug, Default)]
pub struct Happened {
    /// Datagrams to send: (remote, local, bytes).
    pub datagrams: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// A handshake is done: here are the keys, once. Not the first ones when the client began
    /// a new transport.
    pub keys: Option<Keys>,
    /// The client closed, or the transport failed for good.
    pub closed: bool,
    /// A STUN check succeeded.
    pub checked: Option<Checked>,
}

pub struct Transport {
    cert: DtlsCert,
    association: Association,
    /// Boxed: as large as all the rest, and hardly ever there.
    successor: Option<Box<Successor>>,
    credentials: Credentials,
    /// Before the last ICE restart; still good for finding the session until the client moves.
    previous_ufrag: Option<String>,
    pub paths: Paths,
    /// Where the association's agent was checked from.
    sources: Sources,
    remote: Option<RemoteTransport>,
    /// The randoms of the ClientHellos that came until the association was up, one of which
    /// began it; newest first.
    hellos: VecDeque<hello::Random>,
    is_up: bool,
    /// The client closed its last association; another one must be up by then.
    farewell: Option<Instant>,
    sctp_started: bool,
    /// The last check that nominated each of the last paths, for a successor to learn its path
    /// from; newest first. All of them with the present credentials.
    nominations: VecDeque<(SocketAddr, Vec<u8>)>,
}

struct Successor {
    association: Association,
    source: SocketAddr,
    hello: hello::Random,
    began_at: Instant,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Transport {
    pub fn new(cert: &DtlsCert, credentials: Credentials, now: Instant) -> Option<Self> {
        Some(Self {
            cert: cert.clone(),
            association: Association::new(cert, &credentials, now)?,
            successor: None,
            credentials,
            previous_ufrag: None,
            paths: Paths::default(),
            sources: Sources::default(),
            remote: None,
            hellos: VecDeque::new(),
            is_up: false,
            farewell: None,
            sctp_started: false,
            nominations: VecDeque::new(),
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
        self.association.fingerprint()
    }

    /// Takes the client's side of the transport from a description. The first one starts the
    /// handshake; a later one may restart ICE, for which `restart` brings our new credentials.
    pub fn set_remote(
        &mut self,
        remote: &RemoteTransport,
        restart: Option<Credentials>,
        now: Instant,
    ) -> Happened {
        let outcome = if self.remote.is_none() {
            self.association.start(remote, now)
        } else {
            self.association.restart_ice(restart.as_ref(), remote, now)
        };
        self.remote = Some(remote.clone());
        if let Some(credentials) = restart {
            let old = std::mem::replace(&mut self.credentials, credentials);
            self.previous_ufrag = Some(old.ufrag);
            self.paths.restart();
            self.nominations.clear();
        }
        self.happened(outcome)
    }

    /// Brings up SCTP; the client's description had an application m-line.
    pub fn start_sctp(&mut self, now: Instant) -> Happened {
        if std::mem::replace(&mut self.sctp_started, true) {
            return Happened::default();
        }
        let outcome = self.association.start_sctp(self.is_dtls_client(), now);
        self.happened(outcome)
    }

    /// Whether a check from there may be looked at.
    pub fn admits(&self, source: SocketAddr, now: Instant) -> bool {
        self.sources.admits(source, now)
    }

    /// The answer to a check that tells nothing new of the path in use, if this is one.
    pub fn recheck(
        &mut self,
        request: &Request<'_>,
        source: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Option<Reply> {
        if self.paths.selected() != Some((source, local)) {
            return None;
        }
        let reply = self.association.answered.as_ref()?.again(request, source, local)?;
        self.paths.rechecked(now);
        Some(reply)
    }

    /// A STUN message that names this session.
    pub fn stun(
        &mut self,
        check: &Check<'_>,
        source: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Happened {
        if self.remote.is_none() {
            // The check overtook the client's description, which we need for its ufrag.
            return Happened::default();
        }
        let outcome = self.association.receive(check.bytes(), source, now);
        let success = outcome.datagrams.iter().any(|(to, reply)| {
            *to == source && reply.starts_with(&STUN_SUCCESS) && reply.len() >= 20
        });
        let checked = success.then(|| {
            let password = &self.credentials.pwd;
            self.association.answered =
                Answered::new(check.bytes(), source, local, password).map(Box::new);
            self.sources.remember(source, now);
            let (priority, nominated) = (check.priority(), check.nominates());
            if nominated {
                self.nominations.retain(|(known, _)| *known != source);
                self.nominations.truncate(NOMINATIONS - 1);
                self.nominations.push_front((source, check.bytes().to_vec()));
            }
            self.paths.checked(source, local, priority, nominated, now)
        });
        Happened { checked, ..self.happened(outcome) }
    }

    /// A DTLS datagram from an address that belongs to this session.
    pub fn dtls(&mut self, bytes: &[u8], source: SocketAddr, now: Instant) -> Happened {
        if let Some(random) = hello::client_random(bytes) {
            self.greeted(random, source, now);
        }
        let succeeding = self.successor.as_ref().is_some_and(|next| next.source == source);
        let mut happened = Happened::default();
        // What is encrypted is for either, and only one of them can open it.
        if !succeeding || hello::is_encrypted(bytes) {
            let outcome = self.association.receive(bytes, source, now);
            let closed = outcome.closed && self.is_up;
            happened = self.happened(outcome);
            if closed && self.wait_for_another(now) {
                happened.closed = false;
            }
        }
        if succeeding && let Some(successor) = &mut self.successor {
            let outcome = successor.association.receive(bytes, source, now);
            let more = self.succeeded(outcome, now);
            happened.datagrams.extend(more.datagrams);
            happened.keys = happened.keys.or(more.keys);
        }
        happened
    }

    /// The client closed the association that was up; true if another one may begin, or has
    /// begun: a goodbye may be overtaken.
    fn wait_for_another(&mut self, now: Instant) -> bool {
        self.is_up = false;
        self.farewell = Some(now + FAREWELL);
        if let Some(successor) = self.successor.take() {
            self.adopt(*successor, now);
            self.farewell = Some(now + HANDSHAKE);
            return true;
        }
        let fresh = Association::new(&self.cert, &self.credentials, now);
        let (Some(mut fresh), Some(remote)) = (fresh, &self.remote) else { return false };
        fresh.start(remote, now);
        self.association = fresh;
        self.sources = Sources::default();
        self.restart_sctp(now);
        self.hellos.clear();
        true
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Happened {
        let mut happened = Happened::default();
        if self.farewell.is_some_and(|at| at <= now) {
            return Happened { closed: true, ..happened };
        }
        if self.association.timeout().is_some_and(|at| at <= now) {
            let outcome = self.association.handle_timeout(now);
            happened = self.happened(outcome);
        }
        self.successor.take_if(|next| next.began_at + HANDSHAKE <= now);
        if let Some(successor) = &mut self.successor
            && successor.association.timeout().is_some_and(|at| at <= now)
        {
            let outcome = successor.association.handle_timeout(now);
            let more = self.succeeded(outcome, now);
            happened.datagrams.extend(more.datagrams);
            happened.keys = happened.keys.or(more.keys);
        }
        happened
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let successor = self.successor.as_ref().map(|next| {
            let given_up = next.began_at + HANDSHAKE;
            next.association.timeout().map_or(given_up, |at| at.min(given_up))
        });
        [self.association.timeout(), successor, self.farewell].into_iter().flatten().min()
    }

    /// Says goodbye: DTLS close_notify.
    pub fn close(&mut self, now: Instant) -> Happened {
        let outcome = self.association.close(now);
        self.happened(outcome)
    }

    fn is_dtls_client(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.we_are_dtls_client)
    }

    /// A ClientHello came: the first one, the same again, or one for a new association.
    fn greeted(&mut self, random: hello::Random, source: SocketAddr, now: Instant) {
        if !self.is_up {
            // Another one begins. A lost flight, which is repeated after a second or more, must
            // not cost the session; forgers get this once.
            if self.hellos.is_empty() && self.farewell.is_some() {
                self.farewell = Some(now + HANDSHAKE);
            }
            if !self.hellos.contains(&random) {
                self.hellos.truncate(HELLOS - 1);
                self.hellos.push_front(random);
            }
            return;
        }
        let known = self.hellos.contains(&random)
            || self.successor.as_ref().is_some_and(|next| next.hello == random);
        let soon = self
            .successor
            .as_ref()
            .is_some_and(|next| now.saturating_duration_since(next.began_at) < SUCCESSION);
        let check = self.nominations.iter().find(|(from, _)| *from == source);
        let (Some(remote), Some((_, check))) = (&self.remote, check) else { return };
        if known || soon {
            return;
        }
        let Some(mut association) = Association::new(&self.cert, &self.credentials, now) else {
            return;
        };
        association.start(remote, now);
        // Teaches it the path. The check itself was answered when it came.
        association.receive(check, source, now);
        let successor = Successor { association, source, hello: random, began_at: now };
        self.successor = Some(Box::new(successor));
    }

    /// What the successor did; once it is up, it takes over.
    fn succeeded(&mut self, outcome: Outcome, now: Instant) -> Happened {
        let Outcome { datagrams, keys, closed } = outcome;
        let happened = self.happened(Outcome { datagrams, keys, closed: false });
        if closed {
            self.successor = None;
        }
        if happened.keys.is_some()
            && let Some(successor) = self.successor.take()
        {
            self.paths.keep_only(successor.source);
            self.adopt(*successor, now);
        }
        happened
    }

    fn adopt(&mut self, successor: Successor, now: Instant) {
        self.association = successor.association;
        self.sources = Sources::default();
        self.sources.remember(successor.source, now);
        self.hellos = VecDeque::from([successor.hello]);
        self.restart_sctp(now);
    }

    /// SCTP lives within its association, so another one needs it anew.
    fn restart_sctp(&mut self, now: Instant) {
        if self.sctp_started {
            self.association.start_sctp(self.is_dtls_client(), now);
        }
    }

    /// Gives every datagram the address of ours that its remote knows.
    fn happened(&mut self, outcome: Outcome) -> Happened {
        if outcome.keys.is_some() {
            self.is_up = true;
            self.farewell = None;
        }
        let datagrams = outcome.datagrams.into_iter();
        Happened {
            // A remote without a path was never checked: str0m does not send there.
            datagrams: datagrams
                .filter_map(|(remote, bytes)| Some((remote, self.paths.local_for(remote)?, bytes)))
                .collect(),
            keys: outcome.keys,
            closed: outcome.closed,
            checked: None,
        }
    }
}

/// A STUN binding success response (RFC 8489 §5).
const STUN_SUCCESS: [u8; 2] = [0x01, 0x01];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;
    use crate::session::keys;
    use crate::testing::start;

    #[test]
    fn a_second_handshake_that_does_not_end_is_given_up() {
        let now = start();
        let cert = keys::provider().dtls_provider.generate_certificate().unwrap();
        let mut random = || 7;
        let credentials = Credentials::new(ShardId(0), 0, &mut random);
        let association = Association::new(&cert, &credentials, now).unwrap();
        let mut transport = Transport::new(&cert, credentials, now).unwrap();
        let source = ([127, 0, 0, 1], 9).into();
        let successor = Successor { association, source, hello: [7; 32], began_at: now };
        transport.successor = Some(Box::new(successor));
        assert!(transport.timeout().is_some_and(|at| at <= now + HANDSHAKE));
        transport.handle_timeout(now + HANDSHAKE / 2);
        assert!(transport.successor.is_some());
        transport.handle_timeout(now + HANDSHAKE);
        assert!(transport.successor.is_none());
    }
}

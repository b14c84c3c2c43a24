//! Sessions come, connect, fall silent and go.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::feedback::{REPORTS, next_together};
use super::{Engine, Progress, SessionKey};
use crate::command::Refusal;
use crate::ids::{AppId, SessionId, ShardId};
use crate::limits::{
    ADDRESS_HELD, CLOSED_AT_ONCE, CONTROL_QUEUED, DISCONNECTED_LIFETIME, OFFER_LIFETIME,
    ROUTES_PER_SHARD, SILENCE, TRACK_LIFETIME, UNCONNECTED_LIFETIME,
};
use crate::mail::Mail;
use crate::media::srtp::{KeyingMaterial, Opener, Profile, Sealer};
use crate::session::keys::Keys;
use crate::session::transport::{Happened, Transport};
use crate::session::ufrag::Credentials;
use crate::session::{PulledState, Session};

/// Who has an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) session: SessionKey,
    /// When an authentic datagram last came from there.
    pub(super) heard_at: Instant,
    learned_at: Instant,
}

impl Holder {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) >= ADDRESS_HELD
    }
}

/// Two shards that learn one address within this time did so before they heard of each other.
const CROSSING: Duration = Duration::from_secs(1);

impl Engine {
    /// Stops taking sessions.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Closes some sessions, each with a goodbye to its client. To be called, with a flush
    /// after each call, until it says that all are closed.
    pub fn close_some(&mut self, now: Instant) -> Progress {
        let keys: Vec<SessionKey> = self.sessions.keys().take(CLOSED_AT_ONCE).collect();
        for key in keys {
            self.end_session(key, now);
        }
        self.resume_woken(now);
        if self.sessions.is_empty() { Progress::Done } else { Progress::More }
    }

    pub(super) fn open_session(&mut self, app: AppId, now: Instant) -> Result<SessionKey, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let (node, shard) = (self.config.node, self.config.shard);
        let random = &mut self.random;
        let key = self.sessions.insert_with(|key| {
            let id = SessionId::new(node, shard, key.slot(), random());
            Session::new(id, app, random, now)
        });
        let key = key.ok_or_else(|| Refusal::Busy("sessions on this node".into()))?;
        self.meters.sessions_opened += 1;
        self.schedule(key, now + UNCONNECTED_LIFETIME);
        Ok(key)
    }

    /// The session with this id, if it is alive and of this application.
    pub(super) fn find_session(&self, app: AppId, id: SessionId) -> Option<SessionKey> {
        let (key, session) = self.sessions.at(id.slot())?;
        (session.id == id && session.app == app).then_some(key)
    }

    /// Ends a session: its tracks end, its pulls stop, its waiting requests fail, its client
    /// is told.
    pub(super) fn end_session(&mut self, key: SessionKey, now: Instant) {
        if let Some(transport) = self.sessions.get_mut(key).and_then(|s| s.transport.as_mut()) {
            let farewell = transport.close(now);
            self.send_control(farewell);
        }
        let Some(session) = self.sessions.remove(key) else { return };
        self.meters.sessions_closed += 1;
        for published in &session.published {
            if let Some(feed) = published.feed {
                self.end_feed(feed, true, now);
            }
        }
        for pulled in &session.pulled {
            match pulled.state {
                PulledState::Offered => self.break_promise(pulled.feed),
                PulledState::Active(pull) => self.remove_pull(pull),
                PulledState::Closed | PulledState::Refused(_) => {}
            }
        }
        self.abandon_sought(session.sought, now);
        let remotes: Vec<_> = session.transport.iter().flat_map(|t| t.paths.remotes()).collect();
        for remote in remotes {
            self.forget_address(key, remote);
        }
        self.woken.extend(session.waiters);
    }

    /// Ends the session, or parts of it, when nothing was heard for too long.
    pub(super) fn expire(&mut self, key: SessionKey, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return true };
        let since = |at: Instant| now.saturating_duration_since(at);
        let lost = match session.heard_at {
            None => since(session.asked_at) >= UNCONNECTED_LIFETIME,
            Some(at) => {
                if since(at) >= SILENCE {
                    session.connected = false;
                }
                since(at) >= SILENCE + DISCONNECTED_LIFETIME
            }
        };
        if lost {
            self.end_session(key, now);
            return true;
        }
        let silent: Vec<_> = session
            .published
            .iter()
            .filter_map(|p| p.feed)
            .filter(|feed| {
                self.feeds.get(*feed).is_some_and(|f| since(f.silent_from()) >= TRACK_LIFETIME)
            })
            .collect();
        for feed in silent {
            self.unpublish(key, feed, now);
        }
        false
    }

    /// The next moment at which the session has something to do.
    pub(super) fn next_deadline(&self, key: SessionKey) -> Option<Instant> {
        let session = self.sessions.get(key)?;
        let lifetime = match session.heard_at {
            None => session.asked_at + UNCONNECTED_LIFETIME,
            Some(at) if session.connected => at + SILENCE,
            Some(at) => at + SILENCE + DISCONNECTED_LIFETIME,
        };
        let tracks = session.published.iter().filter_map(|p| self.feeds.get(p.feed?));
        let tracks = tracks.map(|feed| feed.silent_from() + TRACK_LIFETIME).min();
        let transport = session.transport.as_deref().and_then(Transport::timeout);
        let reports = self.next_report(session);
        let offer = session.offered_at.map(|at| at + OFFER_LIFETIME);
        [Some(lifetime), tracks, transport, reports, offer].into_iter().flatten().min()
    }

    /// Makes the transport if there is none yet.
    pub(super) fn ensure_transport(
        &mut self,
        key: SessionKey,
        now: Instant,
    ) -> Result<(), Refusal> {
        let credentials = self.fresh_credentials(key);
        let session = self.sessions.get_mut(key).ok_or(Refusal::Internal)?;
        if session.transport.is_none() {
            let transport = Transport::new(&self.config.cert, credentials, now);
            session.transport = Some(Box::new(transport.ok_or(Refusal::Internal)?));
        }
        Ok(())
    }

    pub(super) fn fresh_credentials(&mut self, key: SessionKey) -> Credentials {
        Credentials::new(self.config.shard, key.slot(), &mut self.random)
    }

    pub(super) fn drive_transport(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(transport) = &mut session.transport else { return };
        if transport.timeout().is_some_and(|at| at <= now) {
            let happened = transport.handle_timeout(now);
            self.transport_happened(key, happened, now);
        }
    }

    /// Acts on what a transport did.
    pub(super) fn transport_happened(
        &mut self,
        key: SessionKey,
        mut happened: Happened,
        now: Instant,
    ) {
        let keys = happened.keys.take();
        let closed = happened.closed;
        let checked = happened.checked;
        self.send_control(happened);
        if closed {
            self.end_session(key, now);
            return;
        }
        if let Some(keys) = keys {
            self.connected(key, &keys, now);
        }
        if checked.is_some() {
            self.heard(key, now);
        }
        if let Some(at) = self.next_deadline(key) {
            self.schedule(key, at);
        }
    }

    /// Authentic RTCP came from the client. Where its media goes is not looked at again: only
    /// checks change that.
    pub(super) fn reported(&mut self, key: SessionKey, now: Instant) {
        match self.sessions.get_mut(key) {
            Some(session) if session.connected => session.heard_at = Some(now),
            _ => self.heard(key, now),
        }
    }

    /// An authenticated datagram came from the client.
    pub(super) fn heard(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.heard_at = Some(now);
            if !session.connected && session.ingress.is_keyed() {
                session.connected = true;
                self.wake_all_of(key);
            }
            self.update_destination(key);
        }
    }

    fn connected(&mut self, key: SessionKey, keys: &Keys, now: Instant) {
        let profile = Profile::try_from(keys.profile).ok();
        let Some(material) = profile.and_then(|p| KeyingMaterial::new(p, &keys.material)) else {
            return self.end_session(key, now);
        };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (ours, theirs) = material.split(keys.active);
        let again = session.ingress.is_keyed();
        session.egress.key(Sealer::new(&ours));
        session.ingress.key(Opener::new(&theirs));
        session.report_at = Some(next_together(self.epoch, now + REPORTS));
        let pulls: Vec<_> = session.pulled.iter().filter_map(|pulled| pulled.pull()).collect();
        self.heard(key, now);
        // From now on its subscriptions may ask for what they need.
        for pull in pulls {
            if again && let Some(pull) = self.pulls.get_mut(pull) {
                pull.rekey();
            }
            self.choose_layer(pull, now);
        }
    }

    fn update_destination(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(transport) = &session.transport
        {
            session.egress.to = transport.paths.selected();
        }
    }

    pub(super) fn send_control(&mut self, happened: Happened) {
        for datagram in happened.datagrams {
            if self.control.len() < CONTROL_QUEUED {
                self.control.push_back(datagram);
            } else {
                self.meters.control_dropped += 1;
            }
        }
    }

    /// Whether this session may have the address: nobody else is heard from it. Asks the shard
    /// that has it, if one does: the next check may then find it free.
    pub(super) fn may_have(&mut self, key: SessionKey, source: SocketAddr, now: Instant) -> bool {
        if let Some(holder) = self.addresses.get(&source) {
            return holder.session == key || holder.is_silent(now);
        }
        let Some(&owner) = self.routes.get(&source) else { return true };
        self.post(owner, Mail::Claim { source });
        false
    }

    /// The address is alive in the hands of this session; false if it is not in them.
    pub(super) fn heard_from(&mut self, source: SocketAddr, key: SessionKey, now: Instant) -> bool {
        let holder = self.addresses.get_mut(&source).filter(|holder| holder.session == key);
        let Some(holder) = holder else { return false };
        holder.heard_at = now;
        true
    }

    /// Notes that `remote` belongs to this session, here and at every other shard: what the
    /// kernel steers wrongly must still find its owner.
    pub(super) fn learn_address(&mut self, key: SessionKey, remote: SocketAddr, now: Instant) {
        let holder = Holder { session: key, heard_at: now, learned_at: now };
        self.addresses.insert(remote, holder);
        self.routes.remove(&remote);
        self.announce(|| Mail::Route { source: remote });
    }

    pub(super) fn forget_address(&mut self, key: SessionKey, remote: SocketAddr) {
        if self.addresses.get(&remote).is_some_and(|holder| holder.session == key) {
            self.addresses.remove(&remote);
            self.announce(|| Mail::Unroute { source: remote });
        }
    }

    /// Another shard has learned the address. One that is alive here stays here, and all are
    /// told so again; only if both learned it just now, both give way, and the next check
    /// decides.
    pub(super) fn route(&mut self, source: SocketAddr, owner: ShardId, now: Instant) {
        if let Some(holder) = self.addresses.get(&source) {
            let is_new = now.saturating_duration_since(holder.learned_at) < CROSSING;
            if !is_new && !holder.is_silent(now) {
                self.announce(|| Mail::Route { source });
                return;
            }
            self.addresses.remove(&source);
        }
        if self.routes.len() < ROUTES_PER_SHARD || self.routes.contains_key(&source) {
            self.routes.insert(source, owner);
        }
    }

    /// Another shard's session wants an address: it gets one that nobody is heard from here.
    pub(super) fn claimed(&mut self, source: SocketAddr, claimant: ShardId, now: Instant) {
        match self.addresses.get(&source) {
            Some(holder) if holder.is_silent(now) => self.forget_address(holder.session, source),
            Some(_) => {}
            None => self.post(claimant, Mail::Unroute { source }),
        }
    }

    fn announce(&mut self, mail: impl Fn() -> Mail) {
        for shard in self.config.others() {
            self.mail.push((shard, mail()));
        }
    }
}

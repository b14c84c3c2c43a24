//! Datagrams: found their session by address or ufrag, then STUN and DTLS to its transport,
//! media to its tracks, reports to `feedback`. What belongs to another shard goes there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sessions::Holder;
use super::{Engine, SessionKey};
use crate::ids::ShardId;
use crate::limits::{BATCH_PACKETS, CARRIED_LEN, CONTROL_QUEUED, DATAGRAM_LEN};
use crate::mail::Mail;
use crate::media::format::{Extension, ExtensionIds};
use crate::media::rtp::{Kind, RtpHeader, kind};
use crate::outbox::Destination;
use crate::session::ingress::{Fault, Received};
use crate::session::recheck::Request;
use crate::session::stun::{Check, NoCheck};
use crate::session::transport::Transport;
use crate::session::ufrag;
use crate::switch::feed::Stage;

/// How exactly it is known when an address was last heard from.
const HEARD_RESOLUTION: Duration = Duration::from_secs(1);

impl Engine {
    /// Takes a datagram from the network. `local` is the address of ours that it was sent to.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        bytes: &mut [u8],
        now: Instant,
    ) {
        let culprit = |this: &Self| this.addresses.get(&source).map(|holder| holder.session);
        self.guarded(now, culprit, |this| {
            this.take_datagram(source, local, bytes, false, now);
            this.resume_woken(now);
        });
    }

    /// `forwarded`: another shard sent it here, so it must not travel on.
    pub(super) fn take_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        bytes: &mut [u8],
        forwarded: bool,
        now: Instant,
    ) {
        if bytes.len() > DATAGRAM_LEN {
            self.meters.faults.too_long += 1;
            return;
        }
        let kind = kind(bytes);
        let key = match kind {
            Kind::Unknown => {
                self.meters.faults.unknown_protocol += 1;
                return;
            }
            Kind::Stun => return self.take_stun(source, local, bytes, forwarded, now),
            Kind::Dtls | Kind::Rtp | Kind::Rtcp => self.addresses.get(&source).copied(),
        };
        let Some(Holder { session: key, heard_at, .. }) = key else {
            return match self.routes.get(&source) {
                Some(&owner) if !forwarded => self.send_stray(owner, source, local, bytes),
                _ => self.meters.faults.unknown_source += 1,
            };
        };
        match kind {
            Kind::Dtls => {
                let Some(session) = self.sessions.get_mut(key) else { return };
                let Some(transport) = &mut session.transport else { return };
                let happened = transport.dtls(bytes, source, now);
                self.transport_happened(key, happened, now);
            }
            Kind::Rtp => self.take_rtp(key, bytes, now),
            Kind::Rtcp => self.take_rtcp(key, bytes, now),
            Kind::Stun | Kind::Unknown => {}
        }
        // Once a second is enough, and spares every other packet a second look at the table.
        if now.saturating_duration_since(heard_at) >= HEARD_RESOLUTION
            && self.sessions.get(key).is_some_and(|session| session.heard_at == Some(now))
        {
            self.heard_from(source, key, now);
        }
    }

    fn take_stun(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        bytes: &[u8],
        forwarded: bool,
        now: Instant,
    ) {
        if self.recheck(source, local, bytes, now).is_some() {
            return;
        }
        let check = match Check::parse(bytes) {
            Ok(check) => check,
            Err(NoCheck::Malformed) => {
                self.meters.faults.malformed += 1;
                return;
            }
            Err(NoCheck::Unaddressed) => {
                self.meters.faults.unknown_ufrag += 1;
                return;
            }
        };
        let Some((shard, slot)) = ufrag::address(check.ufrag()) else {
            self.meters.faults.unknown_ufrag += 1;
            return;
        };
        if shard != self.config.shard {
            if forwarded || shard.index() >= self.config.shards {
                self.meters.faults.unknown_ufrag += 1;
            } else {
                self.send_stray(shard, source, local, bytes);
            }
            return;
        }
        let addressed = self.sessions.at(slot).filter(|(_, session)| {
            session.transport.as_ref().is_some_and(|transport| transport.answers_to(check.ufrag()))
        });
        let Some(key) = addressed.map(|(key, _)| key) else {
            self.meters.faults.unknown_ufrag += 1;
            return;
        };
        if !self.may_have(key, source, now) {
            self.meters.faults.taken_address += 1;
            return;
        }
        let transport = self.sessions.get_mut(key).and_then(|session| session.transport.as_mut());
        let Some(transport) = transport else { return };
        if !transport.admits(source, now) {
            self.meters.faults.too_many_sources += 1;
            return;
        }
        let happened = transport.stun(&check, source, local, now);
        if let Some(checked) = happened.checked {
            if let Some(forgotten) = checked.forgotten {
                self.forget_address(key, forgotten);
            }
            // Another session may have had it before, by its NAT's whim, and is silent now.
            if !self.heard_from(source, key, now) {
                self.learn_address(key, source, now);
            }
        }
        self.transport_happened(key, happened, now);
    }

    /// Answers a check that tells nothing new of the path that a connected session uses.
    fn recheck(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) -> Option<()> {
        let request = Request::parse(bytes)?;
        let holder = self.addresses.get_mut(&source)?;
        let session = self.sessions.get_mut(holder.session).filter(|s| s.connected)?;
        let reply = session.transport.as_mut()?.recheck(&request, source, local, now)?;
        session.heard_at = Some(now);
        holder.heard_at = now;
        if self.rechecks.len() < CONTROL_QUEUED {
            self.rechecks.push_back((Destination { remote: source, local }, reply));
        } else {
            self.meters.control_dropped += 1;
        }
        Some(())
    }

    fn send_stray(&mut self, owner: ShardId, source: SocketAddr, local: SocketAddr, bytes: &[u8]) {
        self.meters.strays_sent += 1;
        self.post(owner, Mail::Stray { source, local, bytes: bytes.into() });
    }

    fn take_rtp(&mut self, key: SessionKey, bytes: &[u8], now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let received =
            session.ingress.receive(bytes, &mut self.scratch, &mut self.next_source, now);
        match received {
            Ok(received) => {
                session.heard_at = Some(now);
                if let Some(received) = received {
                    self.append(&received, bytes, now);
                }
                if let Some(at) = self.next_deadline_of_reports(key) {
                    self.schedule(key, at);
                }
            }
            Err(fault) => self.count(fault),
        }
    }

    /// Appends a packet to its track's batch of this turn.
    fn append(&mut self, received: &Received, bytes: &[u8], now: Instant) {
        self.meters.packets_in += 1;
        let Some(feed_key) = received.feed else { return };
        let Some(feed) = self.feeds.get_mut(feed_key) else { return };
        feed.codec = Some(received.head.codec);
        if let Some(layer) = feed.layers.get_mut(usize::from(received.head.layer)) {
            layer.seen(now, received.payload.len(), received.head.keyframe);
            if received.head.keyframe {
                layer.picture = Some((received.head.source, received.head.timestamp));
            }
        }
        if let Some(full) = feed.open.take_if(|open| open.packets().len() >= BATCH_PACKETS) {
            self.share(feed_key, full, now);
        }
        let Some(feed) = self.feeds.get_mut(feed_key) else { return };
        if feed.open.is_none() {
            self.touched.push((feed_key, None));
        }
        let usual = feed.batch_bytes.usual();
        let batch = feed.open.get_or_insert_with(|| self.pool.take(usual));
        let payload = &self.scratch[received.payload.clone()];
        let Ok(header) = RtpHeader::parse(bytes) else { return };
        if let Some(batch) = Arc::get_mut(batch) {
            batch.push(received.head, payload, carried(&header, received.extensions));
        }
        if feed.stage == Stage::Known {
            feed.stage = Stage::Flowing;
            self.stage_changed(feed_key);
            self.tell_exports(feed_key, now);
        }
    }

    fn count(&mut self, fault: Fault) {
        let faults = &mut self.meters.faults;
        match fault {
            Fault::Early => faults.early += 1,
            Fault::Malformed => faults.malformed += 1,
            Fault::Replayed => faults.replayed += 1,
            Fault::Unauthentic => faults.unauthentic += 1,
            Fault::Unwanted => faults.unwanted += 1,
            Fault::TooManyStreams => faults.too_many_streams += 1,
        }
    }

    pub(super) fn next_deadline_of_reports(&self, key: SessionKey) -> Option<Instant> {
        let session = self.sessions.get(key)?;
        let transport = session.transport.as_deref().and_then(Transport::timeout);
        [self.next_report(session), transport].into_iter().flatten().min()
    }
}

/// The header extensions that copies of a packet carry: each once, and together not more than
/// every subscriber's header has room for.
fn carried<'a>(
    header: &RtpHeader<'a>,
    ids: ExtensionIds,
) -> impl Iterator<Item = (Extension, &'a [u8])> {
    let (mut seen, mut room) = ([false; Extension::COUNT], CARRIED_LEN);
    header.elements().filter_map(move |(id, data)| {
        let meaning = ids.meaning(id).filter(|meaning| meaning.is_carried())?;
        if std::mem::replace(&mut seen[meaning as usize], true) {
            return None;
        }
        room = room.checked_sub(data.len())?;
        Some((meaning, data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rtp::{FixedHeader, HeaderWriter};

    #[test]
    fn a_header_full_of_extensions_is_not_carried_on() {
        let mut ids = ExtensionIds::default();
        let mut elements: Vec<(u8, &[u8])> = Vec::new();
        let long = [7; 200];
        for (at, extension) in Extension::ALL.into_iter().enumerate() {
            let id = at as u8 + 1;
            ids.set(extension, id);
            if extension.is_carried() {
                elements.extend([(id, &long[..]), (id, &long[..])]);
            }
        }
        let fixed = FixedHeader {
            marker: false,
            payload_type: 96,
            seq: 1,
            timestamp: 1,
            ssrc: 1,
            has_padding: false,
        };
        let mut packet = vec![0; 4096];
        let len = HeaderWriter::new(&mut packet).write(&fixed, &elements);
        let header = RtpHeader::parse(&packet[..len]).unwrap();
        let kept: Vec<_> = carried(&header, ids).collect();
        assert_eq!(kept, [(Extension::AudioLevel, &long[..])], "one of each, while there is room");
    }
}

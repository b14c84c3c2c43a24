//! One PeerConnection: a client as a browser is one, without a socket or a clock.
//!
//! str0m does ICE, DTLS and descriptions. Media passes it by, both ways, on the keys of the
//! handshake: what a viewer receives costs a header's reading, and a sampled share is opened
//! and checked; what a publisher sends is sealed straight into the datagram.
//!
//! Invariants: str0m is never polled while it knows a sending stream, or its reports would use
//! our SRTCP indexes; after every mutation its output is drained.

mod dtls;
mod feedback;
mod lines;
#[cfg(feature = "openssl")]
mod openssl;
mod publish;
mod watch;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shards::media::rtp::{Kind as Protocol, kind as protocol};
use shards::media::srtp::{KeyingMaterial, Opener, Profile, RtcpFault, Sealer};
use shards::session::keys::{self, KeySlot};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::crypto::CryptoProvider;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol as Transport, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

pub use self::dtls::Dtls;
use self::feedback::Feedback;
pub use self::publish::VideoShape;
use self::publish::{Sending, Way};
use self::watch::Watching;
use crate::api::{Cause, Failure, Kind, LineWish, Offer};
use crate::probe::Published;
use crate::report::tally::Tally;

/// What all peers of a run have in common.
#[derive(Debug, Clone)]
pub struct Common {
    pub cert: DtlsCert,
    /// str0m's cryptography, with the DTLS that was chosen.
    pub crypto: Arc<CryptoProvider>,
    /// One in so many received packets is opened and checked bit by bit; a power of two.
    pub check_each: u32,
    pub video: VideoShape,
    /// Bits per second of encoded sound.
    pub audio_bitrate: u64,
}

/// The time, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    /// Nanoseconds since the epoch, the clock of arrivals and stamps.
    pub unix: u64,
}

/// Where a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No description was exchanged, or ICE and DTLS go on.
    Connecting,
    Connected,
    /// The server said goodbye, or the transport failed.
    Closed,
}

/// One PeerConnection.
pub struct Peer {
    rtc: Rtc,
    slot: KeySlot,
    /// The address it believes to have: a NAT may change what others see.
    address: SocketAddr,
    pending: Option<SdpPendingOffer>,
    stage: Stage,
    ice_connected: bool,
    /// ICE had connected, and has no answers any more.
    ice_lost: bool,
    /// Its end is meant, or counted.
    end_expected: bool,
    timeout: Option<Instant>,
    sealer: Option<Sealer>,
    opener: Option<Opener>,
    profile: Option<Profile>,
    remote: Option<SocketAddr>,
    /// Lines that send, negotiated or not.
    sent_mids: Vec<Mid>,
    sendings: Vec<Sending>,
    transport_seq: u16,
    watching: Watching,
    feedback: Feedback,
    outgoing: Vec<(SocketAddr, Vec<u8>)>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Peer {
    /// `address` is what it offers as its candidate; `seed` makes its SSRC of reports.
    pub fn new(
        common: &Common,
        address: SocketAddr,
        seed: u64,
        now: Instant,
    ) -> Result<Self, Failure> {
        let mut config = Rtc::builder()
            .set_crypto_provider(Arc::clone(&common.crypto))
            .set_dtls_cert(common.cert.clone())
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true);
        config.set_initial_stun_rto(CHECK);
        config.set_max_stun_rto(KEEP_ALIVE);
        let (mut rtc, slot) = keys::with_key_slot(|| config.build(now));
        let candidate = Candidate::host(address, "udp").map_err(|error| local(&error))?;
        rtc.add_local_candidate(candidate);
        Ok(Self {
            rtc,
            slot,
            address,
            pending: None,
            stage: Stage::Connecting,
            ice_connected: false,
            ice_lost: false,
            end_expected: false,
            timeout: None,
            sealer: None,
            opener: None,
            profile: None,
            remote: None,
            sent_mids: Vec::new(),
            sendings: Vec::new(),
            transport_seq: 0,
            watching: Watching::new(common.check_each),
            feedback: Feedback::new(seed as u32, now),
            outgoing: Vec::new(),
        })
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Why it is not connected, as far as can be told.
    pub fn obstacle(&self) -> Failure {
        let (cause, what) = if self.ice_connected {
            let what = "ICE connected, but the DTLS handshake did not complete (a server with an \
                        RSA certificate wants --dtls openssl)";
            (Cause::Handshake, what)
        } else {
            (Cause::NoPath, "no answer to ICE checks: is the server's UDP port reachable?")
        };
        Failure { cause, what: what.to_owned() }
    }

    pub fn profile(&self) -> Option<Profile> {
        self.profile
    }

    /// Offers new m-lines.
    pub fn offer(&mut self, wishes: &[LineWish], now: Instant) -> Result<Offer, Failure> {
        self.lend_streams();
        let mut change = self.rtc.sdp_api();
        let add = |wish: &LineWish| {
            let direction = if wish.sends { Direction::SendOnly } else { Direction::RecvOnly };
            change.add_media(media_kind(wish.kind), direction, None, None, None)
        };
        let mids: Vec<Mid> = wishes.iter().map(add).collect();
        let sent = mids.iter().zip(wishes).filter(|(_, wish)| wish.sends).map(|(mid, _)| *mid);
        self.sent_mids.extend(sent);
        let applied = change.apply();
        self.end_offer(applied, &mids, now)
    }

    /// Offers an ICE restart.
    pub fn offer_restart(&mut self, now: Instant) -> Result<Offer, Failure> {
        self.lend_streams();
        let mut change = self.rtc.sdp_api();
        change.ice_restart(true);
        let applied = change.apply();
        self.end_offer(applied, &[], now)
    }

    fn end_offer(
        &mut self,
        applied: Option<(SdpOffer, SdpPendingOffer)>,
        mids: &[Mid],
        now: Instant,
    ) -> Result<Offer, Failure> {
        self.take_streams();
        let (offer, pending) = applied.ok_or_else(|| negotiation("nothing to offer"))?;
        self.pending = Some(pending);
        self.drive(now);
        Ok(Offer {
            sdp: offer.to_sdp_string(),
            mids: mids.iter().map(ToString::to_string).collect(),
        })
    }

    /// Takes the answer to the last offer.
    pub fn accept(&mut self, sdp: &str, common: &Common, moment: Moment) -> Result<(), Failure> {
        let pending =
            self.pending.take().ok_or_else(|| negotiation("an answer without an offer"))?;
        let answer = SdpAnswer::from_sdp_string(sdp)
            .map_err(|_| negotiation("the server's answer is not readable SDP"))?;
        self.lend_streams();
        let accepted = self.rtc.sdp_api().accept_answer(pending, answer);
        self.settle(sdp, common, moment);
        accepted.map_err(|_| negotiation("the server's answer does not fit the offer"))
    }

    /// Answers the server's offer.
    pub fn answer(
        &mut self,
        sdp: &str,
        common: &Common,
        moment: Moment,
    ) -> Result<String, Failure> {
        let offer = SdpOffer::from_sdp_string(sdp)
            .map_err(|_| negotiation("the server's offer is not readable SDP"))?;
        self.lend_streams();
        let answered = self.rtc.sdp_api().accept_offer(offer);
        self.settle(sdp, common, moment);
        let answer = answered.map_err(|_| negotiation("the server's offer cannot be answered"))?;
        Ok(answer.to_sdp_string())
    }

    /// After any description: what is sent and received by now.
    fn settle(&mut self, remote: &str, common: &Common, moment: Moment) {
        self.take_streams();
        self.watching.read(remote);
        for sending in &mut self.sendings {
            sending.configure(&self.rtc, common, moment);
        }
        self.drive(moment.now);
    }

    /// Gives str0m its sending streams: descriptions name their SSRCs.
    fn lend_streams(&mut self) {
        for sending in &self.sendings {
            sending.lend(&mut self.rtc);
        }
    }

    /// Takes them away again, with those that were made meanwhile.
    fn take_streams(&mut self) {
        Sending::take(&mut self.rtc, &self.sent_mids, &mut self.sendings);
    }

    /// This line carries that track: `track` goes into the stamps of what is sent, and is
    /// expected in the stamps of what arrives.
    pub fn expect(&mut self, mid: &str, track: u32) {
        match self.sendings.iter_mut().find(|sending| sending.mid() == mid) {
            Some(sending) => sending.set_track(track),
            None => self.watching.expect(mid, track),
        }
    }

    /// From now on publishes on all its sending lines, or stops.
    pub fn publish(&mut self, on: bool, moment: Moment) {
        for sending in &mut self.sendings {
            sending.publish(on, moment);
        }
    }

    /// A datagram came. `moment.unix` is when it reached the socket.
    #[inline]
    pub fn receive(
        &mut self,
        source: SocketAddr,
        bytes: &[u8],
        moment: Moment,
        common: &Common,
        tally: &mut Tally,
    ) {
        match protocol(bytes) {
            Protocol::Rtp => {
                if let Some(opener) = &self.opener {
                    self.watching.receive(opener, bytes, moment, &mut self.feedback, tally);
                }
            }
            Protocol::Rtcp => self.receive_rtcp(bytes, moment, tally),
            Protocol::Unknown => {}
            Protocol::Stun | Protocol::Dtls => {
                let Ok(contents) = bytes.try_into() else { return };
                let destination = self.address;
                let receive = Receive { proto: Transport::Udp, source, destination, contents };
                // What str0m cannot use is somebody else's datagram.
                let _ = self.rtc.handle_input(Input::Receive(moment.now, receive));
                self.drive(moment.now);
                self.notice_connection(common, moment, tally);
            }
        }
    }

    fn receive_rtcp(&mut self, bytes: &[u8], moment: Moment, tally: &mut Tally) {
        let Some(opener) = &mut self.opener else { return };
        let mut plain = [0; 2048];
        let len = match opener.open_rtcp(bytes, &mut plain) {
            Ok(len) => len,
            // Its content was checked when it came first.
            Err(RtcpFault::Replayed) => {
                tally.rtcp_replayed += 1;
                return;
            }
            Err(_) => {
                tally.corrupted += 1;
                return;
            }
        };
        self.feedback.read(&plain[..len], moment, &mut self.sendings, &mut self.watching, tally);
    }

    fn notice_connection(&mut self, common: &Common, moment: Moment, tally: &mut Tally) {
        if let Some(profile) = self.profile.filter(|_| self.stage == Stage::Connecting) {
            self.stage = Stage::Connected;
            tally.connected += 1;
            *tally.profiles.entry(profile_name(profile).to_owned()).or_default() += 1;
            for sending in &mut self.sendings {
                sending.configure(&self.rtc, common, moment);
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let media = self.sendings.iter().filter_map(Sending::timeout).min();
        let feedback = self.sealer.as_ref().and_then(|_| self.feedback.timeout(&self.watching));
        self.timeout.into_iter().chain(media).chain(feedback).min()
    }

    /// Sends what is due: checks, frames, reports. `datagrams` gets media one at a time, as a
    /// browser sends it.
    pub fn handle_timeout(
        &mut self,
        moment: Moment,
        tally: &mut Tally,
        send: &mut dyn FnMut(SocketAddr, &[u8]),
    ) {
        if self.timeout.is_some_and(|at| at <= moment.now) {
            self.drive(moment.now);
        }
        let (Some(sealer), Some(remote)) = (&mut self.sealer, self.remote) else { return };
        let transport_seq = &mut self.transport_seq;
        let mut send = |bytes: &[u8]| send(remote, bytes);
        let mut way = Way { sealer, transport_seq, send: &mut send };
        for sending in &mut self.sendings {
            sending.poll(&mut way, moment, tally);
        }
        let (sendings, watching) = (&mut self.sendings, &mut self.watching);
        self.feedback.poll(&mut way, moment, sendings, watching, tally);
    }

    /// What ICE, DTLS and SCTP want to send.
    pub fn poll_outgoing(&mut self) -> std::vec::Drain<'_, (SocketAddr, Vec<u8>)> {
        self.outgoing.drain(..)
    }

    /// Says goodbye as a browser does: BYE for each stream it sends, then DTLS close_notify.
    pub fn close(&mut self, now: Instant) {
        if let (Some(sealer), Some(remote)) = (&mut self.sealer, self.remote) {
            let outgoing = &mut self.outgoing;
            let mut send = |bytes: &[u8]| outgoing.push((remote, bytes.to_vec()));
            let transport_seq = &mut self.transport_seq;
            let mut way = Way { sealer, transport_seq, send: &mut send };
            for (ssrc, _) in self.sendings.iter().filter_map(|s| Some((s.ssrc(), s.published()?))) {
                feedback::goodbye(&mut way, ssrc);
            }
        }
        // A transport that never stood has nobody to take leave of.
        let _ = self.rtc.close();
        self.drive(now);
        self.stage = Stage::Closed;
    }

    /// Its address has changed, whether it knows or not.
    pub fn moved(&mut self) {
        self.watching.moved();
    }

    /// Counts what is missing for good, and forgets what was received.
    pub fn finish(&mut self, tally: &mut Tally) {
        self.watching.finish(tally);
    }

    /// Counts what turned out lost since the last call, and an end that nobody asked for.
    pub fn settle_losses(&mut self, tally: &mut Tally) {
        self.watching.settle_losses(tally);
        if self.stage == Stage::Closed && self.profile.is_some() {
            self.end("the server closed the transport of a session in use", tally);
        }
    }

    /// From now on the server may end it.
    pub fn leave(&mut self) {
        self.end_expected = true;
    }

    fn end(&mut self, what: &str, tally: &mut Tally) {
        if !self.end_expected {
            self.end_expected = true;
            tally.fail(Failure::new(Cause::Closed, what));
        }
    }

    /// Adds what it has published so far, unless it leaves, or the server ended it.
    pub fn published(&self, published: &mut Published) {
        if self.stays() {
            published.extend(self.sendings.iter().filter_map(Sending::published));
        }
    }

    /// The measurement begins: what was sent until now is not part of it.
    pub fn begin(&mut self, published: &Published) {
        self.watching.begin(published);
    }

    /// The measurement ends: what was sent until now and does not come is lost when the books
    /// are closed.
    pub fn draw_line(&mut self, published: &Published) {
        self.watching.draw_line(published);
    }

    /// How many packets from before the line it waits for, though none came after them.
    pub fn lacking(&self) -> u64 {
        if self.stays() { self.watching.lacking() } else { 0 }
    }

    /// Counts what is still missing from before the line.
    pub fn close_books(&mut self, tally: &mut Tally) {
        // Who leaves is owed no more than the holes in what came.
        self.watching.close_books(self.stays(), tally);
    }

    fn stays(&self) -> bool {
        self.stage == Stage::Connected && !self.end_expected
    }

    /// At the end of a measurement: counts what no longer comes.
    pub fn count_stopped(&mut self, moment: Moment, tally: &mut Tally) {
        if self.end_expected {
            return;
        }
        if self.ice_lost {
            self.end("the server stopped answering the ICE checks of a session in use", tally);
        }
        for _ in 0..self.watching.stopped(moment.unix) {
            tally.fail(Failure::new(Cause::NoMedia, "a pulled track stopped during the run"));
        }
    }

    /// Time of arrival of the first media of all its lines that expect a track; for video, of
    /// the first keyframe. Nanoseconds since the epoch.
    pub fn take_first_media(&mut self) -> Option<u64> {
        self.watching.take_first_media()
    }

    /// The last arrival of media, nanoseconds since the epoch.
    pub fn last_media(&self) -> u64 {
        self.watching.last_media()
    }

    fn drive(&mut self, now: Instant) {
        self.drain();
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain();
        // str0m may ask for the past while it has more to do.
        self.timeout = self.timeout.map(|at| at.max(now + TICK));
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.timeout = Some(at);
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    self.remote = Some(transmit.destination);
                    self.outgoing.push((transmit.destination, transmit.contents.into()));
                }
                Ok(Output::Event(event)) => self.notice(&event),
                Err(_) => {
                    self.stage = Stage::Closed;
                    self.timeout = None;
                    return;
                }
            }
        }
    }

    fn notice(&mut self, event: &Event) {
        match event {
            Event::IceConnectionStateChange(state) => {
                self.ice_connected |= state.is_connected();
                self.ice_lost = self.ice_connected && state.is_disconnected();
            }
            Event::Connected => {
                let Some(keys) = self.slot.take() else { return };
                let Ok(profile) = Profile::try_from(keys.profile) else { return };
                let Some(material) = KeyingMaterial::new(profile, &keys.material) else { return };
                let (ours, theirs) = material.split(keys.active);
                self.sealer = Some(Sealer::new(&ours));
                self.opener = Some(Opener::new(&theirs));
                self.profile = Some(profile);
            }
            Event::Closed => self.stage = Stage::Closed,
            _ => {}
        }
    }
}

/// Until a pair answers it is checked after this long, then after twice as long, as libwebrtc
/// does about: the first checks of an answerer come before its answer does.
const CHECK: Duration = Duration::from_millis(50);

/// A pair that stands is checked this often (libwebrtc, on a path that is stable).
const KEEP_ALIVE: Duration = Duration::from_millis(2500);

/// str0m's timers are not called again sooner than this.
const TICK: Duration = Duration::from_micros(200);

/// As RFC 7714 and RFC 5764 write it.
pub fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::AeadAes256Gcm => "AEAD_AES_256_GCM",
        Profile::AeadAes128Gcm => "AEAD_AES_128_GCM",
        Profile::Aes128CmSha1_80 => "AES128_CM_SHA1_80",
    }
}

fn media_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

fn negotiation(what: &str) -> Failure {
    Failure { cause: Cause::Negotiation, what: what.to_owned() }
}

fn local(error: &dyn fmt::Display) -> Failure {
    Failure { cause: Cause::Local, what: format!("a peer cannot be made: {error}") }
}

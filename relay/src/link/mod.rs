//! The media path, both directions, between one shard of this node and one shard of another.
//!
//! ```text
//!  handle_datagram ──> events            push, resend, clock, keyframe ──┐
//!        │                                                               v
//!        └──> what was lost ──> poll_resend (the caller fetches it)    flush ──> sink
//! ```
//!
//! A turn is: [`handle_datagram`](Link::handle_datagram) for each that came,
//! [`handle_timeout`](Link::handle_timeout), [`poll_resend`](Link::poll_resend) until there is
//! nothing, giving what the tracks' histories still have to [`resend`](Link::resend);
//! [`push`](Link::push) for each packet; [`flush`](Link::flush) at the end, also if nothing was
//! pushed. [`timeout`](Link::timeout) says when the next turn is due.
//!
//! Packets are forwarded at once, whatever is missing before them; what was lost is sent again
//! beside them, by hop. Sequence numbers and sources are the origin's.
//!
//! Invariants: a packet is delivered once, unless its source was forgotten in between: a ninth
//! source of a lane takes the place of the one unused for longest. Nothing changes, and nothing
//! is answered, before a datagram is authentic. All tables are bounded, also against the other
//! side. No allocation per packet once the tables have grown to what the traffic needs.
//!
//! Not here: sockets and addresses; which track a lane is; the histories of tracks; when a
//! silent link is given up.

mod congestion;
mod fault;
mod fragments;
mod gaps;
mod lanes;
mod receive;
mod repair;
mod send;
mod sent;
mod stats;
#[cfg(test)]
pub(crate) mod testing;
mod time;

use std::fmt;
use std::time::{Duration, Instant};

pub use congestion::{Class, Standing, State};
pub use fault::{Fault, Faults};
pub use lanes::LANES_MAX;
pub use repair::Lost;
pub use stats::Stats;

use congestion::Congestion;
use fragments::Fragments;
use gaps::Gaps;
use lanes::Lanes;
use repair::{Repair, tail_timeout};
use send::Build;
use sent::Sent;
use time::{Offset, Rtt, Timeline};

use crate::replay::Window;
use crate::seal::{End, LinkSecret, Opener, Sealer};
use crate::wire::{Clock, LaneId, Media};

/// Where finished datagrams go: the tail of an arena that the kernel cuts itself.
pub trait Sink {
    /// Room for the next datagram. Too short, or empty, if there is none.
    fn slot(&mut self) -> &mut [u8];

    /// The first `len` bytes of the slot are a datagram.
    fn commit(&mut self, len: usize);
}

/// What came over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A packet of a lane of ours, for the first time. `repair`: it was lost once, and may
    /// come long after its neighbours.
    Media { media: Media<'a>, repair: bool },
    /// The publisher's clock of one layer of a lane of ours.
    Clock(Clock<Instant>),
    /// The other side needs a keyframe of one layer of a lane of its own. It may name lanes
    /// that we never sent on.
    KeyframeRequest { lane: LaneId, layer: u8 },
}

/// A link. See the module.
pub struct Link {
    time: Timeline,
    /// The latest time that we were told.
    last_at: u64,
    here: End,
    there: End,
    sealer: Sealer,
    opener: Opener,
    replay: Window<REPLAY_WORDS>,
    gaps: Gaps,
    lanes: Lanes,
    fragments: Fragments,
    build: Build,
    sent: Sent,
    repair: Repair,
    congestion: Congestion,
    rtt: Rtt,
    offset: Offset,
    /// Clocks that came before the offset was known.
    unplaced: Vec<Clock<u64>>,
    /// The number of the datagram with the newest report.
    report: u64,
    /// How often the tail was sent again since the other side last told of anything new.
    tail_tries: u32,
    blackout_at: u64,
    active: bool,
    heard_at: u64,
    spoke_at: u64,
    pinged_at: Option<u64>,
    /// A ping to be answered: when it was sent, and when it came.
    ping: Option<(u64, u64)>,
    stats: Stats,
}

impl Link {
    /// The link of this secret, for datagrams of up to
    /// [`DATAGRAM_USUAL`](crate::wire::DATAGRAM_USUAL) bytes.
    pub fn new(secret: LinkSecret, now: Instant) -> Self {
        let LinkSecret { pair, here, there } = secret;
        let time = Timeline::new(now);
        let at = time.at(now);
        Self {
            time,
            last_at: at,
            here,
            there,
            sealer: Sealer::new(&pair, &here, &there, now),
            opener: Opener::new(&pair, &there, &here),
            replay: Window::new(),
            gaps: Gaps::new(at),
            lanes: Lanes::default(),
            fragments: Fragments::default(),
            build: Build::new(),
            sent: Sent::default(),
            repair: Repair::new(),
            congestion: Congestion::new(at),
            rtt: Rtt::default(),
            offset: Offset::new(),
            unplaced: Vec::new(),
            report: 0,
            tail_tries: 0,
            blackout_at: at,
            active: false,
            heard_at: at,
            spoke_at: at,
            pinged_at: None,
            ping: None,
            stats: Stats::default(),
        }
    }

    /// A lane to receive a track on, to be named to the other side. `None` if there are
    /// [`LANES_MAX`].
    pub fn open_lane(&mut self) -> Option<LaneId> {
        self.lanes.open()
    }

    /// Delivers nothing more of a lane. False if it is not open.
    pub fn close_lane(&mut self, lane: LaneId) -> bool {
        self.lanes.close(lane)
    }

    /// Whether tracks travel, in either direction: then silence is noticed, and the clock
    /// measured, within fractions of a second.
    pub fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    /// Datagrams will have at most so many bytes of UDP payload, within
    /// [`DATAGRAM_MIN`](crate::wire::DATAGRAM_MIN) and [`DATAGRAM_MAX`](crate::wire::DATAGRAM_MAX).
    /// To be called between turns, not between [`push`](Self::push) and [`flush`](Self::flush):
    /// what was already pushed may be longer.
    pub fn set_mtu(&mut self, bytes: usize) {
        self.build.set_mtu(bytes);
    }

    /// Whether a packet of this class and layer may be sent now. Ask once per run of packets;
    /// layers that are refused are as if their track had fewer.
    #[inline]
    pub fn admits(&self, class: Class, standing: Standing) -> bool {
        self.congestion.admits(class, standing)
    }

    /// How full the path is.
    pub fn state(&self) -> State {
        self.congestion.state()
    }

    /// How long nothing authentic came from the other side, or since the link was made. A link
    /// that is silent for long is to be given up, though datagrams come: if all of one key phase
    /// were lost, those of the next are never opened (see [`seal`](crate::seal)).
    pub fn silence(&self, now: Instant) -> Duration {
        Duration::from_micros(self.time.at(now).saturating_sub(self.heard_at))
    }

    /// Asks the other side with the next [`flush`](Self::flush) whether it is there, whatever was
    /// asked before.
    pub fn probe(&mut self) {
        self.pinged_at = None;
    }

    /// The smoothed round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.smooth().map(Duration::from_micros)
    }

    /// Changes keys before it is time, if the last change is ten seconds ago.
    pub fn rekey(&mut self, now: Instant) -> bool {
        self.sealer.rekey(now)
    }

    /// What was counted, and how things stand.
    pub fn stats(&self) -> Stats {
        Stats {
            lost_in: self.gaps.lost(),
            given_up: self.repair.given_up(),
            lanes: self.lanes.len() as u64,
            state: self.congestion.state() as u64,
            rtt_us: self.rtt.smooth().unwrap_or(0),
            queue_us: self.congestion.queue(),
            reorder_us: self.gaps.window(),
            offset_us: self.offset.get(self.heard_at).unwrap_or(0),
            ..self.stats
        }
    }

    /// A packet that was lost and is worth sending again. Fetch it and give it to
    /// [`resend`](Self::resend); if it is forgotten, there is nothing to do.
    pub fn poll_resend(&mut self, now: Instant) -> Option<Lost> {
        let at = self.at(now);
        self.repair.poll(at)
    }

    /// When the next turn is due, though nothing should come or go until then.
    pub fn timeout(&self) -> Option<Instant> {
        if self.ping.is_some() || self.repair.is_waiting() || !self.build.is_empty() {
            return self.time.instant(self.heard_at.max(self.spoke_at));
        }
        let blackout = self.sent.waiting_since().map(|_| self.blackout_due());
        let due = [self.gaps.deadline(), self.tail_due(), blackout, self.congestion.deadline()];
        let due = due.into_iter().flatten().fold(self.ping_due(), u64::min);
        self.time.instant(due)
    }

    /// Does what is due by now; [`flush`](Self::flush) sends it.
    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.at(now);
        self.opener.turn(now);
        if self.tail_due().is_some_and(|due| due <= at) {
            self.tail_tries += 1;
            let Self { sent, repair, congestion, .. } = self;
            sent.on_tail(|bytes, packets| repair.offer(bytes, packets, congestion, at));
        }
        if self.sent.waiting_since().is_some() && self.blackout_due() <= at {
            self.blackout_at = at;
            self.congestion.on_blackout(at);
        }
        self.congestion.on_timeout(at);
    }

    /// In link time. An instant before one that we were told already is taken for that: what
    /// measures spans here relies on time not going back.
    #[inline]
    fn at(&mut self, now: Instant) -> u64 {
        self.last_at = self.time.at(now).max(self.last_at);
        self.last_at
    }

    /// When the tail is to be sent again. Not for ever: a path that carries nothing back gets
    /// no more than what is sent anyway.
    #[inline]
    fn tail_due(&self) -> Option<u64> {
        let tail_at = self.sent.tail_at().filter(|_| self.tail_tries < TAIL_TRIES_MAX)?;
        let timeout = tail_timeout(self.rtt.smooth(), self.rtt.var());
        Some(tail_at + (timeout << self.tail_tries))
    }

    fn blackout_due(&self) -> u64 {
        let since = self.sent.waiting_since().unwrap_or(0);
        (since + BLACKOUT_AFTER).max(self.blackout_at + BLACKOUT_EACH)
    }

    /// When to ask whether the other side is there, and what time it has.
    fn ping_due(&self) -> u64 {
        let Some(pinged_at) = self.pinged_at else { return self.spoke_at };
        let (quiet, measure) = match (self.active, self.offset.is_known()) {
            (true, _) => (PING_ACTIVE, PING_MEASURE),
            (false, true) => (PING_IDLE, PING_IDLE),
            (false, false) => (PING_MEASURE, PING_MEASURE),
        };
        let idle = self.heard_at.min(self.spoke_at) + quiet;
        idle.min(pinged_at + measure).max(pinged_at + quiet)
    }
}

/// Numbers only.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Link");
        shown.field("id", &self.here.link).field("shard", &self.here.shard);
        shown.field("peer_shard", &self.there.shard).field("state", &self.state());
        shown.finish_non_exhaustive()
    }
}

/// 4,096 datagrams: what 40 ms of reordering are at 100,000 a second. 512 bytes.
const REPLAY_WORDS: usize = 64;
/// How often the tail is sent again while nothing is heard.
const TAIL_TRIES_MAX: u32 = 3;
/// After so long without reports on what was sent, the path is broken, though the way back
/// may not be.
const BLACKOUT_AFTER: u64 = 1_000_000;
const BLACKOUT_EACH: u64 = 100_000;
/// Silence is checked so often while tracks travel: three in a row are 300 ms.
const PING_ACTIVE: u64 = 100_000;
/// A link that carries nothing only keeps what is between alive.
const PING_IDLE: u64 = 5_000_000;
/// Ten samples of the clock are remembered, of ten seconds.
const PING_MEASURE: u64 = 1_000_000;
/// Clocks kept until the offset is known, one round trip after the start.
const UNPLACED_MAX: usize = 64;
/// A clock older than this, or so far ahead, is no clock: nobody follows one for so long.
const CLOCK_AGE_MAX: u64 = 600_000_000;

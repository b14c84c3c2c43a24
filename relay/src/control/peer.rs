//! What we have with one other node, connected or not.
//!
//! Invariants: at most one connection is up and at most one of our calls is on its way.
//!
//! Not here: when something is done about it (`turn`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::queue::Queue;
use crate::keys::Secret;
use crate::members::NodeId;

/// A connection that nobody used for so long is closed, unless it is held.
pub(super) const UNUSED: Duration = Duration::from_secs(60);

/// Messages wait so long for a connection; then their sender is told that they are lost.
pub(super) const GIVE_UP: Duration = Duration::from_secs(10);

/// After a version that is not ours: it takes an update of either node.
pub(super) const VERSION_PAUSE: Duration = Duration::from_secs(60);

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What the node at the other end said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub node: NodeId,
    /// The version that both speak.
    pub version: u16,
    pub caps: u16,
    pub shards: u8,
    /// Where its shards' media links are reached, by shard; none if it has none.
    pub links: Vec<SocketAddr>,
    /// What it wants to find on the media datagrams we send it.
    pub link_id_there: u32,
    /// What we told it to write on those it sends us.
    pub link_id_here: u32,
    pub draining: bool,
    /// Names this connection; the next one has another.
    pub epoch: u64,
}

pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Membership says that it is up.
    pub(super) member: bool,
    pub(super) link_id: u32,
    pub(super) queue: Queue,
    pub(super) up: Option<usize>,
    pub(super) calling: Option<usize>,
    /// Of the connection that is up.
    pub(super) info: Option<PeerInfo>,
    pub(super) secret: Option<Secret>,
    /// Our and their shards whose link was made of the secret.
    pub(super) taken: BTreeSet<(u8, u8)>,
    /// The call by which the connection that is up was made, if they made it.
    pub(super) their_call: Option<u64>,
    /// The connection before, or the one that is up.
    pub(super) last_epoch: u64,
    pub(super) calls: u64,
    failures: u32,
    retry_at: Instant,
    pub(super) hold: bool,
    /// The other end holds the connection that is up.
    pub(super) held_there: bool,
    pub(super) used: Instant,
    /// Since when messages wait for a connection.
    pub(super) waiting_since: Option<Instant>,
    /// As registered among the deadlines.
    pub(super) deadline: Option<Instant>,
}

impl Peer {
    pub(super) fn new(now: Instant, address: SocketAddr, link_id: u32) -> Self {
        Self {
            address,
            member: false,
            link_id,
            queue: Queue::default(),
            up: None,
            calling: None,
            info: None,
            secret: None,
            taken: BTreeSet::new(),
            their_call: None,
            last_epoch: 0,
            calls: 0,
            failures: 0,
            retry_at: now,
            hold: false,
            held_there: false,
            used: now,
            waiting_since: None,
            deadline: None,
        }
    }

    /// Whether a call is to be made as soon as it may.
    pub(super) fn wants_call(&self) -> bool {
        let wanted = self.hold || !self.queue.is_empty();
        self.member && wanted && self.up.is_none() && self.calling.is_none()
    }

    /// Whether either end wants to keep the connection though nobody uses it.
    pub(super) fn is_held(&self) -> bool {
        self.hold || self.held_there
    }

    /// The connection that was up is no more, and all that went with it.
    pub(super) fn go_down(&mut self) {
        (self.up, self.info, self.secret) = (None, None, None);
        self.taken.clear();
        (self.their_call, self.held_there) = (None, false);
        self.queue.clear();
        self.waiting_since = None;
    }

    pub(super) fn may_call(&self, now: Instant) -> bool {
        self.wants_call() && now >= self.retry_at
    }

    /// When something is to be done about it.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.up.is_some() {
            return (!self.is_held()).then(|| self.used + UNUSED);
        }
        let retry = self.wants_call().then_some(self.retry_at);
        let give_up = self.waiting_since.map(|since| since + GIVE_UP);
        retry.into_iter().chain(give_up).min()
    }

    /// A call failed; `jitter` is from 0 to 1.
    pub(super) fn failed(&mut self, now: Instant, jitter: f64) {
        self.retry_at = now + backoff(self.failures, jitter);
        self.failures = self.failures.saturating_add(1);
    }

    /// Not before then is it called again.
    pub(super) fn pause(&mut self, until: Instant) {
        self.retry_at = until;
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Nothing holds it here.
    pub(super) fn is_forgettable(&self) -> bool {
        !self.member && self.up.is_none() && self.calling.is_none()
    }
}

/// 0.2 s, doubled each time up to 5 s, each by up to 20 % shorter or longer, so that nodes that
/// lost each other do not all call at once.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let plain = BACKOFF_MIN * 2u32.pow(failures.min(10));
    plain.min(BACKOFF_MAX).mul_f64(0.8 + 0.4 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_repeated_after_200_ms_up_to_5_s_with_jitter() {
        let ms = |failures, jitter| backoff(failures, jitter).as_millis();
        assert_eq!([ms(0, 0.5), ms(1, 0.5), ms(4, 0.5), ms(5, 0.5)], [200, 400, 3200, 5000]);
        assert_eq!([ms(0, 0.0), ms(0, 1.0), ms(99, 1.0)], [160, 240, 6000]);
    }
}

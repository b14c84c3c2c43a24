//! foca with what it asks of its caller: timers, and lists for what it wants to have done.
//!
//! Invariants: timers come due in the order of their times; nothing foca asks for is lost but by
//! [`TIMERS_MAX`].
//!
//! Not here: what becomes of datagrams and notifications (`Members`).

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::{Duration, Instant};

use foca::{
    BroadcastHandler, Config, Foca, Invalidates, Member, Notification, OwnedNotification,
    PeriodicParams, PostcardCodec, Runtime, Timer,
};
use rand::rngs::StdRng;

use super::body::SWIM_MAX;
use super::identity::Identity;

/// Far above what 1,000 nodes need: a few of the node's own, one per node that is suspected,
/// one per node that is down. Past it, nodes that are down are not forgotten.
const TIMERS_MAX: usize = 10_000;

/// How long a node that went down is remembered. Long enough that what is said of it in a
/// healed partition is not believed again; each pod of a Kubernetes deployment has another
/// address, so longer would remember many.
const REMEMBER_DOWN: Duration = Duration::from_secs(3600);

pub(super) struct Swim {
    foca: Foca<Identity, PostcardCodec, StdRng, NoBroadcast>,
    effects: Effects,
}

/// What foca wants to have done.
struct Effects {
    now: Instant,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    serial: u64,
    sends: Vec<(Identity, Vec<u8>)>,
    notes: Vec<OwnedNotification<Identity>>,
}

impl Swim {
    pub(super) fn new(identity: Identity, now: Instant, rng: StdRng) -> Self {
        let foca = Foca::with_custom_broadcast(identity, config(), rng, PostcardCodec, NoBroadcast);
        let effects = Effects {
            now,
            timers: BTreeMap::new(),
            serial: 0,
            sends: Vec::new(),
            notes: Vec::new(),
        };
        Self { foca, effects }
    }

    pub(super) fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// Nodes that are up, as far as we know, without this one.
    pub(super) fn num_active(&self) -> usize {
        self.foca.num_members()
    }

    /// All that is known, those that are down too.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Member<Identity>> {
        self.foca.iter_membership_state()
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Member<Identity>> {
        self.foca.iter_members()
    }

    /// A message came. foca's errors are all about its bytes, and those were looked at before;
    /// what is left are messages that are no longer of any use.
    pub(super) fn handle(&mut self, now: Instant, bytes: &[u8]) {
        self.effects.now = now;
        let _ = self.foca.handle_data(bytes, &mut self.effects);
    }

    /// Takes over what another node knows.
    pub(super) fn apply(&mut self, now: Instant, members: Vec<Member<Identity>>) {
        self.effects.now = now;
        let _ = self.foca.apply_many(members.into_iter(), true, &mut self.effects);
    }

    pub(super) fn announce(&mut self, now: Instant, to: Identity) {
        self.effects.now = now;
        let _ = self.foca.announce(to, &mut self.effects);
    }

    pub(super) fn change(&mut self, now: Instant, identity: Identity) {
        self.effects.now = now;
        let _ = self.foca.change_identity(identity, &mut self.effects);
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.effects.now = now;
        let _ = self.foca.leave_cluster(&mut self.effects);
        self.effects.timers.clear();
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.effects.timers.first_key_value().map(|(&(at, _), _)| at)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self.effects.timers.first_entry() {
            let at = entry.key().0;
            if at > now {
                break;
            }
            let timer = entry.remove();
            self.effects.now = now;
            // The only errors are of a probe that did not come to its end because we were late.
            let _ = self.foca.handle_timer(timer, &mut self.effects);
        }
    }

    /// What is to be sent, in order.
    pub(super) fn take_sends(&mut self) -> Vec<(Identity, Vec<u8>)> {
        std::mem::take(&mut self.effects.sends)
    }

    /// What happened, in order.
    pub(super) fn take_notes(&mut self) -> Vec<OwnedNotification<Identity>> {
        std::mem::take(&mut self.effects.notes)
    }
}

impl Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.notes.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        if matches!(event, Timer::RemoveDown(_)) && self.timers.len() >= TIMERS_MAX {
            return;
        }
        self.serial += 1;
        self.timers.insert((self.now + after, self.serial), event);
    }
}

/// foca's defaults for a WAN take 78 s to see that one of 250 nodes is dead; these take 4 to 8.
fn config() -> Config {
    Config {
        probe_period: Duration::from_secs(1),
        // The 99th percentile of round trips on Earth; more delays the indirect probe.
        probe_rtt: Duration::from_millis(350),
        num_indirect_probes: NonZeroUsize::new(3).expect("3 is not 0"),
        // 4 log10(n), for 300 nodes.
        max_transmissions: NonZeroU8::new(10).expect("10 is not 0"),
        // Less calls nodes dead that lose three datagrams in a row; more delays the verdict.
        suspect_to_down_after: Duration::from_secs(3),
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: NonZeroUsize::new(SWIM_MAX).expect("1,000 is not 0"),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: Duration::from_secs(30),
            num_members: NonZeroUsize::new(1).expect("1 is not 0"),
        }),
        // `Members` greets them instead: one that was restarted could not open an announce.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: Duration::from_millis(250),
            num_members: NonZeroUsize::new(3).expect("3 is not 0"),
        }),
    }
}

/// Loads travel beside foca, not in it.
#[derive(Debug)]
struct NoBroadcast;

#[derive(Debug)]
struct NoKey;

impl Invalidates for NoKey {
    fn invalidates(&self, _: &Self) -> bool {
        false
    }
}

#[derive(Debug)]
struct NotAnItem;

impl fmt::Display for NotAnItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nodes send no broadcasts inside SWIM messages")
    }
}

impl std::error::Error for NotAnItem {}

impl BroadcastHandler<Identity> for NoBroadcast {
    type Key = NoKey;
    type Error = NotAnItem;

    fn receive_item(&mut self, _: &[u8], _: Option<&Identity>) -> Result<Option<NoKey>, NotAnItem> {
        Err(NotAnItem)
    }
}

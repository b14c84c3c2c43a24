//! The sealed datagrams of membership.
//!
//! ```text
//!  0      1        2     3     4       6            22             30
//!  | 0x0A | format | kid | way | tag16 | boot (128) | counter (64) | ciphertext | tag (16) |
//! ```
//!
//! **Cipher.** AES-256-GCM, since it is what aws-lc has in hardware and the rest of the node
//! already uses; there is no XChaCha20 in aws-lc, whose long nonce would have carried the
//! sender. So the sender is in the key instead: each run of a node draws 128 random bits
//! (`boot`), and seals with HKDF(gossip key of `kid`, boot), with its counter as nonce. Two
//! runs share a key only if they draw the same 128 bits, and a run never uses a counter twice:
//! no (key, nonce) is used twice. The draw is hashed with the node's address and start, so
//! that even a copied random state gives two machines two keys.
//!
//! **Freshness.** A recorded datagram must not be believed later, and no clock may be needed
//! for that: the clocks of two nodes may be hours apart. Each run of a node therefore draws a
//! *cookie*, which is part of its identity and thus known to all who know the node, and the
//! datagrams sent to it are *bound* to that: the cookie is authenticated data, though only 16
//! bits of it travel, as a hint. What was recorded on the way to a node can hence be replayed
//! only to that node and only during that run; and during that run the node remembers, per
//! sender, which counters it has seen. What remains is what the network could do as well:
//! withhold a datagram and deliver it once, later.
//!
//! A node that knows only an address, not the cookie (a seed; a node that may have been
//! restarted), sends the one message that is not bound: a greeting. It changes nothing at the
//! receiver, which remembers nothing of it. The answer goes to the address *inside* the
//! greeting, is bound to the greeter's cookie and is no longer than the greeting. So a replayed
//! greeting makes a node send one datagram of equal size to another node, not to a victim of
//! choice, and that one drops it, for it awaits no such answer.
//!
//! **Forgetting.** Windows are kept for [`SENDERS_MAX`] runs. When one more comes, the window
//! longest silent goes; for its datagrams not to become new again the node then takes another
//! cookie ([`Opener::wants_cookie`]), and accepts the old one for [`GRACE`] only.
//!
//! Invariants: nothing unauthenticated changes any state; an open fails for a counter seen
//! before; a datagram is at most [`DATAGRAM_MAX`] bytes.
//!
//! Not here: what is inside (`body`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;

use super::MemberFault;
use crate::keys::{self, ClusterKeys, Purpose, Secret};

/// The first byte of every membership datagram.
pub const FIRST_BYTE: u8 = 0x0A;

/// UDP payloads that pass everywhere, with room for tunnels (as QUIC's minimum, RFC 9000 §14).
pub const DATAGRAM_MAX: usize = 1200;

/// What the envelope adds.
pub(super) const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Runs of nodes whose keys and windows are kept, less than 1 KB each. At 1,000 nodes and a
/// deployment a day that is a new cookie each four days, which costs one change of identity.
pub(super) const SENDERS_MAX: usize = 4096;

/// How long datagrams bound to the cookie before are accepted: until all have heard the new one.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// What a datagram is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To nothing: a greeting.
    Open,
    /// To the receiver's cookie.
    Bound([u8; 8]),
}

/// Seals what this run of the node sends.
pub(super) struct Sealer {
    kid: u8,
    key: LessSafeKey,
    boot: [u8; 16],
    counter: u64,
}

impl Sealer {
    /// `random` must be fresh; `salt` is what else tells this run from others.
    pub(super) fn new(keys: &ClusterKeys, random: [u8; 32], salt: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&random);
        context.update(salt);
        let mut boot = [0; 16];
        boot.copy_from_slice(&context.finish().as_ref()[..16]);
        let sending = keys.sending();
        let key = sender_key(&sending.derive(Purpose::Gossip), boot);
        Self { kid: sending.kid(), key, boot, counter: 0 }
    }

    pub(super) fn boot(&self) -> [u8; 16] {
        self.boot
    }

    /// The datagram that carries `plain`.
    pub(super) fn seal(&mut self, way: Way, plain: &[u8]) -> Vec<u8> {
        debug_assert!(plain.len() + OVERHEAD <= DATAGRAM_MAX);
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        let (code, tag) = match way {
            Way::Open => (WAY_OPEN, [0; 2]),
            Way::Bound(cookie) => (WAY_BOUND, [cookie[0], cookie[1]]),
        };
        out.extend_from_slice(&[FIRST_BYTE, FORMAT, self.kid, code]);
        out.extend_from_slice(&tag);
        out.extend_from_slice(&self.boot);
        out.extend_from_slice(&self.counter.to_be_bytes());
        let (aad, aad_len) = aad(&out, way);
        out.extend_from_slice(plain);
        let nonce = nonce(self.counter);
        // A run that sends a million datagrams a second counts for half a million years.
        self.counter += 1;
        let sealed = self.key.seal_in_place_separate_tag(
            nonce,
            Aad::from(&aad[..aad_len]),
            &mut out[HEADER_LEN..],
        );
        out.extend_from_slice(sealed.expect("a datagram is short enough for GCM").as_ref());
        out
    }
}

/// Opens what others sent to this run of the node.
pub(super) struct Opener {
    keys: Vec<(u8, Secret)>,
    own_boot: [u8; 16],
    cookie: [u8; 8],
    previous: Option<([u8; 8], Instant)>,
    senders: BTreeMap<(u8, [u8; 16]), Sender>,
    evicted: bool,
    scratch: Vec<u8>,
}

struct Sender {
    key: LessSafeKey,
    /// The highest counter seen, and which of those before it, the lowest bit being itself.
    highest: u64,
    seen: u128,
    heard: Instant,
}

/// What an envelope held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    pub(super) bound: bool,
    pub(super) plain: &'a [u8],
}

impl Opener {
    pub(super) fn new(keys: &ClusterKeys, own_boot: [u8; 16], cookie: [u8; 8]) -> Self {
        Self {
            keys: keys.iter().map(|key| (key.kid(), key.derive(Purpose::Gossip))).collect(),
            own_boot,
            cookie,
            previous: None,
            senders: BTreeMap::new(),
            evicted: false,
            scratch: Vec::with_capacity(DATAGRAM_MAX),
        }
    }

    /// Whether a window was let go since the last call of [`Self::set_cookie`].
    pub(super) fn wants_cookie(&self) -> bool {
        self.evicted
    }

    /// From now on datagrams are to be bound to this.
    pub(super) fn set_cookie(&mut self, now: Instant, cookie: [u8; 8]) {
        self.previous = Some((self.cookie, now + GRACE));
        self.cookie = cookie;
        self.evicted = false;
    }

    /// Opens one datagram.
    pub(super) fn open(
        &mut self,
        now: Instant,
        datagram: &[u8],
    ) -> Result<Opened<'_>, MemberFault> {
        let head = Head::parse(datagram)?;
        if head.boot == self.own_boot {
            return Err(MemberFault::Reflected);
        }
        let way = match head.way {
            WAY_OPEN => Way::Open,
            WAY_BOUND => Way::Bound(self.cookie_of(now, head.tag).ok_or(MemberFault::Stale)?),
            _ => return Err(MemberFault::Malformed),
        };
        let id = (head.kid, head.boot);
        if let Some(sender) = self.senders.get(&id) {
            if way != Way::Open && sender.has_seen(head.counter) {
                return Err(MemberFault::Replayed);
            }
            unseal(&sender.key, &mut self.scratch, datagram, head.counter, way)?;
        } else {
            let root = self.keys.iter().find(|(kid, _)| *kid == head.kid);
            let (_, root) = root.ok_or(MemberFault::UnknownKey)?;
            let key = sender_key(root, head.boot);
            unseal(&key, &mut self.scratch, datagram, head.counter, way)?;
            if way != Way::Open {
                self.remember(now, id, key, head.counter);
            }
        }
        if way != Way::Open
            && let Some(sender) = self.senders.get_mut(&id)
        {
            sender.mark(now, head.counter);
        }
        let plain = &self.scratch[HEADER_LEN..datagram.len() - TAG_LEN];
        Ok(Opened { bound: way != Way::Open, plain })
    }

    fn cookie_of(&self, now: Instant, tag: [u8; 2]) -> Option<[u8; 8]> {
        if self.cookie[..2] == tag {
            return Some(self.cookie);
        }
        let (cookie, until) = self.previous?;
        (cookie[..2] == tag && now < until).then_some(cookie)
    }

    fn remember(&mut self, now: Instant, id: (u8, [u8; 16]), key: LessSafeKey, counter: u64) {
        if self.senders.len() >= SENDERS_MAX {
            let silent = self.senders.iter().min_by_key(|(_, sender)| sender.heard);
            if let Some(id) = silent.map(|(id, _)| *id) {
                self.senders.remove(&id);
                self.evicted = true;
            }
        }
        self.senders.insert(id, Sender { key, highest: counter, seen: 0, heard: now });
    }
}

impl Sender {
    fn has_seen(&self, counter: u64) -> bool {
        match self.highest.checked_sub(counter) {
            None => false,
            // What is older than the window may have been seen.
            Some(age) => age >= WINDOW || self.seen >> age & 1 == 1,
        }
    }

    fn mark(&mut self, now: Instant, counter: u64) {
        self.heard = now;
        if counter > self.highest {
            let step = counter - self.highest;
            self.seen = if step >= WINDOW { 0 } else { self.seen << step };
            self.highest = counter;
        }
        self.seen |= 1 << (self.highest - counter);
    }
}

struct Head {
    kid: u8,
    way: u8,
    tag: [u8; 2],
    boot: [u8; 16],
    counter: u64,
}

impl Head {
    fn parse(datagram: &[u8]) -> Result<Self, MemberFault> {
        if datagram.len() < OVERHEAD || datagram.len() > DATAGRAM_MAX {
            return Err(MemberFault::Malformed);
        }
        if datagram[0] != FIRST_BYTE {
            return Err(MemberFault::Malformed);
        }
        if datagram[1] != FORMAT {
            return Err(MemberFault::UnknownFormat);
        }
        let mut boot = [0; 16];
        boot.copy_from_slice(&datagram[6..22]);
        let mut counter = [0; 8];
        counter.copy_from_slice(&datagram[22..HEADER_LEN]);
        Ok(Self {
            kid: datagram[2],
            way: datagram[3],
            tag: [datagram[4], datagram[5]],
            boot,
            counter: u64::from_be_bytes(counter),
        })
    }
}

/// The header, and what the datagram is bound to.
fn aad(header: &[u8], way: Way) -> ([u8; HEADER_LEN + 8], usize) {
    let mut aad = [0; HEADER_LEN + 8];
    aad[..HEADER_LEN].copy_from_slice(&header[..HEADER_LEN]);
    match way {
        Way::Open => (aad, HEADER_LEN),
        Way::Bound(cookie) => {
            aad[HEADER_LEN..].copy_from_slice(&cookie);
            (aad, HEADER_LEN + 8)
        }
    }
}

fn unseal(
    key: &LessSafeKey,
    scratch: &mut Vec<u8>,
    datagram: &[u8],
    counter: u64,
    way: Way,
) -> Result<(), MemberFault> {
    scratch.clear();
    scratch.extend_from_slice(datagram);
    let (aad, aad_len) = aad(datagram, way);
    key.open_in_place(nonce(counter), Aad::from(&aad[..aad_len]), &mut scratch[HEADER_LEN..])
        .map_err(|_| MemberFault::Forged)?;
    Ok(())
}

fn sender_key(root: &Secret, boot: [u8; 16]) -> LessSafeKey {
    let secret = keys::expand(root, &boot);
    let key = UnboundKey::new(&AES_256_GCM, &*secret).expect("32 bytes are an AES-256 key");
    LessSafeKey::new(key)
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Changes whenever what is inside cannot be read by the version before.
const FORMAT: u8 = 1;
const WAY_OPEN: u8 = 0;
const WAY_BOUND: u8 = 1;
const HEADER_LEN: usize = 30;
const TAG_LEN: usize = 16;
/// Counters remembered per sender. A node hears a few datagrams a second from each other one,
/// so reordering is of one or two; a push-pull of 1,000 nodes is 50 in a burst.
const WINDOW: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::testing::{keys, start};
    use proptest::prelude::*;

    const COOKIE: [u8; 8] = [9, 8, 7, 6, 5, 4, 3, 2];

    fn pair() -> (Sealer, Opener) {
        let keys = keys(&[1]);
        (Sealer::new(&keys, [1; 32], b"a"), Opener::new(&keys, [0; 16], COOKIE))
    }

    #[test]
    fn what_is_sealed_opens_once_in_any_order() {
        let (mut sealer, mut opener) = pair();
        let sealed: Vec<_> =
            (0..100u8).map(|n| sealer.seal(Way::Bound(COOKIE), &[n; 40])).collect();
        for at in (0..100).rev().chain(0..100) {
            let opened = opener.open(start(), &sealed[at]).map(|opened| opened.plain.to_vec());
            let first = opener.senders[&(1, sealer.boot())].seen.count_ones();
            match opened {
                Ok(plain) => assert_eq!(plain, [at as u8; 40]),
                Err(fault) => assert_eq!((fault, first), (MemberFault::Replayed, 100)),
            }
        }
        for _ in 0..WINDOW {
            sealer.seal(Way::Open, b"");
        }
        let far = sealer.seal(Way::Bound(COOKIE), b"far");
        assert!(opener.open(start(), &far).is_ok());
        assert_eq!(opener.open(start(), &sealed[99]), Err(MemberFault::Replayed));
    }

    #[test]
    fn a_datagram_for_another_run_is_stale_and_leaves_no_state() {
        let (mut sealer, mut opener) = pair();
        let other = sealer.seal(Way::Bound([1; 8]), b"x");
        assert_eq!(opener.open(start(), &other), Err(MemberFault::Stale));
        let mut near = COOKIE;
        near[7] ^= 1;
        let near = sealer.seal(Way::Bound(near), b"x");
        assert_eq!(opener.open(start(), &near), Err(MemberFault::Forged));
        assert_eq!(opener.senders.len(), 0);
    }

    #[test]
    fn a_greeting_leaves_no_state_and_opens_again() {
        let (mut sealer, mut opener) = pair();
        let greeting = sealer.seal(Way::Open, b"hello");
        for _ in 0..2 {
            let opened = opener.open(start(), &greeting).unwrap();
            assert_eq!(opened, Opened { bound: false, plain: b"hello" });
        }
        assert_eq!(opener.senders.len(), 0);
        let mut bound = greeting.clone();
        bound[3] = WAY_BOUND;
        bound[4..6].copy_from_slice(&COOKIE[..2]);
        assert_eq!(opener.open(start(), &bound), Err(MemberFault::Forged), "it cannot be bound");
    }

    #[test]
    fn other_keys_and_own_datagrams_are_faults() {
        let (mut sealer, mut opener) = pair();
        let own = sealer.boot();
        let sealed = sealer.seal(Way::Bound(COOKIE), b"x");
        let mut reflecting = Opener::new(&keys(&[1]), own, COOKIE);
        assert_eq!(reflecting.open(start(), &sealed), Err(MemberFault::Reflected));
        let mut unknown = Opener::new(&keys(&[2]), [0; 16], COOKIE);
        assert_eq!(unknown.open(start(), &sealed), Err(MemberFault::UnknownKey));
        let mut wrong = sealed.clone();
        wrong[2] = 2;
        let mut both = Opener::new(&keys(&[1, 2]), [0; 16], COOKIE);
        assert_eq!(both.open(start(), &wrong), Err(MemberFault::Forged));
        let mut newer = sealed;
        newer[1] = FORMAT + 1;
        assert_eq!(opener.open(start(), &newer), Err(MemberFault::UnknownFormat));
    }

    #[test]
    fn two_runs_with_one_random_state_have_two_keys() {
        let keys = keys(&[1]);
        let one = Sealer::new(&keys, [3; 32], b"here");
        let two = Sealer::new(&keys, [3; 32], b"there");
        assert_ne!(one.boot(), two.boot());
    }

    #[test]
    fn forgetting_a_sender_wants_a_new_cookie_and_the_old_one_ends() {
        let (mut first, mut opener) = pair();
        let recorded = first.seal(Way::Bound(COOKIE), b"old");
        opener.open(start(), &recorded).unwrap();
        let keys = keys(&[1]);
        for n in 0..SENDERS_MAX {
            let mut other = Sealer::new(&keys, [2; 32], &n.to_be_bytes());
            let now = start() + Duration::from_millis(n as u64 + 1);
            opener.open(now, &other.seal(Way::Bound(COOKIE), b"x")).unwrap();
        }
        assert_eq!(opener.senders.len(), SENDERS_MAX);
        assert!(opener.wants_cookie());
        let now = start() + Duration::from_secs(60);
        opener.set_cookie(now, [5; 8]);
        assert!(!opener.wants_cookie());
        let later = first.seal(Way::Bound(COOKIE), b"not yet heard");
        assert!(opener.open(now + GRACE / 2, &later).is_ok());
        assert_eq!(opener.open(now + GRACE, &recorded), Err(MemberFault::Stale));
    }

    proptest! {
        #[test]
        fn no_bit_may_be_changed(at in 0usize..(OVERHEAD + 20) * 8) {
            let (mut sealer, mut opener) = pair();
            let mut sealed = sealer.seal(Way::Bound(COOKIE), &[7; 20]);
            sealed[at / 8] ^= 1 << (at % 8);
            prop_assert!(opener.open(start(), &sealed).is_err());
            prop_assert_eq!(opener.senders.len(), 0);
        }

        #[test]
        fn any_bytes_are_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, mut opener) = pair();
            prop_assert!(opener.open(start(), &bytes).is_err());
        }
    }
}

//! Keys of one link, and sealing with them: AES-128-GCM under keys derived from the secret that
//! two nodes share.
//!
//! ```text
//!  pair secret ── extract ── expand(direction, shards, link ids) ──> secret of phase 0
//!  secret of phase n ── expand("next") ──> secret of phase n + 1
//!                    ── expand("key"), expand("iv")
//! ```
//!
//! The nonce is the IV XOR the datagram's number, which counts through all phases. A direction
//! is told by who sends: node and shard, then who receives; so the two directions, and links of
//! other shards, have other keys. Numbers count from 0 with each link, so no two links may be made
//! of one secret and the same ends: a [`LinkSecret`] is used up by its link, and a connection gives
//! it once. Who makes a link anew makes a new connection first, which has another secret.
//!
//! A phase ends after 2^27 datagrams (RFC 9001, B.1: AES-GCM bears 2^28 of up to 2^11 bytes at
//! an advantage of 2^-57), or 15 minutes. The receiver follows when it sees the other phase bit
//! on a datagram that the next key opens, and keeps the old key for what is still on its way.
//!
//! It looks one phase ahead and no further. If all of a phase is lost on the way (at least ten
//! seconds of one direction, if someone hurries the keys; else a quarter of an hour), nothing more
//! is opened for ever: the caller gives up a link that is silent for so long.
//!
//! Invariants: a number is sealed once. Nothing changes before a datagram is authentic. Secrets
//! are wiped when dropped (AWS-LC wipes what it frees, the key schedule among it); no `Debug`
//! shows one.
//!
//! Not here: replay, which datagram belongs to which link.

use std::fmt;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use crate::wire::{HEADER_LEN, Header, LinkId, OVERHEAD, TAG_LEN, U48_MAX};

/// Datagrams in one key phase.
pub const PHASE_DATAGRAMS_MAX: u64 = 1 << 27;

/// How long a key phase lasts: what is sent in it is all that one stolen key opens.
pub const PHASE_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// How long the old key opens what was overtaken by the first datagram of a new phase. Far
/// longer than any path reorders. Phases do not change faster than this.
pub const OLD_PHASE: Duration = Duration::from_secs(5);

/// What two nodes share: exported from their control connection, new with each. One secret
/// serves all links between two nodes.
pub struct PairSecret(Zeroizing<[u8; SECRET_LEN]>);

impl PairSecret {
    pub fn new(bytes: &[u8; SECRET_LEN]) -> Self {
        Self(Zeroizing::new(*bytes))
    }
}

impl fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairSecret(..)")
    }
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The node's number of this run: a [`NodeId`](crate::members::NodeId), 32 random bits.
    pub node: u64,
    pub shard: u8,
    /// What this end calls the link: datagrams to it carry this.
    pub link: LinkId,
}

/// What one link is made of, at one of its ends. It cannot be copied, and making the link uses it
/// up: two links of one secret and the same ends would seal with the same nonces.
///
/// ```compile_fail,E0382
/// use relay::{link::Link, seal::LinkSecret};
///
/// fn twice(secret: LinkSecret, now: std::time::Instant) -> [Link; 2] {
///     [Link::new(secret, now), Link::new(secret, now)]
/// }
/// ```
#[derive(Debug)]
pub struct LinkSecret {
    pub(crate) pair: PairSecret,
    pub(crate) here: End,
    pub(crate) there: End,
}

impl LinkSecret {
    /// For tests, which have no connection. Nodes have theirs from
    /// [`Hub::take_link`](crate::hub::Hub::take_link).
    pub fn new(pair: PairSecret, here: End, there: End) -> Self {
        Self { pair, here, there }
    }

    /// What datagrams that come over the link carry.
    pub fn link(&self) -> LinkId {
        self.here.link
    }
}

/// A datagram was sealed with another key, or changed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

/// Seals what one end sends.
pub struct Sealer {
    keys: Keys,
    secret: Secret,
    header: Header,
    /// When this phase began, and with which number.
    since: (Instant, u64),
}

impl Sealer {
    pub fn new(secret: &PairSecret, from: &End, to: &End, now: Instant) -> Self {
        let secret = Secret::new(secret, from, to);
        Self {
            keys: secret.keys(),
            secret,
            header: Header {
                phase: false,
                dst_shard: to.shard,
                src_shard: from.shard,
                link: to.link,
                number: 0,
            },
            since: (now, 0),
        }
    }

    /// The number of the next datagram.
    #[inline]
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Seals `text` into `out`, which must hold [`OVERHEAD`] bytes more; the datagram's length.
    #[inline]
    pub fn seal(&mut self, text: &[u8], out: &mut [u8]) -> usize {
        // At a million datagrams a second, nine years from now.
        assert!(self.header.number < U48_MAX, "a link's numbers are used up");
        let len = text.len() + OVERHEAD;
        let (header, body) = out[..len].split_at_mut(HEADER_LEN);
        let (sealed, tag) = body.split_at_mut(text.len());
        let associated = self.header.write();
        header.copy_from_slice(&associated);
        let nonce = self.keys.nonce(self.header.number);
        self.header.number += 1;
        self.keys
            .key
            .seal_out_of_place_scatter(nonce, Aad::from(associated), text, sealed, &[], tag)
            .expect("a datagram is not too long for AES-GCM");
        len
    }

    /// Begins the next phase if this one is over.
    pub fn turn(&mut self, now: Instant) {
        let (since, first) = self.since;
        let aged = now.saturating_duration_since(since) >= PHASE_AGE_MAX;
        if aged || self.header.number - first >= PHASE_DATAGRAMS_MAX {
            self.rekey(now);
        }
    }

    /// Begins the next phase. False if this one is too young: the receiver would take the new
    /// key for a forgery.
    pub fn rekey(&mut self, now: Instant) -> bool {
        // Twice as long, for the receiver's clock starts when the first datagram arrives.
        if now.saturating_duration_since(self.since.0) < OLD_PHASE * 2 {
            return false;
        }
        self.secret = self.secret.next();
        self.keys = self.secret.keys();
        self.header.phase = !self.header.phase;
        self.since = (now, self.header.number);
        true
    }
}

/// Opens what the other end sends.
pub struct Opener {
    phase: bool,
    current: Keys,
    next: Keys,
    next_secret: Secret,
    old: Option<Keys>,
    /// When the current phase began here, and the smallest number seen in it.
    since: Option<Instant>,
    first: u64,
}

impl Opener {
    pub fn new(secret: &PairSecret, from: &End, to: &End) -> Self {
        let secret = Secret::new(secret, from, to);
        let next_secret = secret.next();
        Self {
            phase: false,
            current: secret.keys(),
            next: next_secret.keys(),
            next_secret,
            old: None,
            since: None,
            first: u64::MAX,
        }
    }

    /// Opens a whole datagram in place, whose header was parsed from it; its records.
    #[inline]
    pub fn open<'a>(
        &mut self,
        header: &Header,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<&'a mut [u8], Unauthentic> {
        if header.phase != self.phase {
            return self.open_other(header, datagram, now);
        }
        let text = self.current.open(header.number, datagram)?;
        self.first = self.first.min(header.number);
        Ok(text)
    }

    /// The other phase bit: a datagram of the phase before if it has a smaller number than all
    /// of this one, else perhaps the first of the next.
    #[cold]
    fn open_other<'a>(
        &mut self,
        header: &Header,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<&'a mut [u8], Unauthentic> {
        let young = self.since.is_some_and(|at| now.saturating_duration_since(at) < OLD_PHASE);
        if !young {
            self.old = None;
        }
        if header.number < self.first && self.since.is_some() {
            return self.old.as_ref().ok_or(Unauthentic)?.open(header.number, datagram);
        }
        // A peer that changed keys with every datagram would have us derive keys for each.
        if young {
            return Err(Unauthentic);
        }
        let text = self.next.open(header.number, datagram)?;
        self.next_secret = self.next_secret.next();
        let after = self.next_secret.keys();
        let next = std::mem::replace(&mut self.next, after);
        self.old = Some(std::mem::replace(&mut self.current, next));
        self.phase = header.phase;
        self.since = Some(now);
        self.first = header.number;
        Ok(text)
    }

    /// Forgets the old key if its time is over.
    pub fn turn(&mut self, now: Instant) {
        let over = |at| now.saturating_duration_since(at) >= OLD_PHASE;
        if self.old.is_some() && self.since.is_some_and(over) {
            self.old = None;
        }
    }
}

/// The datagrams are counted elsewhere; there is nothing else to show.
impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("header", &self.header).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// What the keys of one phase of one direction are made of.
struct Secret(Zeroizing<[u8; SECRET_LEN]>);

impl Secret {
    fn new(pair: &PairSecret, from: &End, to: &End) -> Self {
        let prk = Salt::new(HKDF_SHA256, SALT).extract(&*pair.0);
        let mut direction = [0; 2 * END_LEN];
        for (out, end) in direction.chunks_exact_mut(END_LEN).zip([from, to]) {
            out[..8].copy_from_slice(&end.node.to_be_bytes());
            out[8] = end.shard;
            out[9..].copy_from_slice(&end.link.get().to_be_bytes());
        }
        Self(expand(&prk, &[b"link", &direction]))
    }

    fn next(&self) -> Self {
        Self(expand(&self.prk(), &[b"next"]))
    }

    fn keys(&self) -> Keys {
        let prk = self.prk();
        let key: Zeroizing<[u8; KEY_LEN]> = expand(&prk, &[b"key"]);
        let iv: Zeroizing<[u8; NONCE_LEN]> = expand(&prk, &[b"iv"]);
        let key = UnboundKey::new(&AES_128_GCM, &*key).expect("the length of an AES-128 key");
        Keys { key: LessSafeKey::new(key), iv }
    }

    fn prk(&self) -> Prk {
        Prk::new_less_safe(HKDF_SHA256, &*self.0)
    }
}

struct Keys {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
}

impl Keys {
    #[inline]
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    #[inline]
    fn open<'a>(&self, number: u64, datagram: &'a mut [u8]) -> Result<&'a mut [u8], Unauthentic> {
        let (header, body) = datagram.split_first_chunk_mut::<HEADER_LEN>().ok_or(Unauthentic)?;
        let len = body.len().checked_sub(TAG_LEN).ok_or(Unauthentic)?;
        let (text, tag) = body.split_at_mut(len);
        let nonce = self.nonce(number);
        let opened = self.key.open_in_place_separate_tag(nonce, Aad::from(*header), tag, text);
        opened.map_err(|_| Unauthentic)
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    let done = prk.expand(info, Len(N)).and_then(|okm| okm.fill(&mut *out));
    done.expect("HKDF gives up to 255 hashes");
    out
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

const SALT: &[u8] = b"shardcast relay media 1";
/// Bytes of a secret.
pub const SECRET_LEN: usize = 32;
const KEY_LEN: usize = 16;
const END_LEN: usize = 8 + 1 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_opens_what_was_sealed_and_nobody_else_does() {
        let now = start();
        let (here, there) = ends();
        let mut sealer = Sealer::new(&secret(1), &here, &there, now);
        let datagram = sealed(&mut sealer, b"records");
        assert_eq!(
            open(&mut Opener::new(&secret(1), &here, &there), &datagram, now).unwrap(),
            b"records"
        );
        let other_shard = End { shard: 9, ..there };
        let other_node = End { node: 9, ..here };
        let other_link = End { link: LinkId::new(9).unwrap(), ..here };
        for (secret, from, to) in [
            (secret(2), here, there),
            (secret(1), there, here),
            (secret(1), here, other_shard),
            (secret(1), other_node, there),
            (secret(1), other_link, there),
        ] {
            let mut opener = Opener::new(&secret, &from, &to);
            assert_eq!(open(&mut opener, &datagram, now), Err(Unauthentic));
        }
    }

    #[test]
    fn no_bit_of_a_datagram_can_be_changed() {
        let now = start();
        let (here, there) = ends();
        let mut sealer = Sealer::new(&secret(1), &here, &there, now);
        let mut opener = Opener::new(&secret(1), &here, &there);
        let datagram = sealed(&mut sealer, b"records");
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&mut opener, &changed, now), Err(Unauthentic), "bit {bit}");
        }
        assert!(open(&mut opener, &datagram, now).is_ok(), "and nothing came of it");
    }

    #[test]
    fn the_receiver_follows_to_the_next_phase_and_keeps_the_old_key_for_a_while() {
        let (mut sealer, mut opener, now) = pair();
        let late = sealed(&mut sealer, b"late");
        let too_late = sealed(&mut sealer, b"too late");
        let now = now + PHASE_AGE_MAX;
        sealer.turn(now);
        let second = sealed(&mut sealer, b"second");
        let first = sealed(&mut sealer, b"first");
        assert_eq!(open(&mut opener, &first, now).unwrap(), b"first");
        assert_eq!(open(&mut opener, &second, now).unwrap(), b"second", "overtaken");
        assert_eq!(open(&mut opener, &late, now).unwrap(), b"late");
        let now = now + OLD_PHASE;
        opener.turn(now);
        assert!(opener.old.is_none(), "wiped");
        assert_eq!(open(&mut opener, &too_late, now), Err(Unauthentic));
        assert!(sealer.rekey(now + OLD_PHASE));
        let third = sealed(&mut sealer, b"third");
        assert_eq!(open(&mut opener, &third, now + OLD_PHASE).unwrap(), b"third");
    }

    #[test]
    fn phases_do_not_change_fast() {
        let (mut sealer, mut opener, now) = pair();
        assert!(!sealer.rekey(now + OLD_PHASE));
        assert!(sealer.rekey(now + OLD_PHASE * 2));
        let now = now + OLD_PHASE * 2;
        open(&mut opener, &sealed(&mut sealer, b""), now).unwrap();
        sealer.since.0 = now - OLD_PHASE * 3;
        assert!(sealer.rekey(now));
        let early = sealed(&mut sealer, b"");
        assert_eq!(open(&mut opener, &early, now), Err(Unauthentic));
        assert!(open(&mut opener, &early, now + OLD_PHASE).is_ok());
    }

    #[test]
    fn who_missed_a_whole_phase_opens_nothing_more() {
        let (mut sealer, mut opener, mut now) = pair();
        open(&mut opener, &sealed(&mut sealer, b"first"), now).unwrap();
        now += PHASE_AGE_MAX;
        sealer.turn(now);
        sealed(&mut sealer, b"lost");
        for _ in 0..6 {
            now += PHASE_AGE_MAX;
            sealer.turn(now);
            opener.turn(now);
            let datagram = sealed(&mut sealer, b"of a later phase");
            assert_eq!(open(&mut opener, &datagram, now), Err(Unauthentic));
        }
    }

    #[test]
    fn a_phase_ends_after_so_many_datagrams() {
        let (mut sealer, mut opener, now) = pair();
        let now = now + OLD_PHASE * 2;
        sealer.header.number = PHASE_DATAGRAMS_MAX - 1;
        sealer.turn(now);
        open(&mut opener, &sealed(&mut sealer, b"last"), now).unwrap();
        assert_eq!((sealer.header.phase, opener.phase), (false, false));
        sealer.turn(now);
        open(&mut opener, &sealed(&mut sealer, b"first"), now).unwrap();
        assert_eq!((sealer.header.phase, opener.phase), (true, true));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secret = PairSecret::new(&[0xAB; 32]);
        let (here, there) = ends();
        let sealer = Sealer::new(&secret, &here, &there, start());
        let opener = Opener::new(&secret, &here, &there);
        let shown = format!("{secret:?} {sealer:?} {opener:?}").to_lowercase();
        assert!(!shown.contains("171") && !shown.contains("ab,") && !shown.contains("abab"));
    }

    fn pair() -> (Sealer, Opener, Instant) {
        let (here, there) = ends();
        let now = start();
        let sealer = Sealer::new(&secret(1), &here, &there, now);
        (sealer, Opener::new(&secret(1), &here, &there), now)
    }

    fn ends() -> (End, End) {
        let link = |id| LinkId::new(id).unwrap();
        (End { node: 1, shard: 2, link: link(3) }, End { node: 4, shard: 5, link: link(6) })
    }

    fn secret(byte: u8) -> PairSecret {
        PairSecret::new(&[byte; 32])
    }

    fn sealed(sealer: &mut Sealer, text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; text.len() + OVERHEAD];
        let len = sealer.seal(text, &mut out);
        assert_eq!(len, out.len());
        out
    }

    fn open(opener: &mut Opener, datagram: &[u8], now: Instant) -> Result<Vec<u8>, Unauthentic> {
        let mut datagram = datagram.to_vec();
        let header = Header::parse(&datagram).map_err(|_| Unauthentic)?;
        opener.open(&header, &mut datagram, now).map(|text| text.to_vec())
    }

    #[expect(clippy::disallowed_methods, reason = "tests need some beginning of time")]
    fn start() -> Instant {
        Instant::now()
    }
}

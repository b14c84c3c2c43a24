//! The SRTCP replay windows of a peer, one per sender SSRC (RFC 3711 §3.3.2).
//!
//! Invariants: at most [`SENDERS_MAX`] windows; only authenticated packets change them.

/// Recently heard senders. The latest is kept apart: most peers have no other, and what is not
/// on the heap is fetched with the rest of the session.
#[derive(Default)]
pub(super) struct Senders {
    latest: Option<Sender>,
    /// The others, the latest first.
    others: Vec<Sender>,
}

struct Sender {
    ssrc: u32,
    highest: u32,
    /// Bit n: index `highest - n` was seen.
    seen: u128,
}

impl Senders {
    pub(super) fn is_new(&self, ssrc: u32, index: u32) -> bool {
        let mut all = self.latest.iter().chain(&self.others);
        all.find(|sender| sender.ssrc == ssrc).is_none_or(|sender| sender.is_new(index))
    }

    /// Notes an authenticated packet.
    pub(super) fn commit(&mut self, ssrc: u32, index: u32) {
        if let Some(latest) = self.latest.as_mut().filter(|latest| latest.ssrc == ssrc) {
            return latest.commit(index);
        }
        let sender = match self.others.iter().position(|sender| sender.ssrc == ssrc) {
            Some(at) => {
                let mut sender = self.others.remove(at);
                sender.commit(index);
                sender
            }
            None => Sender { ssrc, highest: index, seen: 1 },
        };
        if let Some(former) = self.latest.replace(sender) {
            self.others.truncate(SENDERS_MAX - 2);
            self.others.insert(0, former);
        }
    }
}

impl Sender {
    fn is_new(&self, index: u32) -> bool {
        match self.highest.checked_sub(index) {
            None => true,
            Some(age) => age < u128::BITS && self.seen >> age & 1 == 0,
        }
    }

    fn commit(&mut self, index: u32) {
        match index.checked_sub(self.highest) {
            Some(ahead) => {
                self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
                self.highest = index;
            }
            None => {
                let age = self.highest - index;
                if age < u128::BITS {
                    self.seen |= 1 << age;
                }
            }
        }
    }
}

/// A browser sends RTCP from one SSRC per stream it sends, plus one for what it only
/// receives, so this covers it many times over. More would cost memory that only a
/// misbehaving peer can fill (32 bytes each); with fewer, the window of a sender that fell
/// silent is forgotten sooner, and from then on its old packets could be played to us again.
const SENDERS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_new_once_and_old_ones_are_refused() {
        let mut senders = Senders::default();
        assert!(senders.is_new(1, 5));
        senders.commit(1, 5);
        assert!(!senders.is_new(1, 5));
        assert!(senders.is_new(2, 5) && senders.is_new(1, 4) && senders.is_new(1, 6));
        senders.commit(1, 4);
        assert!(!senders.is_new(1, 4));
        senders.commit(1, 1000);
        assert!(!senders.is_new(1, 5) && !senders.is_new(1, 872) && senders.is_new(1, 873));
        senders.commit(1, 1127);
        assert!(!senders.is_new(1, 1000) && senders.is_new(1, 1001));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_longest_silent() {
        let mut senders = Senders::default();
        for ssrc in 0..SENDERS_MAX as u32 {
            senders.commit(ssrc, 1);
        }
        senders.commit(0, 2);
        senders.commit(9999, 1);
        assert_eq!(senders.others.len() + 1, SENDERS_MAX);
        assert!(!senders.is_new(0, 2));
        assert!(senders.is_new(1, 1));
    }
}

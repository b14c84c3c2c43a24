//! How many handshakes of others are borne. Each costs a key exchange and a signature, 0.1 ms,
//! before it is known whether the caller is of the cluster.
//!
//! Invariants: at most [`TOTAL_MAX`] are open, at most [`PER_ADDRESS_MAX`] for one address.
//!
//! Not here: how long one may stay half open (`Control`).

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A cluster of 250 whose nodes all call one that was restarted.
pub(super) const TOTAL_MAX: usize = 256;

/// Nodes that share an address call one node; a few of them at once.
pub(super) const PER_ADDRESS_MAX: u16 = 16;

/// Up to here, callers at the address of a member are believed without proof that they receive
/// there; it saves a round trip. Past it somebody may be forging them.
pub(super) const UNPROVEN_MAX: usize = 32;

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Accept,
    /// Make it prove its address first, which costs no state (RFC 9000 §8.1.2).
    Prove,
    Ignore,
}

#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    by_address: BTreeMap<IpAddr, u16>,
    total: usize,
}

impl HalfOpen {
    pub(super) fn door(&self, address: IpAddr, member: bool, proven: bool) -> Door {
        let here = self.by_address.get(&address).copied().unwrap_or(0);
        if self.total >= TOTAL_MAX || here >= PER_ADDRESS_MAX {
            Door::Ignore
        } else if proven || member && self.total < UNPROVEN_MAX {
            Door::Accept
        } else {
            Door::Prove
        }
    }

    pub(super) fn add(&mut self, address: IpAddr) {
        *self.by_address.entry(address).or_insert(0) += 1;
        self.total += 1;
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            self.total -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_prove_their_address_and_a_flood_is_ignored() {
        let mut half_open = HalfOpen::default();
        let address = |n: usize| IpAddr::from([10, 0, (n / 16) as u8, 1]);
        assert_eq!(half_open.door(address(0), false, false), Door::Prove);
        assert_eq!(half_open.door(address(0), true, false), Door::Accept);
        for n in 0..TOTAL_MAX {
            let proven = half_open.door(address(n), false, true);
            assert_eq!(proven, Door::Accept);
            let member = half_open.door(address(n), true, false);
            assert_eq!(member, if n < UNPROVEN_MAX { Door::Accept } else { Door::Prove });
            half_open.add(address(n));
        }
        assert_eq!(half_open.door(address(999), true, true), Door::Ignore);
        half_open.remove(address(0));
        assert_eq!(half_open.door(address(999), true, true), Door::Accept);
        assert_eq!(half_open.door(address(20), true, true), Door::Ignore, "16 of one address");
    }
}

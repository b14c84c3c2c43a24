//! How many handshakes of others are borne. Each costs a key exchange and a signature, 0.1 ms,
//! before it is known whether the caller is of the cluster.
//!
//! Invariants: at most [`TOTAL_MAX`] are open; of those who have proven that they receive at their
//! address at most [`PER_BLOCK_MAX`] for one block of addresses. Nobody is ignored for what others
//! may have forged: past [`UNPROVEN_MAX`] the unproven are asked for proof. Strangers leave
//! [`FOR_MEMBERS`] places to those who call from a member's address.
//!
//! Not here: how long one may stay half open (`Control`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// A cluster of 250 whose nodes all call one that was restarted.
pub(super) const TOTAL_MAX: usize = 256;

/// Of these, for proven callers at members' addresses alone. Whoever is just being restarted is
/// no member yet, so most places are anybody's.
pub(super) const FOR_MEMBERS: usize = 64;

/// Nodes that share an address call one node; a few of them at once.
pub(super) const PER_BLOCK_MAX: u16 = 16;

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

/// A handshake that counts, until it is given back.
#[derive(Debug)]
pub(super) struct Place {
    /// `None`: of a caller that has proven nothing.
    block: Option<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    proven_by_block: BTreeMap<IpAddr, u16>,
    proven: usize,
    unproven: usize,
}

impl HalfOpen {
    pub(super) fn door(&self, address: IpAddr, member: bool, proven: bool) -> Door {
        if !proven {
            let believed = member && self.unproven < UNPROVEN_MAX && self.total() < TOTAL_MAX;
            return if believed { Door::Accept } else { Door::Prove };
        }
        let here = self.proven_by_block.get(&block(address)).copied().unwrap_or(0);
        let most = if member { TOTAL_MAX } else { TOTAL_MAX - FOR_MEMBERS };
        if self.total() >= most || here >= PER_BLOCK_MAX { Door::Ignore } else { Door::Accept }
    }

    pub(super) fn add(&mut self, address: IpAddr, proven: bool) -> Place {
        if !proven {
            self.unproven += 1;
            return Place { block: None };
        }
        let block = block(address);
        *self.proven_by_block.entry(block).or_insert(0) += 1;
        self.proven += 1;
        Place { block: Some(block) }
    }

    pub(super) fn remove(&mut self, place: Place) {
        let Some(block) = place.block else {
            self.unproven -= 1;
            return;
        };
        if let Some(count) = self.proven_by_block.get_mut(&block) {
            *count -= 1;
            self.proven -= 1;
            if *count == 0 {
                self.proven_by_block.remove(&block);
            }
        }
    }

    pub(super) fn total(&self) -> usize {
        self.proven + self.unproven
    }
}

/// What one party has at least: an IPv4 address, or the /64 of an IPv6 one.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen callers share each.
    fn address(n: usize) -> IpAddr {
        IpAddr::from([10, 0, (n / 16) as u8, 1])
    }

    #[test]
    fn strangers_prove_their_address_and_a_flood_is_ignored() {
        let mut half_open = HalfOpen::default();
        assert_eq!(half_open.door(address(0), false, false), Door::Prove);
        let strangers = TOTAL_MAX - FOR_MEMBERS;
        let mut places: Vec<Place> = (0..strangers)
            .map(|n| {
                assert_eq!(half_open.door(address(n), false, true), Door::Accept);
                half_open.add(address(n), true)
            })
            .collect();
        assert_eq!(half_open.door(address(999), false, true), Door::Ignore);
        for n in strangers..TOTAL_MAX {
            assert_eq!(half_open.door(address(n), true, true), Door::Accept, "kept for members");
            places.push(half_open.add(address(n), true));
        }
        assert_eq!(half_open.door(address(999), true, true), Door::Ignore);
        half_open.remove(places.remove(0));
        assert_eq!(half_open.door(address(999), true, true), Door::Accept);
        assert_eq!(half_open.door(address(20), true, true), Door::Ignore, "16 of one address");
        places.into_iter().for_each(|place| half_open.remove(place));
        assert_eq!(half_open.total(), 0);
    }

    #[test]
    fn who_is_forged_is_asked_for_proof_and_never_ignored() {
        let mut half_open = HalfOpen::default();
        for _ in 0..UNPROVEN_MAX {
            assert_eq!(half_open.door(address(0), true, false), Door::Accept);
            half_open.add(address(0), false);
        }
        assert_eq!(half_open.door(address(0), true, false), Door::Prove);
        assert_eq!(half_open.door(address(0), true, true), Door::Accept);
    }

    #[test]
    fn addresses_of_one_v6_network_are_one_partys() {
        let mut half_open = HalfOpen::default();
        let of_network = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]);
        for n in 0..PER_BLOCK_MAX {
            assert_eq!(half_open.door(of_network(n), false, true), Door::Accept);
            half_open.add(of_network(n), true);
        }
        assert_eq!(half_open.door(of_network(999), false, true), Door::Ignore);
        let other = IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1]);
        assert_eq!(half_open.door(other, false, true), Door::Accept);
    }
}

//! What can be wrong with a datagram. It is counted and dropped; nothing is answered.

use std::fmt;

/// Why a datagram, or a record of an authentic one, was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not a datagram of the media plane, or too short.
    Header,
    /// For another link, or between other shards.
    Stray,
    /// Seen before, or so old that this is forgotten.
    Replayed,
    /// Sealed with another key, or changed on its way.
    Unauthentic,
    /// An authentic record that cannot be read, or that says what cannot be.
    Record,
    /// A packet of a lane that is not open.
    Lane,
    /// A fragment that does not fit those before it.
    Fragment,
}

impl Fault {
    pub const ALL: [Self; 7] = [
        Self::Header,
        Self::Stray,
        Self::Replayed,
        Self::Unauthentic,
        Self::Record,
        Self::Lane,
        Self::Fragment,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Stray => "stray",
            Self::Replayed => "replayed",
            Self::Unauthentic => "unauthentic",
            Self::Record => "record",
            Self::Lane => "lane",
            Self::Fragment => "fragment",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "not a datagram of the media plane",
            Self::Stray => "for another link",
            Self::Replayed => "seen before",
            Self::Unauthentic => "not authentic",
            Self::Record => "a record that cannot be read",
            Self::Lane => "a packet of a lane that is not open",
            Self::Fragment => "a fragment that does not fit the others",
        })
    }
}

impl std::error::Error for Fault {}

/// How often each happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults([u64; Fault::ALL.len()]);

impl Faults {
    pub fn note(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// In the order of [`Fault::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.into_iter().zip(self.0)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_own_counter_and_name() {
        let mut faults = Faults::default();
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            (0..=n).for_each(|_| faults.note(fault));
        }
        for (n, (fault, count)) in faults.iter().enumerate() {
            assert_eq!((count, faults.of(fault)), (n as u64 + 1, n as u64 + 1));
            let others = Fault::ALL.into_iter().filter(|other| *other != fault);
            assert!(others.clone().all(|other| other.name() != fault.name()));
        }
        assert_eq!(faults.total(), 28);
    }
}

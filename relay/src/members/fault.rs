//! What can be wrong with a membership datagram. Each is counted, dropped and never answered.

/// Why a membership datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberFault {
    /// Not sealed with our key, or damaged, or bound to a cookie that is like ours.
    Forged,
    /// It names more nodes than a cluster may have.
    Full,
    /// Not of the form of any message.
    Malformed,
    /// More greetings than are answered in a second.
    Overrun,
    /// We sent it.
    Reflected,
    /// Its counter was seen before.
    Replayed,
    /// Another node claims our address.
    SameAddress,
    /// Bound to another run: recorded before our restart, or sent by one who has not heard of it.
    Stale,
    /// An answer to a greeting that we did not send, or have given up.
    Unawaited,
    /// A format of another version.
    UnknownFormat,
    /// Sealed with a key that we do not have.
    UnknownKey,
}

impl MemberFault {
    /// All of them, in the order of [`MemberFaults`].
    pub const ALL: [Self; 11] = [
        Self::Forged,
        Self::Full,
        Self::Malformed,
        Self::Overrun,
        Self::Reflected,
        Self::Replayed,
        Self::SameAddress,
        Self::Stale,
        Self::Unawaited,
        Self::UnknownFormat,
        Self::UnknownKey,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Full => "full",
            Self::Malformed => "malformed",
            Self::Overrun => "overrun",
            Self::Reflected => "reflected",
            Self::Replayed => "replayed",
            Self::SameAddress => "same_address",
            Self::Stale => "stale",
            Self::Unawaited => "unawaited",
            Self::UnknownFormat => "unknown_format",
            Self::UnknownKey => "unknown_key",
        }
    }
}

/// How often each fault happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberFaults([u64; MemberFault::ALL.len()]);

impl MemberFaults {
    pub(super) fn count(&mut self, fault: MemberFault) {
        self.0[fault as usize] += 1;
    }

    /// How often it happened since the start.
    pub fn of(&self, fault: MemberFault) -> u64 {
        self.0[fault as usize]
    }

    /// How often any happened.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_own_place_and_name() {
        let mut faults = MemberFaults::default();
        for (at, fault) in MemberFault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, at);
            faults.count(fault);
            assert_eq!((faults.of(fault), faults.total()), (1, at as u64 + 1));
            assert!(MemberFault::ALL[..at].iter().all(|other| other.name() != fault.name()));
        }
    }
}

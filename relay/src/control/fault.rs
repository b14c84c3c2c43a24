//! What can be wrong on the control plane. Each is counted; none is a panic.

/// Why something that arrived was dropped, or a connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlFault {
    /// A packet that belongs to no connection and begins none.
    Astray,
    /// A handshake that failed: a wrong key, or no TLS of ours.
    Handshake,
    /// More half-open connections than are borne.
    HalfOpen,
    /// A hello or a stream that is not of our protocol.
    Malformed,
    /// A message longer than any may be.
    TooLong,
    /// A node that speaks to itself: what it sent was reflected.
    Reflected,
    /// A handshake that was not completed in time.
    Late,
    /// A message that could not be queued.
    QueueFull,
    /// More nodes than a cluster may have.
    TooManyPeers,
}

impl ControlFault {
    /// All of them, in the order of [`ControlFaults`].
    pub const ALL: [Self; 9] = [
        Self::Astray,
        Self::Handshake,
        Self::HalfOpen,
        Self::Malformed,
        Self::TooLong,
        Self::Reflected,
        Self::Late,
        Self::QueueFull,
        Self::TooManyPeers,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Astray => "astray",
            Self::Handshake => "handshake",
            Self::HalfOpen => "half_open",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Reflected => "reflected",
            Self::Late => "late",
            Self::QueueFull => "queue_full",
            Self::TooManyPeers => "too_many_peers",
        }
    }
}

/// How often each fault happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ControlFaults([u64; ControlFault::ALL.len()]);

impl ControlFaults {
    pub(super) fn count(&mut self, fault: ControlFault) {
        self.0[fault as usize] += 1;
    }

    /// How often it happened since the start.
    pub fn of(&self, fault: ControlFault) -> u64 {
        self.0[fault as usize]
    }

    /// How often any happened.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

//! Two nodes may call each other at once. Which connection survives is decided by the one that
//! is called, from what it has; both ends come to the same.
//!
//! The rule: the connection that the node with the smaller number began survives. A node that
//! has begun one and is called by a larger one refuses; called by a smaller one it gives up its
//! own. No message is lost by that, for none is sent before the hello was answered.
//!
//! Once a connection is up, a further call means that the other end has lost it, unless that call
//! was on its way before. The caller tells which connection it had last (`known`) and counts its
//! calls, so that the two can be told apart.
//!
//! Not here: closing what lost.

use crate::members::NodeId;

/// What the called node has with the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    Nothing,
    /// It is calling the caller.
    Calling,
    /// A connection that it began itself.
    UpByUs {
        epoch: u64,
    },
    /// A connection that the caller began, with this call.
    UpByThem {
        call: u64,
    },
}

/// What is to become of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// The own call is given up.
    AcceptInstead,
    /// The connection that was up is lost.
    Replace,
    Refuse,
}

/// Decides on a call that said `call` and `known`.
pub(super) fn judge(own: NodeId, caller: NodeId, has: Has, call: u64, known: u64) -> Verdict {
    match has {
        Has::Nothing => Verdict::Accept,
        Has::Calling if own < caller => Verdict::Refuse,
        Has::Calling => Verdict::AcceptInstead,
        Has::UpByUs { epoch } if known != epoch && own < caller => Verdict::Refuse,
        Has::UpByUs { .. } => Verdict::Replace,
        // Delayed on its way: the caller gave it up before it made the one that is up.
        Has::UpByThem { call: newer } if call <= newer => Verdict::Refuse,
        Has::UpByThem { .. } => Verdict::Replace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: NodeId = NodeId(1);
    const LARGE: NodeId = NodeId(2);

    #[test]
    fn of_two_calls_the_one_of_the_smaller_number_survives() {
        assert_eq!(judge(SMALL, LARGE, Has::Calling, 1, 0), Verdict::Refuse);
        assert_eq!(judge(LARGE, SMALL, Has::Calling, 1, 0), Verdict::AcceptInstead);
        // The larger one's call comes late, when the smaller one's is already up.
        assert_eq!(judge(SMALL, LARGE, Has::UpByUs { epoch: 5 }, 1, 0), Verdict::Refuse);
    }

    #[test]
    fn a_call_of_one_who_had_this_connection_replaces_it() {
        assert_eq!(judge(SMALL, LARGE, Has::UpByUs { epoch: 5 }, 1, 5), Verdict::Replace);
        assert_eq!(judge(LARGE, SMALL, Has::UpByUs { epoch: 5 }, 1, 5), Verdict::Replace);
        assert_eq!(judge(SMALL, LARGE, Has::UpByThem { call: 3 }, 4, 0), Verdict::Replace);
    }

    #[test]
    fn a_call_that_was_given_up_replaces_nothing() {
        assert_eq!(judge(SMALL, LARGE, Has::UpByThem { call: 3 }, 2, 0), Verdict::Refuse);
        assert_eq!(judge(SMALL, LARGE, Has::UpByThem { call: 3 }, 3, 0), Verdict::Refuse);
    }
}

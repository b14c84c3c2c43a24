//! Makes neighbours equally long, so that the outbox can fold them into one GSO send.
//!
//! Encoders' packetizers cut a frame into nearly equal packets, the last few one byte longer,
//! and every change of length to a longer one ends a run. A byte of RTP padding in the shorter
//! ones costs nothing next to a second walk through the kernel.
//!
//! Invariants: nothing is padded by more than [`PADDING_MAX`], nothing beyond the length of a
//! neighbour, and nothing that would not become part of a longer run.
//!
//! Not here: the padding's bytes (`packet`).

/// The most a packet is padded by. More would pad frames of different sizes to each other,
/// which is bandwidth for nothing; packetizers' neighbours differ by 1, or 4 where a header
/// differs.
pub const PADDING_MAX: usize = 8;

/// Calls `pad` with (index, how much) for each packet to be padded. `lens` are lengths in the
/// order in which they will leave.
pub fn pads(lens: impl Iterator<Item = usize> + Clone, mut pad: impl FnMut(usize, u8)) {
    let mut rest = lens.enumerate().peekable();
    while let Some((_, first)) = rest.peek().copied() {
        let begin = rest.clone();
        let (mut least, mut most, mut count) = (first, first, 0);
        while let Some((_, len)) = rest.peek().copied() {
            let (lower, upper) = (least.min(len), most.max(len));
            if upper - lower > PADDING_MAX {
                break;
            }
            (least, most, count) = (lower, upper, count + 1);
            rest.next();
        }
        // A run may end with a shorter one: the next, or else the last of these.
        let ended = rest.next_if(|(_, len)| *len < most).is_some();
        let padded = if ended { count } else { count - 1 };
        for (index, len) in begin.take(padded) {
            if len < most {
                pad(index, (most - len) as u8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn padded(lens: &[usize]) -> Vec<usize> {
        let mut all = lens.to_vec();
        pads(lens.iter().copied(), |index, more| all[index] += usize::from(more));
        all
    }

    /// GSO sends, as the outbox folds.
    fn sends(lens: &[usize]) -> usize {
        let (mut count, mut segment, mut open) = (0, 0, false);
        for &len in lens {
            if open && len <= segment {
                open = len == segment;
            } else {
                (count, segment, open) = (count + 1, len, true);
            }
        }
        count
    }

    #[test]
    fn a_frame_in_nearly_equal_packets_becomes_one_run() {
        assert_eq!(padded(&[1155, 1155, 1156, 1156]), [1156; 4]);
        assert_eq!(padded(&[1156, 1155]), [1156, 1155], "a shorter last is no obstacle");
        assert_eq!(padded(&[1156, 1155, 1156, 1155]), [1156, 1156, 1156, 1155]);
        assert_eq!(padded(&[1155, 1156, 1155, 300]), [1156, 1156, 1156, 300]);
        assert_eq!(padded(&[1000, 1008]), [1008; 2]);
    }

    #[test]
    fn what_differs_by_more_is_left_alone() {
        assert_eq!(padded(&[1000, 1009]), [1000, 1009]);
        assert_eq!(padded(&[900, 1100, 900, 1100]), [900, 1100, 900, 1100]);
        assert_eq!(padded(&[1155, 300, 301, 301]), [1155, 300, 301, 301]);
        assert_eq!(padded(&[]), []);
        assert_eq!(padded(&[7]), [7]);
    }

    proptest! {
        #[test]
        fn padding_is_bounded_and_never_makes_more_sends(
            lens in prop::collection::vec(prop_oneof![
                1150usize..1160, 0usize..1200, Just(1200usize),
            ], 0..40),
        ) {
            let padded = padded(&lens);
            for (after, before) in padded.iter().zip(&lens) {
                prop_assert!(after >= before && after - before <= PADDING_MAX);
            }
            prop_assert_eq!(padded.iter().max(), lens.iter().max());
            prop_assert!(sends(&padded) <= sends(&lens));
        }
    }
}

//! What waits to be sent to one node, by class.
//!
//! Invariants: bounded in bytes and in messages, for both classes together.
//!
//! Not here: what a full queue means to the sender (`Control::send`).

use std::collections::VecDeque;

use bytes::Bytes;

use super::frames::{CLASSES, Class, MESSAGE_MAX, frame};

/// Sixteen of the longest messages. More would only wait longer for a node that does not take
/// them; less would refuse a burst of answers.
pub const QUEUE_BYTES_MAX: usize = 16 * MESSAGE_MAX;

/// A node that comes back is told all the wants of its peer at once.
pub const QUEUE_MESSAGES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: [VecDeque<Bytes>; CLASSES],
    bytes: usize,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.iter().all(VecDeque::is_empty)
    }

    pub(super) fn push(&mut self, class: Class, message: &[u8]) -> Result<(), Full> {
        let count: usize = self.frames.iter().map(VecDeque::len).sum();
        if count >= QUEUE_MESSAGES_MAX || self.bytes + message.len() > QUEUE_BYTES_MAX {
            return Err(Full);
        }
        let frame = frame(message);
        self.bytes += frame.len();
        self.frames[class.index()].push_back(frame);
        Ok(())
    }

    /// Gives frames of a class to `write` as long as it takes them whole. It takes bytes off the
    /// front of what it is given, and says whether it could take any.
    pub(super) fn drain(&mut self, class: Class, mut write: impl FnMut(&mut Bytes) -> bool) {
        let frames = &mut self.frames[class.index()];
        while let Some(front) = frames.front_mut() {
            let before = front.len();
            let could = write(front);
            self.bytes -= before - front.len();
            if front.is_empty() {
                frames.pop_front();
            }
            if !could {
                return;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    #[test]
    fn it_is_bounded_in_bytes_and_in_messages() {
        let mut queue = Queue::default();
        let long = vec![0; MESSAGE_MAX];
        let fits = (0..20).filter(|_| queue.push(Class::Calls, &long).is_ok()).count();
        assert_eq!(fits, 15, "lengths count too");
        queue.clear();
        let fits = (0..5000).filter(|_| queue.push(Class::Wants, b"x").is_ok()).count();
        assert_eq!(fits, QUEUE_MESSAGES_MAX);
        assert_eq!(queue.push(Class::Calls, b""), Err(Full), "both classes share the bound");
    }

    #[test]
    fn a_frame_that_was_taken_in_part_goes_on_where_it_stopped() {
        let mut queue = Queue::default();
        queue.push(Class::Calls, b"hello").unwrap();
        queue.push(Class::Calls, b"world").unwrap();
        let mut wire = Vec::new();
        let mut room = 7;
        loop {
            queue.drain(Class::Calls, |frame| {
                let taken = room.min(frame.len());
                wire.extend_from_slice(&frame[..taken]);
                frame.advance(taken);
                room -= taken;
                room > 0
            });
            if queue.is_empty() {
                break;
            }
            room = 7;
        }
        assert_eq!(wire, [&frame(b"hello")[..], &frame(b"world")[..]].concat());
        assert_eq!(queue.bytes, 0);
    }
}

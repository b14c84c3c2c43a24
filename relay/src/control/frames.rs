//! Messages on a stream: four bytes of length, big-endian, then the message.
//!
//! Each side of a connection opens three one-way streams: the first for the hello, then one for
//! each [`Class`], so that a large answer to a call does not hold up a small want.
//!
//! Invariants: a reader holds at most one message that is not whole.
//!
//! Not here: what is in a message.

use bytes::Bytes;

/// The longest message: a request of the API may be 64 KiB, its answer a few times that.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// What a message is for. Order is kept within a class, not between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Wants and what answers them: small, and media waits for them. Sent first.
    Wants,
    /// Requests of the API and their answers.
    Calls,
}

/// How many classes there are.
pub(super) const CLASSES: usize = 2;

impl Class {
    pub(super) const ALL: [Self; CLASSES] = [Self::Wants, Self::Calls];

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// The message as it goes onto the stream. It must be at most [`MESSAGE_MAX`] long.
pub(super) fn frame(message: &[u8]) -> Bytes {
    debug_assert!(message.len() <= MESSAGE_MAX);
    let mut bytes = Vec::with_capacity(LENGTH_LEN + message.len());
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.into()
}

/// A message is longer than any may be: the stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Cuts what arrives on one stream into messages.
#[derive(Debug)]
pub(super) struct FrameReader {
    partial: Vec<u8>,
    limit: usize,
}

impl FrameReader {
    /// Accepts messages of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { partial: Vec::new(), limit }
    }

    /// Takes the next bytes and hands out each message they make whole.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Vec<u8>),
    ) -> Result<(), TooLong> {
        loop {
            let missing = self.missing()?;
            let taken = missing.min(bytes.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() >= LENGTH_LEN && self.missing()? == 0 {
                // What was read as a length becomes the message: one copy for all of it.
                let mut message = std::mem::take(&mut self.partial);
                message.drain(..LENGTH_LEN);
                each(message);
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// How many bytes are missing from the length, or from the message.
    fn missing(&self) -> Result<usize, TooLong> {
        let Some(&length) = self.partial.first_chunk::<LENGTH_LEN>() else {
            return Ok(LENGTH_LEN - self.partial.len());
        };
        let length = u32::from_be_bytes(length) as usize;
        if length > self.limit {
            return Err(TooLong);
        }
        Ok(LENGTH_LEN + length - self.partial.len())
    }
}

const LENGTH_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_length_alone() {
        let mut reader = FrameReader::new(10);
        let mut seen = Vec::new();
        assert_eq!(reader.push(&[0, 0, 0, 10], |message| seen.push(message)), Ok(()));
        assert_eq!(reader.push(&[7; 10], |message| seen.push(message)), Ok(()));
        assert_eq!(reader.push(&[0, 0, 0], |message| seen.push(message)), Ok(()));
        assert_eq!(reader.push(&[11], |message| seen.push(message)), Err(TooLong));
        assert_eq!(seen, [[7; 10]]);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..50), 0..20),
            cuts in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            let mut reader = FrameReader::new(50);
            let (mut seen, mut rest) = (Vec::new(), &wire[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                prop_assert_eq!(reader.push(now, |message| seen.push(message)), Ok(()));
                rest = later;
            }
            prop_assert_eq!(seen, messages);
        }
    }
}

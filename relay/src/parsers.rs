//! Every parser of what other nodes send, by the bytes alone. The ways to them lead through
//! seals that a fuzzer does not break, so it takes this one.
//!
//! Not here: what accepted bytes mean.

use crate::control::parse_hello;
use crate::members::parse_body;

/// Whether the bytes are what a membership datagram may hold.
pub fn member_body(bytes: &[u8]) -> bool {
    parse_body(bytes)
}

/// Whether the bytes are a hello of a control connection.
pub fn hello(bytes: &[u8]) -> bool {
    parse_hello(bytes)
}

/// The messages that a stream of these bytes holds, read in pieces of this size (not 0); `None`
/// if one is longer than any may be.
pub fn messages(bytes: &[u8], piece: usize) -> Option<Vec<Vec<u8>>> {
    crate::control::parse_messages(bytes, piece)
}

//! SDP negotiation of one session: offers and answers both ways, on one transport.
//!
//! Invariants: an operation that fails changes nothing; m-lines never change their order, and
//! a mid names one of them; payload types and header extension ids are per m-line, and those
//! we choose ourselves mean one thing in all of BUNDLE; text of one client reaches another
//! only after it was understood.
//!
//! Not here: ICE, DTLS and media. Text comes in, text and [`Line`]s come out; nothing is
//! awaited and no clock is read.

mod accept;
mod answer;
mod codecs;
mod description;
mod error;
mod line;
mod negotiator;
mod offer;
mod palette;
mod parse;
mod read;
#[cfg(test)]
mod tests;
mod transport;
mod write;

pub use accept::{Rejected, RejectedBecause};
pub use answer::Role;
pub use codecs::{CodecSpec, Feedback, NegotiatedCodec, find};
pub use description::Direction;
pub use error::{BadRequest, BadText, BadTransport, SdpError};
pub use line::{DataLine, Line, LineKind, Receiving, SendSpec, Sending};
pub use negotiator::{Negotiator, Signaling};
pub use offer::Want;
pub use read::{OfferedLine, RemoteOffer};
pub use transport::{LocalTransport, RemoteTransport};

/// The longest SDP that is read. A browser's m-line takes 2 to 6 KiB: at 256 KiB a session has
/// about as many as [`MAX_LINES`] allows. More would let one request hold a shard for longer.
pub const MAX_BYTES: usize = 256 * 1024;

/// The most m-lines of a session. Browsers grow slow beyond a few dozen; each of ours costs
/// a few KiB of state and of every description.
pub const MAX_LINES: usize = 256;

/// The most attributes of one section. Browsers write up to 200.
const MAX_ATTRIBUTES: usize = 1024;

/// The longest line of text. The longest known ones carry H.265 parameter sets, about 600.
const MAX_TEXT_LINE: usize = 4096;

/// The longest mid and rid. Both travel in packets, where a one-byte header extension holds 16
/// (RFC 8285, 4.2); longer ones cost a two-byte header each, and nobody needs more than this.
pub const MAX_NAME: usize = 32;

/// The most simulcast layers of one m-line. Browsers send three.
const MAX_RIDS: usize = 8;

/// The most SSRCs of one m-line: layers, each with RTX and FEC, and some to spare.
const MAX_SSRCS: usize = 64;

/// The longest data channel message we take (RFC 8841, 6): what browsers take themselves.
const MAX_MESSAGE_SIZE: u64 = 262_144;

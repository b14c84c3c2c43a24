//! What a packet's payload says about itself: where a key frame starts, which picture it
//! belongs to, which redundant audio it carries.
//!
//! Invariants: only payload descriptors and the first bytes of a payload are read, since the rest
//! may be end-to-end encrypted; every parser takes arbitrary bytes and never panics; rewriting
//! is in place and never changes a length.
//!
//! Not here: RTP headers, the choice of layers, sequence numbers and timestamps.

pub mod dd;
pub mod keyframe;
pub mod picture;
pub mod red;
pub mod vp8;
pub mod vp9;

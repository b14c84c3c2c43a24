//! The codecs of the wire, as pure functions and small state machines: SRTP, RTP headers,
//! RTCP, payload descriptors, reception reports.
//!
//! Not here: who gets which packet (`switch`), sessions, sockets, clocks.

pub mod codec;
pub mod elements;
pub mod format;
pub mod receive;
pub mod replay;
pub mod rtcp;
pub mod rtp;
pub mod srtp;

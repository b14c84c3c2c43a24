//! Who gets which packet: tracks as they arrive (feeds), and pulls, which rewrite each packet
//! for one subscriber.
//!
//! Pure, and innocent of str0m, SDP, sockets and mail.

pub mod even;
pub mod feed;
pub mod history;
pub mod packet;
pub mod pull;
pub mod resend;

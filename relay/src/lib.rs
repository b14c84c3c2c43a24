//! How shardcast nodes find each other and carry tracks between them.
//!
//! Everything here is sans-IO: datagrams and time in, datagrams and events out. It knows nothing
//! of sockets, clocks, WebRTC or HTTP.

#![forbid(unsafe_code)]

pub mod control;
pub mod hub;
pub mod keys;
pub mod link;
pub mod members;
pub mod parsers;
pub mod replay;
pub mod seal;
pub mod wire;

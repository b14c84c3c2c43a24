//! The shards of a shardcast node.
//!
//! A shard is a pinned thread that owns its sessions outright. Everything above the rim
//! ([`io`], [`mesh`], [`shard`]) is pure: time and bytes are arguments, effects are data.
//!
//! Layers, from pure to rim: `media` (codecs of the wire: SRTP, RTCP, payload descriptors),
//! `switch` (who gets which packet), `session` (one PeerConnection; the only place that knows
//! str0m), `engine` (joins them, one turn at a time), `mesh` (shard to shard), `io` (the kernel).

pub mod cluster;
pub mod command;
pub mod counter;
pub mod engine;
pub mod histogram;
pub mod ids;
pub mod io;
pub mod limits;
pub mod mail;
pub mod media;
pub mod mesh;
pub mod meters;
pub mod outbox;
mod prefetch;
pub mod session;
pub mod shard;
pub mod slots;
pub mod snapshot;
pub mod switch;
#[cfg(test)]
mod testing;
pub mod wake;

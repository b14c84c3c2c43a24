//! The load generator: peers as browsers are, thousands in one process, and what they saw.
//!
//! Layers, from pure to rim: `media` (frames as libwebrtc makes them), `probe` (payloads that
//! prove order, loss, origin and latency), `peer` (one PeerConnection), `api` (how each kind of
//! server is asked), `scenario` (who joins when and does what), `report` (what came of it),
//! `real` (sockets, threads, HTTP, the clock).

#![forbid(unsafe_code)]

pub mod api;
pub mod compare;
pub mod conduct;
pub mod flags;
pub mod media;
pub mod peer;
pub mod probe;
pub mod real;
pub mod report;
pub mod scenario;

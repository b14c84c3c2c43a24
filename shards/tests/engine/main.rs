//! Whole engines in virtual time: several shards in one thread, str0m clients, a lossy network;
//! no socket and no clock.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod api;
mod changes;
mod client;
mod codecs;
mod gathering;
mod hub;
mod idle;
mod keyframes;
mod lifecycle;
mod media;
mod nodes;
mod offers;
mod padding;
mod red;
mod shards;
mod simulcast;
mod storm;
mod swarm;
mod waiting;
mod world;

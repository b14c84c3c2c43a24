//! Whole engines in virtual time: several shards in one thread, str0m clients, a lossy network;
//! no socket and no clock.

mod api;
mod client;
mod keyframes;
mod lifecycle;
mod media;
mod shards;
mod simulcast;
mod waiting;
mod world;

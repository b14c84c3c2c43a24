//! The node: what to run is read, checked and resolved here, then handed to [`boot`].
//!
//! In order: [`flags`] and [`config`] gather text, [`resolve`] turns it into a [`plan::Plan`]
//! with the help of [`cores`], [`addresses`] and [`tls`], [`check`] tries the plan on this
//! machine, [`boot`] runs it, [`drain`] ends it.
//!
//! Invariants: whatever can be wrong at start is wrong before the first shard wakes, and is one
//! sentence of [`start_error::StartError`].
//!
//! Not here: anything that knows a packet, a session or a request.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod apps;
pub mod banner;
pub mod boot;
pub mod check;
mod cluster;
pub mod config;
pub mod cores;
mod crew;
mod desk;
pub mod drain;
pub mod flags;
pub mod keygen;
pub mod log;
pub mod plan;
mod process;
pub mod resolve;
pub mod start_error;
pub mod tls;

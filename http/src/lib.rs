//! The HTTPS API of a node: HTTP/1.1 and TLS as byte machines, JSON, and the Realtime API's
//! words, served on a shard's executor.
//!
//! A request is two pure functions with a wait between: [`api::Api::receive`] turns it into an
//! answer or a command, the [`Desk`] answers the command, and `realtime::render` or
//! [`problem`] puts that answer into JSON.
//!
//! Invariants: only `serve` and `tls::{files, reload}` touch the operating system; everything
//! else takes bytes and instants and gives bytes. Every queue, buffer and wait has a bound in
//! [`limits`].
//!
//! Not here: sessions, packets, SDP; of this project only `shards::{command, ids, snapshot}` and
//! the histograms of the last are known.

#![forbid(unsafe_code)]

mod alarms;
pub mod api;
pub mod auth;
mod cluster;
pub mod conn;
mod demo;
mod desk;
pub mod limits;
pub mod metrics;
pub mod problem;
pub mod rate;
pub mod realtime;
pub mod request;
pub mod response;
pub mod route;
pub mod serve;
pub mod tally;
pub mod tls;

pub use auth::{Admin, App, Apps};
pub use desk::{Desk, NodeInfo, Process};
pub use limits::Timing;
pub use serve::{Drain, Port, Server};
pub use tls::{TlsConfig, TlsFiles};

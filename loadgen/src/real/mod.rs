//! The rim: sockets, threads, HTTP and the clock.
//!
//! `worker` moves packets, told so by `orders`; `asker` and `stalls` measure beside it, on
//! threads of their own.

pub mod asker;
pub mod clock;
pub mod http;
pub mod limits;
pub mod orders;
mod seats;
pub mod socket;
pub mod stalls;
pub mod worker;

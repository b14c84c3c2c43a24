//! The rim: sockets, threads, HTTP and the clock.

pub mod clock;
pub mod http;
pub mod limits;
pub mod orders;
mod seats;
pub mod socket;
pub mod worker;

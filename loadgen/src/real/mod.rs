//! The rim: sockets, HTTP and the clock.

pub mod http;

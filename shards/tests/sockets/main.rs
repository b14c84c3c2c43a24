//! Whole shards in real time: their executors, threads and sockets, on loopback; str0m clients.
//! Everything for both packet ports.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[allow(dead_code, reason = "the tests in virtual time use all of it")]
#[path = "../engine/client.rs"]
mod client;
mod goodbye;
mod media;
mod node;
mod peer;
mod strays;
mod survey;

/// The same tests for both packet ports.
macro_rules! on_both_ports {
    ($($test:ident)*) => {
        mod ring { $( #[test] fn $test() { super::$test(shards::io::port::PortKind::Ring); } )* }
        mod mmsg { $( #[test] fn $test() { super::$test(shards::io::port::PortKind::Mmsg); } )* }
    };
}
pub(crate) use on_both_ports;

//! What a receiver of RTP keeps per stream and per session in order to report, to ask for
//! repairs, and to know the publisher's clock.
//!
//! Invariants: sequence numbers of streams come extended to integers that do not wrap; time is an
//! argument; every state is bounded and reused, so a packet allocates nothing once warm; what is
//! to be sent comes out as plain data.
//!
//! Not here: RTP and RTCP bytes, sockets, who is told what.

pub mod clock;
pub mod nack;
pub mod report;
pub mod twcc;

#[cfg(test)]
mod testing;

//! Two links against each other in virtual time, over a network that does what it likes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod hostile;
mod life;
mod repair;
mod world;

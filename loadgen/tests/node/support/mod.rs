//! A node and peers as they are, for tests: the real server in this process, and str0m over
//! a real socket for each peer.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

pub(crate) mod node;
pub(crate) mod peer;

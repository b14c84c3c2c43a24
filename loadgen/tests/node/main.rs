//! The load generator against the real node.

mod realtime;
mod runs;
mod support;

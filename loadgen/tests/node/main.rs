//! The load generator against the real node.

mod interlude;
mod realtime;
mod runs;
mod support;

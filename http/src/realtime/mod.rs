//! The Realtime API's JSON: what comes in, what it means, what goes out.
//!
//! Invariants: tolerant of what clients send beside the point (no body, unknown fields, any
//! content type), strict on the type of every field that is read.
//!
//! Not here: paths and secrets; problems' words.

pub(crate) mod calls;
pub(crate) mod model;
pub(crate) mod render;

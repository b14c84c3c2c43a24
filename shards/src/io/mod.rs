//! The rim: everything that touches the kernel.

pub mod clock;

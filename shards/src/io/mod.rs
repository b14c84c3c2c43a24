//! The rim: everything that touches the kernel.

//! The shardcast node.
fn main() {}

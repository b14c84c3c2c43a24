//! `shardcast-loadgen`: see `--help`.

fn main() {}

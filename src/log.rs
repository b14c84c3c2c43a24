//! The log: tracing to stderr.
//!
//! Invariants: at `info` and below nothing is written by crates that are not ours unless it is a
//! warning, because their words are not bound by our promise to name no ids, addresses, session
//! descriptions or secrets above `debug`.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. A second call changes nothing.
pub fn start(level: LevelFilter) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    // Only a second start fails, and then the first one stands.
    let _ = tracing_subscriber::registry().with(lines).with(filter(level)).try_init();
}

fn filter(level: LevelFilter) -> Targets {
    let others = if level > LevelFilter::INFO { level } else { level.min(LevelFilter::WARN) };
    Targets::new().with_default(others).with_targets(OURS.map(|target| (target, level)))
}

const OURS: [&str; 4] = ["http", "relay", "shardcast", "shards"];

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn other_crates_only_warn_until_debug() {
        let info = filter(LevelFilter::INFO);
        assert!(info.would_enable("shards::engine", &Level::INFO));
        assert!(!info.would_enable("str0m::ice", &Level::INFO));
        assert!(info.would_enable("str0m::ice", &Level::WARN));
        assert!(filter(LevelFilter::DEBUG).would_enable("str0m::ice", &Level::DEBUG));
        assert!(!filter(LevelFilter::OFF).would_enable("shardcast", &Level::ERROR));
    }
}

//! The addresses an association was checked from: its ICE agent remembers each of them for
//! good, so their number and their rate are bounded.

use std::net::SocketAddr;
use std::time::Instant;

use crate::limits::{SOURCES_AT_ONCE, SOURCES_INTERVAL, SOURCES_PER_ASSOCIATION};

#[derive(Debug, Default)]
pub(super) struct Sources {
    known: Vec<SocketAddr>,
    /// When all that were spent will have grown back; each one spent moves it on.
    spent_until: Option<Instant>,
}

impl Sources {
    /// Whether a check from there may reach the agent.
    pub(super) fn admits(&self, source: SocketAddr, now: Instant) -> bool {
        if self.known.contains(&source) {
            return true;
        }
        let most = SOURCES_INTERVAL * (SOURCES_AT_ONCE - 1);
        let owed =
            self.spent_until.map_or_else(Default::default, |at| at.saturating_duration_since(now));
        self.known.len() < SOURCES_PER_ASSOCIATION && owed <= most
    }

    /// A check from there was authentic. Forged ones cost nothing, here as in the agent.
    pub(super) fn remember(&mut self, source: SocketAddr, now: Instant) {
        if !self.known.contains(&source) {
            self.known.push(source);
            let from = self.spent_until.map_or(now, |at| at.max(now));
            self.spent_until = Some(from + SOURCES_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    /// Checks from this many addresses of its own; how many were admitted.
    fn check(sources: &mut Sources, host: u8, ports: u16, now: Instant) -> usize {
        let check = |port| {
            let source = SocketAddr::from(([127, 0, 0, host], port));
            let admitted = sources.admits(source, now);
            if admitted {
                sources.remember(source, now);
            }
            admitted
        };
        (0..ports).map(check).filter(|admitted| *admitted).count()
    }

    #[test]
    fn new_addresses_are_bounded_in_rate_and_in_number() {
        let (mut sources, start) = (Sources::default(), start());
        let at_once = SOURCES_AT_ONCE as usize;
        assert_eq!(check(&mut sources, 1, 100, start), at_once);
        assert_eq!(check(&mut sources, 1, 100, start), at_once, "known ones always pass");
        assert_eq!(check(&mut sources, 2, 100, start), 0);
        assert_eq!(check(&mut sources, 2, 100, start + SOURCES_INTERVAL * 3), 3);
        let admitted = (3..100).map(|host| {
            let now = start + SOURCES_INTERVAL * 1000 * u32::from(host);
            check(&mut sources, host, 100, now)
        });
        assert_eq!(admitted.sum::<usize>(), SOURCES_PER_ASSOCIATION - at_once - 3);
    }
}

//! The network paths of a session, and which of them its media leaves by.
//!
//! A path is (the client's address, our address) on which a STUN request was answered. Media
//! goes to the best path that the client nominated; SRTP alone never moves it, because an
//! address proves nothing until ICE has checked it.
//!
//! With an ICE-lite server, browsers nominate aggressively: every check on every pair carries
//! USE-CANDIDATE. Following the last one would make media flap between interfaces, so a live
//! path of higher priority keeps it, and equals (a NAT that rebinds) move to the newest.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::limits::PATHS_PER_SESSION;

/// A path unheard for this long loses its priority: browsers check a path in use every 2.5 s.
const STALE: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy)]
struct Path {
    remote: SocketAddr,
    local: SocketAddr,
    priority: u32,
    nominated: bool,
    checked_at: Instant,
}

#[derive(Debug, Default)]
pub struct Paths {
    paths: Vec<Path>,
    selected: Option<usize>,
}

/// What a check changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// The remote address was not known before.
    pub new_remote: bool,
    /// An address that was forgotten to make room.
    pub forgotten: Option<SocketAddr>,
}

impl Paths {
    /// Notes a STUN request that was answered with success.
    pub fn checked(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        priority: u32,
        nominated: bool,
        now: Instant,
    ) -> Checked {
        let mut outcome = Checked::default();
        let at = match self.paths.iter().position(|p| p.remote == remote && p.local == local) {
            Some(at) => at,
            None => {
                outcome.new_remote = !self.paths.iter().any(|p| p.remote == remote);
                outcome.forgotten = self.make_room();
                let path = Path { remote, local, priority, nominated: false, checked_at: now };
                self.paths.push(path);
                self.paths.len() - 1
            }
        };
        let path = &mut self.paths[at];
        path.priority = priority;
        path.checked_at = now;
        path.nominated |= nominated;
        if nominated && self.deserves(at, now) {
            self.selected = Some(at);
        }
        outcome
    }

    /// A check repeated the last one of the path in use: it is alive, and nothing else changes.
    pub fn rechecked(&mut self, now: Instant) {
        if let Some(selected) = self.selected {
            self.paths[selected].checked_at = now;
        }
    }

    /// Where media goes and which of our addresses it leaves from.
    pub fn selected(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.selected.map(|at| (self.paths[at].remote, self.paths[at].local))
    }

    /// The address of ours on which `remote` is known.
    pub fn local_for(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let path = self.paths.iter().filter(|p| p.remote == remote).max_by_key(|p| p.checked_at);
        path.map(|p| p.local)
    }

    pub fn knows(&self, remote: SocketAddr) -> bool {
        self.paths.iter().any(|p| p.remote == remote)
    }

    pub fn remotes(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.paths.iter().map(|p| p.remote)
    }

    /// Every path competes afresh: after an ICE restart the client may have moved for good.
    pub fn restart(&mut self) {
        for path in &mut self.paths {
            path.nominated = false;
            path.priority = 0;
        }
    }

    /// The client has left all paths but those of `remote`, and uses that one.
    pub fn keep_only(&mut self, remote: SocketAddr) {
        self.selected = self.paths.iter().position(|path| path.remote == remote);
    }

    fn deserves(&self, at: usize, now: Instant) -> bool {
        let Some(selected) = self.selected.map(|selected| &self.paths[selected]) else {
            return true;
        };
        self.paths[at].priority >= selected.priority
            || now.saturating_duration_since(selected.checked_at) > STALE
    }

    /// Forgets the path that was quiet longest and is not in use; tells the address when no
    /// other path shares it.
    fn make_room(&mut self) -> Option<SocketAddr> {
        if self.paths.len() < PATHS_PER_SESSION {
            return None;
        }
        let oldest = (0..self.paths.len())
            .filter(|&at| Some(at) != self.selected)
            .min_by_key(|&at| self.paths[at].checked_at)?;
        let gone = self.paths.remove(oldest).remote;
        self.selected = self.selected.map(|at| if at > oldest { at - 1 } else { at });
        (!self.knows(gone)).then_some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn media_stays_on_the_better_live_path_and_follows_a_rebind() {
        let start = start();
        let mut paths = Paths::default();
        let ours = address(3478);
        paths.checked(address(1), ours, 100, true, start);
        paths.checked(address(2), ours, 50, true, start);
        assert_eq!(paths.selected(), Some((address(1), ours)), "a worse path does not steal media");
        paths.checked(address(3), ours, 100, true, start + Duration::from_secs(1));
        assert_eq!(paths.selected(), Some((address(3), ours)), "a rebound NAT is followed at once");
        paths.checked(address(2), ours, 50, true, start + Duration::from_secs(6));
        assert_eq!(paths.selected(), Some((address(2), ours)), "a silent path gives way");
    }

    #[test]
    fn an_unnominated_path_is_known_but_not_used() {
        let now = start();
        let mut paths = Paths::default();
        assert!(paths.checked(address(1), address(9), 1, false, now).new_remote);
        assert_eq!(paths.selected(), None);
        assert_eq!(paths.local_for(address(1)), Some(address(9)));
    }

    #[test]
    fn paths_are_bounded_and_the_selected_one_survives() {
        let start = start();
        let mut paths = Paths::default();
        paths.checked(address(1), address(9), 9, true, start);
        for n in 0..200u16 {
            let now = start + Duration::from_millis(u64::from(n));
            paths.checked(address(1000 + n), address(9), 1, false, now);
        }
        assert_eq!(paths.remotes().count(), PATHS_PER_SESSION);
        assert_eq!(paths.selected(), Some((address(1), address(9))));
    }
}

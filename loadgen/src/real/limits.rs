//! What this process may have of sockets: ports and open files, one of each for a peer.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Peers a process can have: ports of one address.
pub const PEERS_MAX: usize = 28_000;

/// For HTTP connections, threads and files.
const SPARE: u64 = 512;

/// Raises the limit for so many peers, or says what to do.
pub fn allow_files(peers: usize) -> Result<(), String> {
    let allowed = peers_allowed(peers)?;
    if allowed >= peers {
        return Ok(());
    }
    let (needed, allowed) = (files(peers), files(allowed));
    Err(format!(
        "{peers} peers need {needed} open files, but {allowed} are allowed: ulimit -n {needed}"
    ))
}

/// Raises the limit for so many peers, or as far as it goes: for how many it is then enough.
pub fn peers_allowed(wanted: usize) -> Result<usize, String> {
    let limit = |error| format!("the limit of open files cannot be read: {error}");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(limit)?;
    let needed = files(wanted);
    if soft >= needed {
        return Ok(wanted);
    }
    // As root the hard limit can be raised too.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    let now = getrlimit(Resource::RLIMIT_NOFILE).map_err(limit)?.0;
    debug_assert!(raised.is_ok() || now == soft, "what was refused changed nothing");
    Ok(usize::try_from(now.saturating_sub(SPARE)).unwrap_or(usize::MAX).min(wanted))
}

/// Open files that so many peers need.
pub fn files(peers: usize) -> u64 {
    (peers as u64).saturating_add(SPARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_had_as_far_as_they_go() {
        assert_eq!((peers_allowed(1), allow_files(1)), (Ok(1), Ok(())));
        // More than any kernel allows, whoever asks.
        let too_many = u32::MAX as usize;
        let allowed = peers_allowed(too_many).unwrap();
        assert!((1..too_many).contains(&allowed), "{allowed}");
        let error = allow_files(too_many).unwrap_err();
        assert!(error.contains(&format!("but {} are allowed", files(allowed))), "{error}");
    }
}

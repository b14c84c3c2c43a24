//! This process's limit of open files: each peer has a socket.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// For HTTP connections, threads and files.
const SPARE: u64 = 512;

/// Raises the limit for so many peers, or says what to do.
pub fn allow_files(peers: usize) -> Result<(), String> {
    let needed = peers as u64 + SPARE;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| format!("the limit of open files cannot be read: {error}"))?;
    if soft >= needed {
        return Ok(());
    }
    // As root the hard limit can be raised too.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
    raised.map_err(|_| {
        format!(
            "{peers} peers need {needed} open files, but {soft} are allowed: ulimit -n {needed}"
        )
    })
}

//! Noticing that the certificate's files changed.
//!
//! Invariants: a pair is read only after both files were the same at two looks in a row, since
//! tools replace them one after the other; what cannot be used is reported once and changes
//! nothing.
//!
//! Not here: how often to look; the caller does it, off the shards, as it blocks.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{TlsConfig, TlsError, TlsFiles};

/// What tells one version of a file from another: replaced by rename, its inode differs even
/// within one tick of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub modified_ns: i128,
    pub inode: u64,
    pub len: u64,
}

/// Watches the files of one configuration.
#[derive(Debug)]
pub struct Reloader {
    files: TlsFiles,
    config: TlsConfig,
    watch: Watch,
}

impl Reloader {
    /// For a configuration just loaded from `files`.
    pub fn new(files: TlsFiles, config: TlsConfig) -> Self {
        let watch = Watch::new(stamps(&files));
        Self { files, config, watch }
    }

    /// Looks at the files. `Some(Ok)`: another certificate is served from now on, with the end
    /// of its validity; `Some(Err)`: the files changed and cannot be used.
    pub fn check(&mut self) -> Option<Result<Option<u64>, TlsError>> {
        if !self.watch.poll(stamps(&self.files)) {
            return None;
        }
        let replaced = self.files.load().and_then(|identity| {
            let expires_at = identity.expires_at();
            self.config.replace(identity).map(|()| expires_at)
        });
        Some(replaced)
    }
}

/// Decides when to read, from looks at the files alone.
#[derive(Debug)]
struct Watch {
    /// Of the version read last.
    read: Stamps,
    /// Of the look before.
    seen: Stamps,
}

/// Chain and key; `None` while a file is not there.
type Stamps = [Option<Stamp>; 2];

impl Watch {
    fn new(stamps: Stamps) -> Self {
        Self { read: stamps, seen: stamps }
    }

    /// Whether to read the files now.
    fn poll(&mut self, stamps: Stamps) -> bool {
        let steady = stamps == self.seen;
        self.seen = stamps;
        if !steady || stamps == self.read || stamps.contains(&None) {
            return false;
        }
        self.read = stamps;
        true
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    [&files.chain, &files.key].map(|path| {
        let meta = fs::metadata(path).ok()?;
        let modified_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Some(Stamp { modified_ns, inode: meta.ino(), len: meta.len() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_read_once_when_it_came_to_rest() {
        let mut watch = Watch::new(at(1, 1));
        assert!(!watch.poll(at(1, 1)), "nothing changed");
        assert!(!watch.poll(at(2, 1)), "the key may follow");
        assert!(!watch.poll(at(2, 2)), "it did");
        assert!(watch.poll(at(2, 2)), "both at rest");
        assert!(!watch.poll(at(2, 2)), "read once");
    }

    #[test]
    fn a_missing_file_is_waited_for() {
        let mut watch = Watch::new(at(1, 1));
        let gone = [None, at(1, 1)[1]];
        assert!(!watch.poll(gone) && !watch.poll(gone));
        assert!(!watch.poll(at(3, 1)));
        assert!(watch.poll(at(3, 1)));
    }

    fn at(chain: i128, key: i128) -> Stamps {
        [chain, key].map(|modified_ns| Some(Stamp { modified_ns, inode: 1, len: 1 }))
    }
}

//! `shardcast keygen`: a new cluster key.
//!
//! Invariants: a file that is there is never written over; nobody but its owner may read the new
//! one; the key is wiped from memory.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use relay::keys;
use zeroize::Zeroizing;

use crate::flags::KeygenFlags;
use crate::start_error::{BadRights, BadSetting, StartError};

/// Makes a key, and writes it where it is wanted.
///
/// # Errors
///
/// If there is no randomness, or the file is there already or cannot be written.
pub fn run(flags: &KeygenFlags) -> Result<(), StartError> {
    let mut random = Zeroizing::new([0; 33]);
    getrandom::fill(&mut *random).map_err(|error| BadRights::Machine {
        what: "read random bytes",
        cause: error.to_string(),
    })?;
    let mut line = keys::generate(&random);
    line.push('\n');
    match &flags.out {
        Some(path) => write(path, &line),
        None => std::io::stdout().write_all(line.as_bytes()).map_err(|error| {
            let problem = format!("the key cannot be written to stdout ({error}): give --out FILE");
            BadSetting::Contradiction { problem }.into()
        }),
    }
}

fn write(path: &Path, line: &str) -> Result<(), StartError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|error| {
        let cause = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it is there already: choose another name".into(),
            _ => error.to_string(),
        };
        BadSetting::Unwritable { place: "--out", path: path.to_owned(), cause }.into()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_new_private_and_a_key() {
        let path = std::env::temp_dir().join(format!("shardcast-keygen-{}", std::process::id()));
        let flags = KeygenFlags { out: Some(path.clone()) };
        run(&flags).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let again = run(&flags).unwrap_err().to_string();
        let kept = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(keys::ClusterKeys::parse(&text).is_ok());
        assert_eq!(mode & 0o777, 0o600);
        assert!(again.contains("is there already"), "{again}");
        assert_eq!(kept, text);
    }
}

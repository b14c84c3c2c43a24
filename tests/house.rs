//! The house rules that a machine can keep: who may import whom, how long a file may be, and
//! that each says what it is for.

use std::fs;
use std::path::{Path, PathBuf};

/// What a layer of `shards` may not name. The order of the README's map, from pure to rim.
const LAYERS: [(&str, &[&str]); 9] = [
    ("relay/src", &["shards::", "str0m", "glommio", "libc", "UdpSocket", "Instant::now"]),
    (
        "shards/src/media",
        &[
            "crate::switch",
            "crate::session",
            "crate::engine",
            "crate::mail",
            "crate::mesh",
            "crate::io",
            "str0m::",
            "glommio",
        ],
    ),
    (
        "shards/src/switch",
        &[
            "crate::session::sdp",
            "crate::session::transport",
            "crate::engine",
            "crate::mail",
            "crate::mesh",
            "crate::io",
            "str0m",
            "glommio",
        ],
    ),
    (
        "shards/src/session",
        &["crate::engine", "crate::mail", "crate::mesh", "crate::io", "glommio"],
    ),
    (
        "shards/src/engine",
        &["crate::mesh", "crate::io", "crate::shard", "str0m", "glommio", "libc"],
    ),
    (
        "http/src",
        &[
            "shards::engine",
            "shards::session",
            "shards::media",
            "shards::switch",
            "shards::io",
            "str0m",
        ],
    ),
    (
        "loadgen/src/media",
        &["crate::peer", "crate::api", "crate::real", "crate::scenario", "str0m", "tokio", "nix::"],
    ),
    ("loadgen/src/peer", &["crate::real", "crate::scenario", "crate::conduct", "tokio", "nix::"]),
    (
        "loadgen/src/api",
        &["crate::real", "crate::scenario", "crate::conduct", "tokio::net", "tokio::time", "str0m"],
    ),
];

/// Longer, and a file does two things.
const LINES: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "{} has Rust files", folder.display());
    files
}

/// The lines of a file that are code of the product: no comments, and nothing from its unit
/// tests on.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.starts_with("//"))
}

fn breaches(text: &str, forbidden: &[&str]) -> Vec<(usize, String)> {
    let names =
        |line: &str| forbidden.iter().find(|name| line.contains(**name)).map(|n| (*n).to_owned());
    product_lines(text).filter_map(|(at, line)| Some((at, names(line)?))).collect()
}

#[test]
fn no_layer_knows_the_ones_below_it() {
    let mut found = Vec::new();
    for (folder, forbidden) in LAYERS {
        for file in rust_files(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            // Helpers of unit tests are compiled for these only.
            if name.contains("tests") || name.ends_with("/testing.rs") {
                continue;
            }
            found.extend(
                breaches(&text, forbidden)
                    .into_iter()
                    .map(|b| format!("{name}:{} names {}", b.0, b.1)),
            );
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_breach_is_found() {
    let text =
        "//! crate::io in a comment\nuse crate::io::port;\n#[cfg(test)]\nuse crate::io::clock;\n";
    assert_eq!(breaches(text, &["crate::io"]), [(2, "crate::io".to_owned())]);
}

#[test]
fn every_file_says_what_it_is_for_and_does_one_thing() {
    let mut found = Vec::new();
    for folder in ["src", "shards", "http", "relay", "loadgen", "benches", "tests"] {
        for file in rust_files(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            let lines = text.lines().count();
            if lines > LINES {
                found.push(format!("{name} has {lines} lines"));
            }
            if !text.starts_with("//!") {
                found.push(format!("{name} does not begin with what it is for"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

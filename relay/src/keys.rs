//! The keys that make a process a node of the cluster: whoever holds one is trusted with
//! everything a node can do.
//!
//! A key file is text, one key per line, the first one is sent with and all are accepted:
//!
//! ```text
//! # made by `shardcast keygen`
//! shardcast-key-1:<kid, 2 hex digits>:<key, 64 hex digits>
//! ```
//!
//! To change the key of a running cluster: add the new one as last line everywhere, make it the
//! first line everywhere, remove the old one everywhere. Each step may take as long as it likes.
//!
//! Invariants: there is at least one key; no two have one kid; keys are wiped when dropped; no
//! `Debug` shows one. No key is used as it is: each use has its own derived key, so that what
//! one use leaks is worth nothing to another.
//!
//! Not here: reading the file; who makes the random bytes.

use std::fmt;

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

/// A derived key. Wiped when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// Keys in one file. A change of keys needs two; more than a few are a file that nobody tidies.
pub const KEYS_MAX: usize = 8;

/// What a key is derived for. The text is part of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Membership datagrams.
    Gossip,
    /// The Ed25519 key by which nodes know each other on control connections.
    NodeTls,
    /// ICE passwords that any node can verify.
    Ice,
    /// The P-256 key of a DTLS certificate that all nodes share.
    DtlsP256,
    /// Stateless resets, and the tokens of address validation.
    Reset,
    /// Tags in session ids.
    SessionTag,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Gossip => b"shardcast gossip",
            Self::NodeTls => b"shardcast node-tls",
            Self::Ice => b"shardcast ice",
            Self::DtlsP256 => b"shardcast dtls-p256",
            Self::Reset => b"shardcast reset",
            Self::SessionTag => b"shardcast session-tag",
        }
    }
}

/// The keys of a cluster, in the order of the file.
#[derive(Clone)]
pub struct ClusterKeys {
    keys: Vec<ClusterKey>,
}

impl ClusterKeys {
    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// The first line that is no key, with what to do about it. Never shows what the line holds.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys: Vec<ClusterKey> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |problem| KeysError { line: index + 1, problem };
            let key = ClusterKey::parse(line).map_err(at)?;
            if keys.iter().any(|other| other.kid == key.kid) {
                return Err(at(KeysProblem::SameKid(key.kid)));
            }
            if keys.len() == KEYS_MAX {
                return Err(at(KeysProblem::TooMany));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeysError { line: text.lines().count(), problem: KeysProblem::Empty });
        }
        Ok(Self { keys })
    }

    /// The key that we send with.
    pub fn sending(&self) -> &ClusterKey {
        &self.keys[0]
    }

    /// The accepted key of this number.
    pub fn get(&self, kid: u8) -> Option<&ClusterKey> {
        self.keys.iter().find(|key| key.kid == kid)
    }

    /// All accepted keys, the sending one first.
    pub fn iter(&self) -> impl Iterator<Item = &ClusterKey> {
        self.keys.iter()
    }
}

impl fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| key.kid)).finish()
    }
}

/// The line of a new key, for the user's file: 32 bytes of key, one byte of kid.
pub fn generate(random: &Zeroizing<[u8; 33]>) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 + 1 + 64));
    line.push_str(PREFIX);
    push_hex(&mut line, random[32]);
    line.push(':');
    for &byte in &random[..32] {
        push_hex(&mut line, byte);
    }
    line
}

/// One key of the cluster.
#[derive(Clone)]
pub struct ClusterKey {
    kid: u8,
    bytes: Secret,
}

impl ClusterKey {
    /// Its number, which travels in clear.
    pub fn kid(&self) -> u8 {
        self.kid
    }

    /// The key of one purpose, by HKDF-SHA256 (RFC 5869).
    pub fn derive(&self, purpose: Purpose) -> Secret {
        expand(&self.bytes, purpose.label())
    }

    fn parse(line: &str) -> Result<Self, KeysProblem> {
        let rest = line.strip_prefix(PREFIX).ok_or(KeysProblem::NotAKey)?;
        let (kid, hex) = rest.split_once(':').ok_or(KeysProblem::NotAKey)?;
        let kid = match kid.as_bytes() {
            &[high, low] => nibble(high).zip(nibble(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let kid = kid.ok_or(KeysProblem::BadKid)?;
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(KeysProblem::BadLength(digits.len()));
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let both = nibble(pair[0]).zip(nibble(pair[1])).ok_or(KeysProblem::BadDigit)?;
            *byte = both.0 << 4 | both.1;
        }
        if bytes.iter().all(|&byte| byte == bytes[0]) {
            return Err(KeysProblem::Guessable);
        }
        Ok(Self { kid, bytes })
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// HKDF-SHA256 from a key of 32 bytes.
pub(crate) fn expand(key: &Secret, info: &[u8]) -> Secret {
    let mut out = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
        .extract(&**key)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *out))
        .expect("32 bytes are what HKDF-SHA256 gives for its own length");
    out
}

/// Why a key file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysError {
    /// Counted from 1.
    pub line: usize,
    pub problem: KeysProblem,
}

/// What is wrong with one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysProblem {
    BadDigit,
    BadKid,
    /// So many digits instead of 64.
    BadLength(usize),
    Empty,
    Guessable,
    NotAKey,
    SameKid(u8),
    TooMany,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster keys, line {}: ", self.line)?;
        match self.problem {
            KeysProblem::BadDigit => {
                f.write_str("the key has a character that is no hex digit; copy the line again")
            }
            KeysProblem::BadKid => f.write_str(
                "the part after `shardcast-key-1:` must be 2 hex digits; copy the line again",
            ),
            KeysProblem::BadLength(digits) => {
                write!(f, "the key has {digits} hex digits instead of 64; copy the line again")
            }
            KeysProblem::Empty => f.write_str("there is no key; make one with `shardcast keygen`"),
            KeysProblem::Guessable => {
                f.write_str("the key is one byte repeated; make one with `shardcast keygen`")
            }
            KeysProblem::NotAKey => f.write_str(
                "a line must be `shardcast-key-1:<2 hex digits>:<64 hex digits>`, a comment \
                 after `#`, or empty; make a key with `shardcast keygen`",
            ),
            KeysProblem::SameKid(kid) => {
                write!(f, "two keys have the number {kid:02x}; make the newer one again")
            }
            KeysProblem::TooMany => {
                write!(f, "there are more than {KEYS_MAX} keys; remove those no node sends with")
            }
        }
    }
}

impl std::error::Error for KeysError {}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn push_hex(line: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    line.push(char::from(DIGITS[usize::from(byte >> 4)]));
    line.push(char::from(DIGITS[usize::from(byte & 15)]));
}

const PREFIX: &str = "shardcast-key-1:";
const SALT: &[u8] = b"shardcast cluster key 1";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(kid: u8, seed: u8) -> String {
        let mut random = Zeroizing::new([0; 33]);
        for (at, byte) in random.iter_mut().enumerate() {
            *byte = seed.wrapping_add(at as u8);
        }
        random[32] = kid;
        generate(&random).to_string()
    }

    #[test]
    fn a_generated_line_is_a_key_file() {
        let keys = ClusterKeys::parse(&line(0x1f, 1)).unwrap();
        assert_eq!(keys.sending().kid(), 0x1f);
        assert_eq!(keys.sending().bytes[..3], [1, 2, 3]);
    }

    #[test]
    fn the_first_key_sends_and_all_are_found_by_number() {
        let text = format!("# a comment\r\n\r\n  {}  \r\n{}\n", line(7, 1), line(3, 9));
        let keys = ClusterKeys::parse(&text).unwrap();
        assert_eq!(keys.sending().kid(), 7);
        assert_eq!(keys.iter().map(ClusterKey::kid).collect::<Vec<_>>(), [7, 3]);
        assert_eq!(keys.get(3).unwrap().bytes[0], 9);
        assert!(keys.get(4).is_none());
    }

    #[test]
    fn each_purpose_and_each_key_gives_another_secret() {
        let purposes = [
            Purpose::Gossip,
            Purpose::NodeTls,
            Purpose::Ice,
            Purpose::DtlsP256,
            Purpose::Reset,
            Purpose::SessionTag,
        ];
        let mut seen = Vec::new();
        for seed in [1, 2] {
            let keys = ClusterKeys::parse(&line(0, seed)).unwrap();
            for purpose in purposes {
                let secret = keys.sending().derive(purpose);
                assert_eq!(secret, keys.sending().derive(purpose), "it is a function");
                assert!(!seen.contains(&*secret));
                seen.push(*secret);
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_line_and_a_remedy() {
        let good = line(1, 1);
        let same = line(1, 5);
        let many: String = (0..9).map(|kid| line(kid, kid + 1) + "\n").collect();
        let cases = [
            (String::new(), 0, KeysProblem::Empty),
            ("# only\n# words\n".into(), 2, KeysProblem::Empty),
            ("hello".into(), 1, KeysProblem::NotAKey),
            (good.replace("key-1", "key-2"), 1, KeysProblem::NotAKey),
            (good.replace(":01:", ":1:"), 1, KeysProblem::BadKid),
            (good.replace(":01:", ":0x:"), 1, KeysProblem::BadKid),
            (format!("#\n{}", &good[..good.len() - 1]), 2, KeysProblem::BadLength(63)),
            (format!("{good}0"), 1, KeysProblem::BadLength(65)),
            (format!("{}é", &good[..good.len() - 2]), 1, KeysProblem::BadDigit),
            (format!("{PREFIX}00:{}", "0".repeat(64)), 1, KeysProblem::Guessable),
            (format!("{good}\n{same}"), 2, KeysProblem::SameKid(1)),
            (many, 9, KeysProblem::TooMany),
        ];
        for (text, line, problem) in cases {
            let error = ClusterKeys::parse(&text).unwrap_err();
            assert_eq!(error, KeysError { line, problem });
            let shown = error.to_string();
            assert!(shown.contains(&format!("line {line}")) && shown.contains(';'), "{shown}");
            assert!(!shown.contains(&good[19..40]), "an error shows a key");
        }
    }

    #[test]
    fn debug_shows_numbers_of_keys_only() {
        let keys = ClusterKeys::parse(&line(0x2a, 0xb0)).unwrap();
        assert_eq!(format!("{keys:?} {:?}", keys.sending()), "[42] ClusterKey { kid: 42, .. }");
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_file_or_an_error(text in "(shardcast-key-1:)?[ -~\n:é]{0,90}") {
            if let Err(error) = ClusterKeys::parse(&text) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}

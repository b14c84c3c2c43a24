//! ICE credentials whose user name fragment is an address: shard and slot first, then random.
//!
//! `A` `BCDE` `random…`: one character for the shard's low six bits and one for its high bits,
//! four for the 24-bit slot, eight random ones. The first character alone steers a STUN
//! request in the kernel.

use crate::ids::ShardId;

/// ICE characters (RFC 8839 §5.4), in the order that gives each its six bits.
pub const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const ADDRESS_LEN: usize = 6;
const RANDOM_LEN: usize = 8;
/// 24 characters of six bits: 144 bits, above the 128 that RFC 8839 §5.4 asks for.
const PASSWORD_LEN: usize = 24;

/// Our side's ICE user name fragment and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Fresh credentials for the session in `slot` of `shard`; `random` yields secure bytes.
    pub fn new(shard: ShardId, slot: u32, random: &mut dyn FnMut() -> u64) -> Self {
        let mut ufrag = String::with_capacity(ADDRESS_LEN + RANDOM_LEN);
        let push = |text: &mut String, six: u64| {
            text.push(char::from(ALPHABET[(six & 63) as usize]));
        };
        push(&mut ufrag, u64::from(shard.0));
        push(&mut ufrag, u64::from(shard.0) >> 6);
        for shift in [18, 12, 6, 0] {
            push(&mut ufrag, u64::from(slot) >> shift);
        }
        let mut pwd = String::with_capacity(PASSWORD_LEN);
        for (text, len) in [(&mut ufrag, RANDOM_LEN), (&mut pwd, PASSWORD_LEN)] {
            for _ in 0..len {
                push(text, random());
            }
        }
        Self { ufrag, pwd }
    }
}

/// The shard and slot a local ufrag addresses; `None` for a ufrag that is none of ours.
pub fn address(ufrag: &str) -> Option<(ShardId, u32)> {
    let bytes = ufrag.as_bytes();
    if bytes.len() != ADDRESS_LEN + RANDOM_LEN {
        return None;
    }
    let six = |at: usize| ALPHABET.iter().position(|&c| c == bytes[at]).map(|bits| bits as u32);
    let shard = six(0)? | six(1)? << 6;
    let slot = six(2)? << 18 | six(3)? << 12 | six(4)? << 6 | six(5)?;
    Some((ShardId(u8::try_from(shard).ok()?), slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ufrag_says_where_its_session_lives() {
        let mut n = 0;
        let mut random = || {
            n += 7;
            n
        };
        for (shard, slot) in [(0, 0), (63, 1), (64, 77), (254, 0xff_ffff)] {
            let credentials = Credentials::new(ShardId(shard), slot, &mut random);
            assert_eq!(address(&credentials.ufrag), Some((ShardId(shard), slot)));
            assert_eq!(credentials.pwd.len(), PASSWORD_LEN);
        }
        assert_eq!(address("short"), None);
        assert_eq!(address("::::::::::::::"), None);
    }
}

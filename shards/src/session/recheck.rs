//! A Binding request that repeats the last one: what keeps the path of a connected session
//! alive, 0.4 times a second for as long as it lasts, and tells nothing new but a transaction.
//!
//! It is answered here, byte for byte as the ICE agent would (RFC 8489 §6.3.1, RFC 8445 §7.3),
//! without asking it and without allocating. Whatever differs in anything from the last check
//! that the agent answered (another path, role, priority, nomination, unusual attributes) is
//! the agent's, and so is what is wrong: nothing is refused here.
//!
//! Not here: what a check means for the session (`transport`, the engine).

use std::net::SocketAddr;

use crc::{CRC_32_ISO_HDLC, Crc};
use hmac::{Hmac, Mac};
use sha1::Sha1;

/// A Binding request of a controlling agent with the attributes that ICE asks for, each once,
/// and optional ones from the range that anybody may take (RFC 8489 §18.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    bytes: &'a [u8],
    transaction: &'a [u8; 12],
    terms: Terms<'a>,
    nominates: bool,
    /// Where MESSAGE-INTEGRITY begins; it covers what is before.
    signed: usize,
    integrity: &'a [u8; 20],
}

/// What two checks of one path have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms<'a> {
    username: &'a [u8],
    priority: [u8; 4],
    tie_breaker: [u8; 8],
}

impl<'a> Request<'a> {
    /// `None` for everything else, malformed or merely unusual.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, mut rest) = bytes.split_first_chunk::<HEADER>()?;
        let (start, transaction) = header.split_last_chunk::<12>()?;
        let len = u16::try_from(rest.len()).ok()?;
        let [high, low] = len.to_be_bytes();
        if start != [0, 1, high, low, 0x21, 0x12, 0xa4, 0x42] {
            return None;
        }
        let (mut username, mut priority, mut tie_breaker) = (None, None, None);
        let mut nominates = false;
        loop {
            let at = bytes.len() - rest.len();
            let (kind, value) = attribute(&mut rest)?;
            match kind {
                USERNAME => once(&mut username, value)?,
                PRIORITY => once(&mut priority, value.try_into().ok()?)?,
                ICE_CONTROLLING => once(&mut tie_breaker, value.try_into().ok()?)?,
                USE_CANDIDATE if value.is_empty() && !nominates => nominates = true,
                MESSAGE_INTEGRITY => {
                    let terms = Terms {
                        username: username?,
                        priority: priority?,
                        tie_breaker: tie_breaker?,
                    };
                    is_fingerprinted(bytes, rest).then_some(())?;
                    let integrity = value.try_into().ok()?;
                    return Some(Self {
                        bytes,
                        transaction,
                        terms,
                        nominates,
                        signed: at,
                        integrity,
                    });
                }
                // Comprehension-optional, and free for all: browsers tell of their networks.
                0xc000.. => {}
                _ => return None,
            }
        }
    }

    /// The ufrags, the receiver's first.
    pub fn username(&self) -> &'a [u8] {
        self.terms.username
    }

    fn is_signed_with(&self, key: &Hmac<Sha1>) -> bool {
        let [_, _, _, _, covered @ ..] = &self.bytes[..self.signed] else { return false };
        // RFC 8489 §14.5: the length as if MESSAGE-INTEGRITY were the last attribute.
        let len = (self.signed - HEADER + INTEGRITY) as u16;
        let mac = key.clone().chain_update([0, 1]).chain_update(len.to_be_bytes());
        mac.chain_update(covered).verify_slice(self.integrity).is_ok()
    }
}

/// The last check that the agent answered, as far as a repetition of it must be the same.
#[derive(Debug)]
pub(super) struct Answered {
    source: SocketAddr,
    local: SocketAddr,
    username_len: u8,
    username: [u8; USERNAME_LEN],
    priority: [u8; 4],
    tie_breaker: [u8; 8],
    nominated: bool,
    key: Hmac<Sha1>,
}

impl Answered {
    /// `None` if it is not of a kind that is answered here.
    pub(super) fn new(
        check: &[u8],
        source: SocketAddr,
        local: SocketAddr,
        password: &str,
    ) -> Option<Self> {
        let request = Request::parse(check)?;
        let Terms { username, priority, tie_breaker } = request.terms;
        let mut kept = [0; USERNAME_LEN];
        kept.get_mut(..username.len())?.copy_from_slice(username);
        Some(Self {
            source,
            local,
            username_len: username.len() as u8,
            username: kept,
            priority,
            tie_breaker,
            nominated: request.nominates,
            key: Hmac::new_from_slice(password.as_bytes()).ok()?,
        })
    }

    /// The answer, if the request is authentic and says nothing that the agent does not know.
    pub(super) fn again(
        &self,
        request: &Request<'_>,
        source: SocketAddr,
        local: SocketAddr,
    ) -> Option<Reply> {
        let terms = Terms {
            username: &self.username[..usize::from(self.username_len)],
            priority: self.priority,
            tie_breaker: self.tie_breaker,
        };
        let known = (self.source, self.local) == (source, local)
            && request.terms == terms
            && (self.nominated || !request.nominates);
        (known && request.is_signed_with(&self.key))
            .then(|| Reply::success(request.transaction, source, &self.key))
    }
}

/// A Binding success response.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    bytes: [u8; REPLY],
    len: u8,
}

impl Reply {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn success(transaction: &[u8; 12], mapped: SocketAddr, key: &Hmac<Sha1>) -> Self {
        let mut writer = Writer { bytes: [0; REPLY], len: 0 };
        writer.put(&[1, 1, 0, 0]);
        writer.put(&COOKIE);
        writer.put(transaction);
        // RFC 8489 §14.2: against the cookie, and for IPv6 the transaction after it.
        let mask: [u8; 16] =
            std::array::from_fn(|at| if at < 4 { COOKIE[at] } else { transaction[at - 4] });
        let [high, low] = mapped.port().to_be_bytes();
        let port = [high ^ COOKIE[0], low ^ COOKIE[1]];
        match mapped {
            SocketAddr::V4(v4) => {
                writer.put(&[0, 0x20, 0, 8, 0, 1]);
                writer.put(&port);
                let octets = v4.ip().octets();
                writer.put(&std::array::from_fn::<u8, 4, _>(|at| octets[at] ^ mask[at]));
            }
            SocketAddr::V6(v6) => {
                writer.put(&[0, 0x20, 0, 20, 0, 2]);
                writer.put(&port);
                let octets = v6.ip().octets();
                writer.put(&std::array::from_fn::<u8, 16, _>(|at| octets[at] ^ mask[at]));
            }
        }
        writer.announce(INTEGRITY);
        let mac = key.clone().chain_update(writer.written()).finalize().into_bytes();
        writer.put(&[0, 8, 0, 20]);
        writer.put(&mac);
        writer.announce(FINGERPRINTED);
        let fingerprint = fingerprint(writer.written());
        writer.put(&FINGERPRINT_HEAD);
        writer.put(&fingerprint);
        Self { bytes: writer.bytes, len: writer.len as u8 }
    }
}

struct Writer {
    bytes: [u8; REPLY],
    len: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Sets the length to what is written and so much more.
    fn announce(&mut self, more: usize) {
        let len = (self.len - HEADER + more) as u16;
        self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Takes an attribute off the front.
fn attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let (&[kind, kind_low, len, len_low], after) = rest.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([len, len_low]));
    let value = after.get(..len)?;
    *rest = after.get(len.next_multiple_of(4)..)?;
    Some((u16::from_be_bytes([kind, kind_low]), value))
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Whether `rest`, the end of the message, is its right FINGERPRINT.
fn is_fingerprinted(bytes: &[u8], rest: &[u8]) -> bool {
    let before = &bytes[..bytes.len() - rest.len()];
    rest.len() == FINGERPRINTED
        && rest.starts_with(&FINGERPRINT_HEAD)
        && rest[4..] == fingerprint(before)
}

/// RFC 8489 §14.7.
fn fingerprint(before: &[u8]) -> [u8; 4] {
    (CRC.checksum(before) ^ 0x5354_554e).to_be_bytes()
}

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
/// Bytes of MESSAGE-INTEGRITY, and of FINGERPRINT, with their heads.
const INTEGRITY: usize = 24;
const FINGERPRINTED: usize = 8;
/// With XOR-MAPPED-ADDRESS of IPv6.
const REPLY: usize = HEADER + 24 + INTEGRITY + FINGERPRINTED;
const FINGERPRINT_HEAD: [u8; 4] = [0x80, 0x28, 0, 4];

/// Two ufrags and a colon. Browsers' have 4 to 8 characters, ours 14; longer ones, which RFC
/// 8839 §5.4 allows, are left to the agent.
const USERNAME_LEN: usize = 48;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const ICE_CONTROLLING: u16 = 0x802a;

#[cfg(test)]
mod tests;

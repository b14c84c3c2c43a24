//! Authentication and opening of what we receive.
//!
//! Invariants: replay state changes only after authentication; a refused packet leaves no
//! plaintext behind.
//!
//! Not here: the RTP index and its replay window, which belong to the inbound stream
//! (`media::replay`).

use super::cipher::Cipher;
use super::keys::MasterKey;
use super::senders::Senders;
use super::{Profile, RTCP_CLEAR_LEN, RTCP_E_FLAG, RTCP_INDEX_LEN};
use std::fmt;

/// The inbound keys of one session.
pub struct Opener {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    senders: Senders,
}

/// The packet was not made with the peer's key, or not under this index.
///
/// Also a packet too short to tell, and one whose plaintext `out` cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

/// Why an SRTCP packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcpFault {
    /// Too short to be SRTCP under this profile.
    Truncated,
    /// Seen before, or too old to tell.
    Replayed,
    Unauthentic,
    /// The E flag is not set. DTLS-SRTP profiles encrypt SRTCP (RFC 5764 §4.1.2).
    Unencrypted,
}

impl Opener {
    pub fn new(master: &MasterKey) -> Self {
        Self::from_ciphers(
            master.profile(),
            Cipher::new(&master.derive_rtp()),
            Cipher::new(&master.derive_rtcp()),
        )
    }

    /// Opens the payload of `packet` into `out` and returns its length, RTP padding included.
    /// `header_len` and `ssrc` are from its header, `index` is the estimate for its sequence
    /// number; the caller checks that index against its replay window before and commits it
    /// after.
    #[inline]
    pub fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
        out: &mut [u8],
    ) -> Result<usize, Unauthentic> {
        self.rtp.open_rtp(packet, header_len, ssrc, index, out)
    }

    /// Opens `packet` into `out` as a plain compound and returns its length.
    pub fn open_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, RtcpFault> {
        let tag_len = self.profile.tag_len();
        let plain_len = packet
            .len()
            .checked_sub(RTCP_INDEX_LEN + tag_len)
            .filter(|&len| len >= RTCP_CLEAR_LEN)
            .ok_or(RtcpFault::Truncated)?;
        // The index word is last under GCM (RFC 7714 §9.2) and before the tag under HMAC
        // (RFC 3711 §3.4).
        let word_at = match self.profile {
            Profile::AeadAes256Gcm | Profile::AeadAes128Gcm => plain_len + tag_len,
            Profile::Aes128CmSha1_80 => plain_len,
        };
        let word = read_u32(packet, word_at);
        if word & RTCP_E_FLAG == 0 {
            return Err(RtcpFault::Unencrypted);
        }
        let index = word & !RTCP_E_FLAG;
        let ssrc = read_u32(packet, 4);
        if !self.senders.is_new(ssrc, index) {
            return Err(RtcpFault::Replayed);
        }
        let opened = self.rtcp.open_rtcp(packet, ssrc, index, out);
        let len = opened.map_err(|Unauthentic| RtcpFault::Unauthentic)?;
        self.senders.commit(ssrc, index);
        Ok(len)
    }

    fn from_ciphers(profile: Profile, rtp: Cipher, rtcp: Cipher) -> Self {
        Self { profile, rtp, rtcp, senders: Senders::default() }
    }

    #[cfg(test)]
    pub(super) fn from_session_keys(keys: &super::keys::SessionKeys) -> Self {
        Self::from_ciphers(keys.profile, Cipher::new(keys), Cipher::new(keys))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl fmt::Display for Unauthentic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SRTP authentication failed")
    }
}

impl std::error::Error for Unauthentic {}

impl fmt::Display for RtcpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "SRTCP packet too short",
            Self::Replayed => "SRTCP packet replayed",
            Self::Unauthentic => "SRTCP authentication failed",
            Self::Unencrypted => "SRTCP packet not encrypted",
        })
    }
}

impl std::error::Error for RtcpFault {}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

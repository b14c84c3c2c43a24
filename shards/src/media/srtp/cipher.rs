//! The choice between the two families of ciphers, made once per session key.
//!
//! Not here: the ciphers.

use super::cm::Cm;
use super::gcm::Gcm;
use super::keys::SessionKeys;
use super::open::Unauthentic;
use super::{Profile, RTP_INDEX_BITS};

/// A session key of SRTP or SRTCP, ready for use.
#[expect(clippy::large_enum_variant, reason = "the large one is the one that is used")]
pub(super) enum Cipher {
    /// Inline: every packet of a modern browser comes this way.
    Gcm(Gcm),
    /// Boxed: it takes four times as long anyway, and inline it would widen every session.
    Cm(Box<Cm>),
}

impl Cipher {
    pub(super) fn new(keys: &SessionKeys) -> Self {
        match keys.profile {
            Profile::AeadAes256Gcm | Profile::AeadAes128Gcm => Self::Gcm(Gcm::new(keys)),
            Profile::Aes128CmSha1_80 => Self::Cm(Box::new(Cm::new(keys))),
        }
    }

    #[inline]
    pub(super) fn seal_rtp(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        ssrc: u32,
        index: u64,
    ) -> usize {
        // RFC 3711 §3.3.1: past 48 bits the index would wrap, and the nonce repeat.
        assert!(index >> RTP_INDEX_BITS == 0, "RTP index out of range");
        match self {
            Self::Gcm(gcm) => gcm.seal_rtp(out, header_len, payload, ssrc, index),
            Self::Cm(cm) => cm.seal_rtp(out, header_len, payload, ssrc, index),
        }
    }

    #[inline]
    pub(super) fn seal_rtp_in_place(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload_len: usize,
        ssrc: u32,
        index: u64,
    ) -> usize {
        assert!(index >> RTP_INDEX_BITS == 0, "RTP index out of range");
        match self {
            Self::Gcm(gcm) => gcm.seal_rtp_in_place(out, header_len, payload_len, ssrc, index),
            Self::Cm(cm) => cm.seal_rtp_in_place(out, header_len, payload_len, ssrc, index),
        }
    }

    #[inline]
    pub(super) fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
        out: &mut [u8],
    ) -> Result<usize, Unauthentic> {
        if index >> RTP_INDEX_BITS != 0 {
            return Err(Unauthentic);
        }
        match self {
            Self::Gcm(gcm) => gcm.open_rtp(packet, header_len, ssrc, index, out),
            Self::Cm(cm) => cm.open_rtp(packet, header_len, ssrc, index, out),
        }
    }

    pub(super) fn seal_rtcp(&self, packet: &[u8], out: &mut [u8], ssrc: u32, index: u32) -> usize {
        match self {
            Self::Gcm(gcm) => gcm.seal_rtcp(packet, out, ssrc, index),
            Self::Cm(cm) => cm.seal_rtcp(packet, out, ssrc, index),
        }
    }

    pub(super) fn open_rtcp(
        &self,
        packet: &[u8],
        ssrc: u32,
        index: u32,
        out: &mut [u8],
    ) -> Result<usize, Unauthentic> {
        match self {
            Self::Gcm(gcm) => gcm.open_rtcp(packet, ssrc, index, out),
            Self::Cm(cm) => cm.open_rtcp(packet, ssrc, index, out),
        }
    }
}

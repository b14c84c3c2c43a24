//! AES-128 counter mode with HMAC-SHA1-80 for SRTP and SRTCP (RFC 3711 §4.1.1, §4.2.1).
//!
//! The AES key schedule and the two keyed HMAC states are computed once per session; a packet
//! works on a copy of the latter.
//!
//! Not here: which index a packet gets, replay.

use super::keys::SessionKeys;
use super::open::Unauthentic;
use super::{RTCP_CLEAR_LEN, RTCP_E_FLAG, RTCP_INDEX_LEN};
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

/// One session key, authentication key and salt.
pub(super) struct Cm {
    schedule: aes::Aes128Enc,
    auth: Hmac<Sha1>,
    /// The 112-bit salt, already in place above the 16-bit block counter.
    salt: Zeroizing<u128>,
}

pub(super) const TAG_LEN: usize = 10;

impl Cm {
    pub(super) fn new(keys: &SessionKeys) -> Self {
        let mut salt = Zeroizing::new([0; 16]);
        salt[..14].copy_from_slice(&*keys.salt);
        Self {
            schedule: aes::Aes128Enc::new(keys.key[..16].into()),
            auth: <Hmac<Sha1> as Mac>::new_from_slice(&*keys.auth)
                .expect("HMAC takes a key of any length"),
            salt: Zeroizing::new(u128::from_be_bytes(*salt)),
        }
    }

    pub(super) fn seal_rtp(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        ssrc: u32,
        index: u64,
    ) -> usize {
        let end = header_len + payload.len();
        self.keystream(ssrc, index)
            .apply_keystream_b2b(payload, &mut out[header_len..end])
            .expect("both sides have the payload's length");
        self.tag_rtp(out, end, index)
    }

    pub(super) fn seal_rtp_in_place(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload_len: usize,
        ssrc: u32,
        index: u64,
    ) -> usize {
        let end = header_len + payload_len;
        self.keystream(ssrc, index).apply_keystream(&mut out[header_len..end]);
        self.tag_rtp(out, end, index)
    }

    pub(super) fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
        out: &mut [u8],
    ) -> Result<usize, Unauthentic> {
        let end = packet.len().checked_sub(TAG_LEN).ok_or(Unauthentic)?;
        let (signed, tag) = packet.split_at(end);
        let text = signed.get(header_len..).ok_or(Unauthentic)?;
        let out = out.get_mut(..text.len()).ok_or(Unauthentic)?;
        self.rtp_mac(signed, index).verify_truncated_left(tag).map_err(|_| Unauthentic)?;
        self.keystream(ssrc, index).apply_keystream_b2b(text, out).map_err(|_| Unauthentic)?;
        Ok(text.len())
    }

    pub(super) fn seal_rtcp(&self, packet: &[u8], out: &mut [u8], ssrc: u32, index: u32) -> usize {
        let (clear, text) = packet.split_at(RTCP_CLEAR_LEN);
        let signed_len = packet.len() + RTCP_INDEX_LEN;
        out[..RTCP_CLEAR_LEN].copy_from_slice(clear);
        self.keystream(ssrc, u64::from(index))
            .apply_keystream_b2b(text, &mut out[RTCP_CLEAR_LEN..packet.len()])
            .expect("both sides have the text's length");
        out[packet.len()..signed_len].copy_from_slice(&(RTCP_E_FLAG | index).to_be_bytes());
        // RFC 3711 §3.4: the tag covers the E flag and the index and comes last.
        let (signed, tag) = out[..signed_len + TAG_LEN].split_at_mut(signed_len);
        let mac = self.auth.clone().chain_update(&*signed).finalize().into_bytes();
        tag.copy_from_slice(&mac[..TAG_LEN]);
        signed_len + TAG_LEN
    }

    /// `out` receives the whole plain compound.
    pub(super) fn open_rtcp(
        &self,
        packet: &[u8],
        ssrc: u32,
        index: u32,
        out: &mut [u8],
    ) -> Result<usize, Unauthentic> {
        let signed_len = packet.len().checked_sub(TAG_LEN).ok_or(Unauthentic)?;
        let len = signed_len.checked_sub(RTCP_INDEX_LEN).ok_or(Unauthentic)?;
        let (signed, tag) = packet.split_at(signed_len);
        let text = signed.get(RTCP_CLEAR_LEN..len).ok_or(Unauthentic)?;
        let out = out.get_mut(..len).ok_or(Unauthentic)?;
        let mac = self.auth.clone().chain_update(signed);
        mac.verify_truncated_left(tag).map_err(|_| Unauthentic)?;
        let (head, plain) = out.split_at_mut(RTCP_CLEAR_LEN);
        head.copy_from_slice(&signed[..RTCP_CLEAR_LEN]);
        self.keystream(ssrc, u64::from(index))
            .apply_keystream_b2b(text, plain)
            .map_err(|_| Unauthentic)?;
        Ok(len)
    }

    /// RFC 3711 §4.1.1: (salt · 2^16) XOR (SSRC · 2^64) XOR (index · 2^16).
    fn keystream(&self, ssrc: u32, index: u64) -> Keystream<'_> {
        let iv = *self.salt ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16;
        let core = ctr::CtrCore::inner_iv_init(&self.schedule, &iv.to_be_bytes().into());
        StreamCipherCoreWrapper::from_core(core)
    }

    /// RFC 3711 §4.2: the header, the encrypted payload, then the rollover counter, which is
    /// not sent.
    fn rtp_mac(&self, signed: &[u8], index: u64) -> Hmac<Sha1> {
        let rollovers = (index >> 16) as u32;
        self.auth.clone().chain_update(signed).chain_update(rollovers.to_be_bytes())
    }

    fn tag_rtp(&self, out: &mut [u8], end: usize, index: u64) -> usize {
        let mac = self.rtp_mac(&out[..end], index).finalize().into_bytes();
        out[end..end + TAG_LEN].copy_from_slice(&mac[..TAG_LEN]);
        end + TAG_LEN
    }
}

type Keystream<'a> =
    StreamCipherCoreWrapper<ctr::CtrCore<&'a aes::Aes128Enc, ctr::flavors::Ctr32BE>>;

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;
    use crate::media::srtp::Profile;

    #[test]
    fn keystream_matches_rfc_3711_b2() {
        let mut keys = SessionKeys {
            profile: Profile::Aes128CmSha1_80,
            key: Zeroizing::new([0; 32]),
            auth: Zeroizing::new([0; 20]),
            salt: Zeroizing::new([0; 14]),
        };
        keys.key[..16].copy_from_slice(&hex("2B7E151628AED2A6ABF7158809CF4F3C"));
        keys.salt.copy_from_slice(&hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"));
        let mut stream = vec![0; 0xFF02 * 16];
        Cm::new(&keys).keystream(0, 0).apply_keystream(&mut stream);
        let first = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
                     41E95B3BB0A2E8DD477901E4FCA894C0";
        let last = "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE
                    6A2CC3787889374FBEB4C81B17BA6C44";
        assert_eq!(stream[..48], hex(first));
        assert_eq!(stream[0xFEFF * 16..], hex(last));
    }
}

//! AES-GCM for SRTP and SRTCP (RFC 7714), on AWS-LC's AEAD interface.
//!
//! AWS-LC is called directly because its safe Rust wrapper only seals in place, which costs
//! a copy of every payload for every subscriber. The context lives inside [`Gcm`], so a
//! packet touches one contiguous run of cache lines.
//!
//! Invariants: every pointer handed to C comes from a slice whose length is passed along.
//!
//! Not here: which index a packet gets, replay. All
//! `unsafe` under `media` is in this file.

use super::keys::SessionKeys;
use super::open::Unauthentic;
use super::{Profile, RTCP_CLEAR_LEN, RTCP_E_FLAG, RTCP_INDEX_LEN};
use aws_lc_sys as aws;
use std::mem::MaybeUninit;
use std::ptr;

/// One session key with its salt. The salt comes first so that building the nonce and
/// entering the context are one forward walk.
#[repr(C)]
pub(super) struct Gcm {
    /// The 96-bit salt, as the low bits of a big-endian number.
    salt: u128,
    context: aws::EVP_AEAD_CTX,
}

pub(super) const TAG_LEN: usize = 16;

impl Gcm {
    pub(super) fn new(keys: &SessionKeys) -> Self {
        let mut salt = [0; 16];
        salt[4..].copy_from_slice(&keys.salt[..12]);
        let key = &keys.key[..keys.profile.key_len()];
        let mut context = MaybeUninit::<aws::EVP_AEAD_CTX>::zeroed();
        // SAFETY: the algorithm getters return pointers to statics; `context` is writable
        // memory of the right type; `key` is live for its length and copied by the callee.
        let done = unsafe {
            let algorithm = match keys.profile {
                Profile::AeadAes256Gcm => aws::EVP_aead_aes_256_gcm(),
                Profile::AeadAes128Gcm | Profile::Aes128CmSha1_80 => aws::EVP_aead_aes_128_gcm(),
            };
            aws::EVP_AEAD_CTX_init(
                context.as_mut_ptr(),
                algorithm,
                key.as_ptr(),
                key.len(),
                TAG_LEN,
                ptr::null_mut(),
            )
        };
        assert_eq!(done, 1, "AES-GCM takes 16 and 32 byte keys");
        // SAFETY: initialised by the call above, which succeeded. An AES-GCM context keeps all
        // its state inline and holds no pointer into itself (AWS-LC copies it by assignment),
        // so it may move from here on.
        Self { salt: u128::from_be_bytes(salt), context: unsafe { context.assume_init() } }
    }

    /// Seals `payload` behind the header that is already in `out[..header_len]`.
    #[inline]
    pub(super) fn seal_rtp(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        ssrc: u32,
        index: u64,
    ) -> usize {
        let len = header_len + payload.len() + TAG_LEN;
        // RFC 7714 §9.2: the header is the associated data, the payload is encrypted.
        let (header, body) = out[..len].split_at_mut(header_len);
        let (text, tag) = body.split_at_mut(payload.len());
        self.seal(self.nonce(ssrc, index), header, Some(payload), text, tag);
        len
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
        let len = header_len + payload_len + TAG_LEN;
        let (header, body) = out[..len].split_at_mut(header_len);
        let (text, tag) = body.split_at_mut(payload_len);
        self.seal(self.nonce(ssrc, index), header, None, text, tag);
        len
    }

    pub(super) fn open_rtp(
        &self,
        packet: &[u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
        out: &mut [u8],
    ) -> Result<usize, Unauthentic> {
        let (header, body) = packet.split_at_checked(header_len).ok_or(Unauthentic)?;
        let text_len = body.len().checked_sub(TAG_LEN).ok_or(Unauthentic)?;
        let (text, tag) = body.split_at(text_len);
        let out = out.get_mut(..text_len).ok_or(Unauthentic)?;
        self.open(self.nonce(ssrc, index), header, text, tag, out)?;
        Ok(text_len)
    }

    pub(super) fn seal_rtcp(&self, packet: &[u8], out: &mut [u8], ssrc: u32, index: u32) -> usize {
        let (clear, text) = packet.split_at(RTCP_CLEAR_LEN);
        let len = packet.len() + TAG_LEN + RTCP_INDEX_LEN;
        let (head, rest) = out[..len].split_at_mut(RTCP_CLEAR_LEN);
        let (cipher, rest) = rest.split_at_mut(text.len());
        let (tag, trailer) = rest.split_at_mut(TAG_LEN);
        let word = (RTCP_E_FLAG | index).to_be_bytes();
        head.copy_from_slice(clear);
        trailer.copy_from_slice(&word);
        let nonce = self.nonce(ssrc, u64::from(index));
        self.seal(nonce, &rtcp_associated_data(clear, word), Some(text), cipher, tag);
        len
    }

    /// `out` receives the whole plain compound.
    pub(super) fn open_rtcp(
        &self,
        packet: &[u8],
        ssrc: u32,
        index: u32,
        out: &mut [u8],
    ) -> Result<usize, Unauthentic> {
        let (clear, rest) = packet.split_at_checked(RTCP_CLEAR_LEN).ok_or(Unauthentic)?;
        let text_len = rest.len().checked_sub(TAG_LEN + RTCP_INDEX_LEN).ok_or(Unauthentic)?;
        let (text, rest) = rest.split_at(text_len);
        let (tag, _trailer) = rest.split_at(TAG_LEN);
        let len = RTCP_CLEAR_LEN + text_len;
        let (head, plain) = out.get_mut(..len).ok_or(Unauthentic)?.split_at_mut(RTCP_CLEAR_LEN);
        let associated = rtcp_associated_data(clear, (RTCP_E_FLAG | index).to_be_bytes());
        self.open(self.nonce(ssrc, u64::from(index)), &associated, text, tag, plain)?;
        head.copy_from_slice(clear);
        Ok(len)
    }

    /// RFC 7714 §8.1 and §9.1: (0 ‖ SSRC ‖ index) XOR salt. An SRTCP index is padded to the
    /// width of an RTP index, so both are this one expression.
    #[inline]
    fn nonce(&self, ssrc: u32, index: u64) -> [u8; 16] {
        let nonce = (u128::from(ssrc) << super::RTP_INDEX_BITS | u128::from(index)) ^ self.salt;
        nonce.to_be_bytes()
    }

    /// Seals `plain` into `text`, or `text` in place. The first four bytes of `nonce` are not
    /// part of it.
    #[inline]
    fn seal(
        &self,
        nonce: [u8; 16],
        aad: &[u8],
        plain: Option<&[u8]>,
        text: &mut [u8],
        tag: &mut [u8],
    ) {
        let input = match plain {
            Some(plain) => {
                assert_eq!(plain.len(), text.len());
                plain.as_ptr()
            }
            None => text.as_ptr(),
        };
        let mut tag_len = 0;
        // SAFETY: the context is initialised; `text`, `tag`, `aad` and the last 12 bytes of
        // `nonce` are live slices passed with their lengths. `input` is readable for the length
        // of `text` by the match above, and either is `text` or cannot overlap it, which are
        // the two cases AWS-LC allows.
        let done = unsafe {
            aws::EVP_AEAD_CTX_seal_scatter(
                &self.context,
                text.as_mut_ptr(),
                tag.as_mut_ptr(),
                &mut tag_len,
                tag.len(),
                nonce.as_ptr().add(4),
                12,
                input,
                text.len(),
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        // It can only fail on lengths that no datagram has, and then it wiped the output.
        assert!(done == 1 && tag_len == TAG_LEN, "AES-GCM refused to seal a datagram");
    }

    #[inline]
    fn open(
        &self,
        nonce: [u8; 16],
        aad: &[u8],
        text: &[u8],
        tag: &[u8],
        out: &mut [u8],
    ) -> Result<(), Unauthentic> {
        assert_eq!(out.len(), text.len());
        // SAFETY: the context is initialised; every pointer comes from a live slice passed with
        // its length, and `out` is as long as `text`, which it cannot overlap.
        let done = unsafe {
            aws::EVP_AEAD_CTX_open_gather(
                &self.context,
                out.as_mut_ptr(),
                nonce.as_ptr().add(4),
                12,
                text.as_ptr(),
                text.len(),
                tag.as_ptr(),
                tag.len(),
                aad.as_ptr(),
                aad.len(),
            )
        };
        // On failure AWS-LC has wiped `out`.
        if done == 1 { Ok(()) } else { Err(Unauthentic) }
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        // SAFETY: the context is initialised and not used again; it owns nothing but its bytes,
        // which are plain data of the given size.
        unsafe {
            aws::EVP_AEAD_CTX_cleanup(&mut self.context);
            aws::OPENSSL_cleanse((&raw mut self.context).cast(), size_of::<aws::EVP_AEAD_CTX>());
        }
    }
}

/// RFC 7714 §9.2 and §9.3: the clear header, then the word with the E flag and the index.
fn rtcp_associated_data(clear: &[u8], word: [u8; 4]) -> [u8; RTCP_CLEAR_LEN + RTCP_INDEX_LEN] {
    let mut data = [0; RTCP_CLEAR_LEN + RTCP_INDEX_LEN];
    data[..RTCP_CLEAR_LEN].copy_from_slice(clear);
    data[RTCP_CLEAR_LEN..].copy_from_slice(&word);
    data
}

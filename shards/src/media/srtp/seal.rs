//! Protection of what we send.
//!
//! Invariants: an SRTCP index is used once and sealing stops when they are used up; RTP
//! indexes are checked against repetition in debug builds.
//!
//! Not here: the sequence numbers and rollover counters of outbound streams.

use super::cipher::Cipher;
use super::keys::MasterKey;
use super::{Profile, RTCP_CLEAR_LEN, RTCP_E_FLAG, RTCP_INDEX_LEN};
use crate::prefetch::prefetch;
use std::fmt;

/// The outbound keys of one session.
///
/// A (key, SSRC, index) must be sealed once, ever: see the module. Every SSRC we send on has
/// a counter of its own that only goes up, and a packet sent again goes out under a new index
/// (RTX, RFC 4588), never under the old one.
///
/// The RTP key comes first, from the start of a cache line on, and is all that
/// [`seal_rtp`](Self::seal_rtp) touches.
#[repr(C, align(64))]
pub struct Sealer {
    rtp: Cipher,
    rtp_overhead: usize,
    rtcp_index: u32,
    profile: Profile,
    rtcp: Cipher,
    #[cfg(debug_assertions)]
    ledger: super::ledger::Ledger,
}

impl Sealer {
    pub fn new(master: &MasterKey) -> Self {
        Self {
            rtp: Cipher::new(&master.derive_rtp()),
            rtp_overhead: master.profile().tag_len(),
            rtcp_index: 0,
            profile: master.profile(),
            rtcp: Cipher::new(&master.derive_rtcp()),
            #[cfg(debug_assertions)]
            ledger: Default::default(),
        }
    }

    /// How much longer a sealed RTP packet is than its header and payload.
    #[inline]
    pub fn rtp_overhead(&self) -> usize {
        self.rtp_overhead
    }

    /// How much longer a sealed compound is than a plain one.
    pub fn rtcp_overhead(&self) -> usize {
        self.rtp_overhead + RTCP_INDEX_LEN
    }

    /// Seals `payload` into `out[header_len..]`, behind the finished header that is in
    /// `out[..header_len]`, and returns the length of the datagram. `index` is the rollover
    /// counter above the 16 bits of the sequence number in the header.
    ///
    /// # Panics
    /// If `out` has no room for the payload and [`rtp_overhead`](Self::rtp_overhead) more, or
    /// `index` exceeds 48 bits. In debug builds, if (`ssrc`, `index`) was sealed before.
    #[inline]
    pub fn seal_rtp(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        ssrc: u32,
        index: u64,
    ) -> usize {
        #[cfg(debug_assertions)]
        self.ledger.enter(ssrc, index);
        self.rtp.seal_rtp(out, header_len, payload, ssrc, index)
    }

    /// As [`seal_rtp`](Self::seal_rtp), for a payload that is in its place already.
    #[inline]
    pub fn seal_rtp_in_place(
        &self,
        out: &mut [u8],
        header_len: usize,
        payload_len: usize,
        ssrc: u32,
        index: u64,
    ) -> usize {
        #[cfg(debug_assertions)]
        self.ledger.enter(ssrc, index);
        self.rtp.seal_rtp_in_place(out, header_len, payload_len, ssrc, index)
    }

    /// Seals a plain compound into `out` and returns the length of the datagram, or `None`
    /// when the key's SRTCP indexes are used up and it must not seal any more.
    ///
    /// # Panics
    /// If the compound is shorter than its first header, or `out` has no room for it and
    /// [`rtcp_overhead`](Self::rtcp_overhead) more.
    pub fn seal_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        assert!(packet.len() >= RTCP_CLEAR_LEN, "an RTCP compound has a header and a sender");
        // RFC 3711 §3.2.1 and §9.2: 2^31 packets per key, then a new key or silence.
        if self.rtcp_index & RTCP_E_FLAG != 0 {
            return None;
        }
        let index = self.rtcp_index;
        self.rtcp_index += 1;
        let ssrc = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        Some(self.rtcp.seal_rtcp(packet, out, ssrc, index))
    }

    /// Asks the CPU to fetch the RTP key, to be called some 100 ns before it is needed. With
    /// thousands of subscribers the keys do not stay in the cache by themselves.
    #[inline]
    pub fn prefetch(&self) {
        prefetch((&raw const self.rtp).cast(), 0..Self::HOT);
    }

    /// How many bytes from the start [`seal_rtp`](Self::seal_rtp) touches.
    pub(crate) const HOT: usize = size_of::<Cipher>();

    #[cfg(test)]
    pub(super) fn from_session_keys(keys: &super::keys::SessionKeys, rtcp_index: u32) -> Self {
        Self {
            rtp: Cipher::new(keys),
            rtp_overhead: keys.profile.tag_len(),
            rtcp_index,
            profile: keys.profile,
            rtcp: Cipher::new(keys),
            #[cfg(debug_assertions)]
            ledger: Default::default(),
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("profile", &self.profile).finish_non_exhaustive()
    }
}

const _: () = assert!(Sealer::HOT <= 640, "the hot key of a session has grown");

//! SRTP and SRTCP (RFC 3711, RFC 7714) on keys exported from a DTLS handshake (RFC 5764).
//!
//! [`KeyingMaterial`] splits what DTLS exports into one master key per direction; a
//! [`Sealer`] protects what we send, an [`Opener`] checks and opens what we receive. Each
//! holds expanded key schedules only, and sealing or opening a packet never allocates.
//!
//! Invariants:
//! - A (key, SSRC, index) seals one packet, ever: a second one would give away the keystream
//!   and, under GCM, the authentication key. RTP indexes are the caller's, who must never
//!   repeat one; SRTCP indexes are the [`Sealer`]'s own and run out rather than wrap.
//! - Nothing that failed authentication is written where a caller could take it for plaintext.
//! - Keys are never shown by `Debug`. Master keys, session keys and GCM schedules are wiped
//!   when their owner is dropped; what `cm` expands is not, for want of support in its crates.
//!
//! Not here: RTP index estimation and the RTP replay window (`media::replay`), MKI, key
//! derivation rates other than 0, unencrypted SRTCP, header extension encryption: none of
//! them is negotiated by DTLS-SRTP as browsers speak it.

mod cipher;
mod cm;
mod gcm;
mod keys;
#[cfg(debug_assertions)]
mod ledger;
mod open;
mod profile;
mod seal;
mod senders;
#[cfg(test)]
mod tests;

pub use keys::{KeyingMaterial, MasterKey};
pub use open::{Opener, RtcpFault, Unauthentic};
pub use profile::{Profile, UnknownProfile};
pub use seal::Sealer;

/// The part of an RTCP compound that stays in the clear: the first packet's header and its
/// sender SSRC (RFC 3711 §3.4).
const RTCP_CLEAR_LEN: usize = 8;
/// The E flag and the SRTCP index, at or near the end of every SRTCP packet (RFC 3711 §3.4).
const RTCP_INDEX_LEN: usize = 4;
/// "This packet is encrypted", in the word that carries the SRTCP index.
const RTCP_E_FLAG: u32 = 1 << 31;
/// The RTP index is the 32-bit rollover counter above the 16-bit sequence number.
const RTP_INDEX_BITS: u32 = 48;

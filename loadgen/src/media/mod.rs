//! Media as libwebrtc sends it: how large the frames are, how they are cut, when they leave.
//!
//! Invariants: the same seed gives the same frames; over a few seconds the bitrate is the one
//! asked for, keyframes included.
//!
//! Not here: pictures and sound. The bytes are [`probe`](crate::probe)s behind a real codec's
//! headers.

pub mod audio;
pub mod pacer;
pub mod video;

/// A small deterministic generator (SplitMix64): frames must be the same for the same seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
}

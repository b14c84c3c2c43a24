//! A microphone's Opus as libwebrtc sends it: one packet each 20 ms, of varying size.

use std::time::Duration;

use super::Dice;

/// Opus frames of libwebrtc.
pub const FRAME: Duration = Duration::from_millis(20);

/// Timestamp ticks of a frame, at 48 kHz.
pub const FRAME_TICKS: u32 = 960;

/// One byte says the frame's configuration (RFC 6716 §3.1): CELT fullband, 20 ms, mono.
pub const TOC: u8 = 0xf8;

/// Decides how large each packet is.
#[derive(Debug, Clone)]
pub struct Encoder {
    mean: f64,
    dice: Dice,
}

impl Encoder {
    /// `bitrate` in bits per second of encoded sound.
    pub fn new(bitrate: u64, seed: u64) -> Self {
        Self { mean: bitrate as f64 / 8.0 * FRAME.as_secs_f64(), dice: Dice::new(seed) }
    }

    /// The length of the next payload in bytes. Variable bitrate: 80 to 120 %.
    pub fn next_packet(&mut self) -> usize {
        ((self.mean * (0.8 + 0.4 * self.dice.share())) as usize).max(PACKET_MIN)
    }
}

/// A table of contents and a probe fit.
const PACKET_MIN: usize = 32;

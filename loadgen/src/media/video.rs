//! A camera's VP8 as libwebrtc sends it: frames of varying size at a steady rhythm, keyframes
//! when asked, each frame cut into packets of about equal size.

use super::Dice;

/// The largest RTP payload: libwebrtc keeps packets within 1,200 bytes, header and extensions
/// included.
pub const PAYLOAD_MAX: usize = 1160;

/// The smallest frame: a descriptor, a frame header and a probe fit.
const FRAME_MIN: usize = 64;

/// A keyframe against a delta frame at the same bitrate. Recorded from Chromium at 720p with
/// moving content: 4 to 8 times.
const KEYFRAME_RATIO: f64 = 6.0;

/// How many delta frames repay what a keyframe took beyond its share: the encoder's rate
/// control works over about a second.
const REPAY_FRAMES: f64 = 30.0;

/// The VP8 payload descriptor with a 15-bit picture id (RFC 7741 §4.2).
pub const DESCRIPTOR_LEN: usize = 4;

/// Frame tag, start code, width and height (RFC 6386 §9.1), or the tag alone.
pub const KEYFRAME_HEADER_LEN: usize = 10;
pub const DELTA_HEADER_LEN: usize = 3;

/// Decides how large each frame is.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Of a frame, on average.
    mean: f64,
    /// What keyframes took beyond their share and delta frames have not yet given back.
    debt: f64,
    dice: Dice,
}

impl Encoder {
    /// `bitrate` in bits per second of encoded video.
    pub fn new(bitrate: u64, fps: u32, seed: u64) -> Self {
        let mean = bitrate as f64 / 8.0 / f64::from(fps.max(1));
        Self { mean, debt: 0.0, dice: Dice::new(seed) }
    }

    /// The length of the next frame in bytes.
    pub fn next_frame(&mut self, keyframe: bool) -> usize {
        // Content moves unevenly: a triangular distribution, 70 to 130 %.
        let weight = 0.7 + 0.3 * (self.dice.share() + self.dice.share());
        let wanted = if keyframe {
            self.mean * KEYFRAME_RATIO
        } else {
            self.mean * weight - (self.debt / REPAY_FRAMES).min(self.mean * 0.5)
        };
        let len = (wanted as usize).max(FRAME_MIN);
        self.debt = (self.debt + len as f64 - self.mean).max(0.0);
        len
    }
}

/// The payload lengths a frame of `len` bytes is cut into, descriptors apart: about equal, the
/// last ones a byte longer, as libwebrtc's packetizer makes them.
pub fn split(len: usize) -> impl Iterator<Item = usize> {
    let room = PAYLOAD_MAX - DESCRIPTOR_LEN;
    let count = len.div_ceil(room).max(1);
    let (base, longer) = (len / count, len % count);
    (0..count).map(move |at| base + usize::from(at >= count - longer))
}

/// What a packet says about itself in its codec's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of the frame, 15 bits.
    pub picture: u16,
    pub first: bool,
    pub keyframe: bool,
}

impl Part {
    /// Writes the headers; returns their length.
    pub fn write(self, out: &mut [u8]) -> usize {
        // X and S, then I, then the picture id (RFC 7741 §4.2).
        let descriptor = [
            0x80 | u8::from(self.first) << 4,
            0x80,
            0x80 | (self.picture >> 8) as u8,
            self.picture as u8,
        ];
        out[..DESCRIPTOR_LEN].copy_from_slice(&descriptor);
        if !self.first {
            return DESCRIPTOR_LEN;
        }
        // RFC 6386 §9.1: the inverse keyframe bit, version 0, shown; no first partition size.
        let rest = &mut out[DESCRIPTOR_LEN..];
        rest[..DELTA_HEADER_LEN].copy_from_slice(&[0x10 | u8::from(!self.keyframe), 0, 0]);
        if !self.keyframe {
            return DESCRIPTOR_LEN + DELTA_HEADER_LEN;
        }
        let [w, h] = [1280u16.to_le_bytes(), 720u16.to_le_bytes()];
        rest[3..KEYFRAME_HEADER_LEN].copy_from_slice(&[0x9d, 0x01, 0x2a, w[0], w[1], h[0], h[1]]);
        DESCRIPTOR_LEN + KEYFRAME_HEADER_LEN
    }

    /// The length of the descriptor of a payload, whoever rewrote it (RFC 7741 §4.2).
    pub fn descriptor_len(payload: &[u8]) -> usize {
        let byte = |at: usize| payload.get(at).copied().unwrap_or(0);
        if byte(0) & 0x80 == 0 {
            return 1;
        }
        let present = byte(1);
        let mut len = 2;
        if present & 0x80 != 0 {
            len += 1 + usize::from(byte(len) & 0x80 != 0);
        }
        len + usize::from(present & 0x40 != 0) + usize::from(present & 0x30 != 0)
    }

    /// Whether a payload begins a VP8 frame.
    pub fn begins_frame(payload: &[u8]) -> bool {
        payload.first().is_some_and(|first| first & 0x17 == 0x10)
    }

    /// Whether a payload begins a VP8 keyframe.
    pub fn begins_keyframe(payload: &[u8]) -> bool {
        let tag = payload.get(Self::descriptor_len(payload));
        Self::begins_frame(payload) && tag.is_some_and(|tag| tag & 1 == 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_cut_completely_and_evenly(len in 1usize..200_000) {
            let parts: Vec<usize> = split(len).collect();
            prop_assert_eq!(parts.iter().sum::<usize>(), len);
            let (min, max) = (parts.iter().min().unwrap(), parts.iter().max().unwrap());
            prop_assert!(max - min <= 1 && max + DESCRIPTOR_LEN <= PAYLOAD_MAX);
            prop_assert!(parts.is_sorted(), "the longer ones come last");
        }

        #[test]
        fn the_bitrate_is_the_one_asked_for(seed: u64, bitrate in 300_000u64..6_000_000) {
            let mut encoder = Encoder::new(bitrate, 30, seed);
            let frames = 30 * 20;
            let bytes: usize = (0..frames).map(|at| encoder.next_frame(at % 300 == 0)).sum();
            let rate = bytes as f64 * 8.0 / 20.0;
            prop_assert!((rate / bitrate as f64 - 1.0).abs() < 0.08, "{rate} for {bitrate}");
        }

        #[test]
        fn headers_read_back(picture in 0u16..0x8000, first: bool, keyframe: bool) {
            let mut out = [0; 32];
            let part = Part { picture, first, keyframe };
            prop_assert!(part.write(&mut out) <= DESCRIPTOR_LEN + KEYFRAME_HEADER_LEN);
            prop_assert_eq!(Part::begins_keyframe(&out), first && keyframe);
        }
    }

    #[test]
    fn a_keyframe_begins_whatever_the_descriptor_says() {
        for (payload, expected) in [
            (&[0x10, 0x00][..], true),
            (&[0x10, 0x01], false),
            (&[0x00, 0x00], false),
            (&[0x90, 0x80, 0x05, 0x00], true),
            (&[0x90, 0xe0, 0x80, 0x05, 9, 0x20, 0x00], true),
            (&[0x90, 0x80, 0x80], false),
            (&[], false),
        ] {
            assert_eq!(Part::begins_keyframe(payload), expected, "{payload:x?}");
        }
    }
}

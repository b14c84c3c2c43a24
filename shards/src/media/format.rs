//! What a payload type or a header extension id can mean: the closed sets of codecs and RTP
//! header extensions that shardcast forwards.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A codec that is forwarded. RTX is not one: it is an attribute of the codec it repairs. Nodes name
/// codecs to each other by their places here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    Opus,
    /// Redundant audio (RFC 2198) around Opus.
    Red,
    Pcmu,
    Pcma,
    Vp8,
    Vp9,
    H264,
    H265,
    Av1,
}

impl Codec {
    /// RTP timestamp units per second.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Opus | Self::Red => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 | Self::Av1 => 90_000,
        }
    }

    pub fn is_audio(self) -> bool {
        matches!(self, Self::Opus | Self::Red | Self::Pcmu | Self::Pcma)
    }

    /// The encoding name of `a=rtpmap`, as browsers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Red => "red",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Av1 => "AV1",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec with its format parameters, which tell profiles apart (H.264, VP9, H.265, AV1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecSpec {
    pub codec: Codec,
    /// As `a=fmtp` has it; may be empty.
    pub fmtp: String,
}

/// A header extension that shardcast reads, writes or carries through. Nodes name them to each other
/// by their places here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Extension {
    Mid,
    Rid,
    RepairedRid,
    AbsSendTime,
    TransportCc,
    AudioLevel,
    VideoOrientation,
    PlayoutDelay,
    AbsCaptureTime,
    DependencyDescriptor,
    VideoLayersAllocation,
}

impl Extension {
    pub const COUNT: usize = 11;

    pub const ALL: [Self; Self::COUNT] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AbsSendTime,
        Self::TransportCc,
        Self::AudioLevel,
        Self::VideoOrientation,
        Self::PlayoutDelay,
        Self::AbsCaptureTime,
        Self::DependencyDescriptor,
        Self::VideoLayersAllocation,
    ];

    /// The URI of `a=extmap`.
    pub fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::VideoLayersAllocation => {
                "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00"
            }
        }
    }

    /// Copied from a publisher's packet to every copy of it, under the subscriber's id.
    pub fn is_carried(self) -> bool {
        matches!(
            self,
            Self::AudioLevel
                | Self::VideoOrientation
                | Self::PlayoutDelay
                | Self::AbsCaptureTime
                | Self::DependencyDescriptor
                | Self::VideoLayersAllocation
        )
    }
}

/// The header extension ids negotiated for one m-line: 1 to 255, or 0 for "not negotiated".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds([u8; Extension::COUNT]);

impl ExtensionIds {
    pub fn set(&mut self, extension: Extension, id: u8) {
        self.0[extension as usize] = id;
    }

    /// The id, or `None` when the extension was not negotiated.
    pub fn get(&self, extension: Extension) -> Option<u8> {
        match self.0[extension as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// What an id in a received header means.
    pub fn meaning(&self, id: u8) -> Option<Extension> {
        Extension::ALL.into_iter().find(|&e| id != 0 && self.0[e as usize] == id)
    }
}

//! Which payload types of an m-line we forward, and when two of them mean the same.
//!
//! Invariants: a [`NegotiatedCodec`] has a payload type RTCP cannot be mistaken for; its RTX
//! and, for RED, its Opus are on the same m-line; its parameters were understood.
//!
//! Not here: which payload types our own offers take (`palette`).

use super::description::Section;
use crate::media::format::Codec;

/// A codec and what tells it from others of its name, as `a=fmtp` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecSpec {
    pub codec: Codec,
    pub fmtp: String,
}

/// A payload type of one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedCodec {
    pub codec: Codec,
    pub pt: u8,
    /// The payload type that repairs this one.
    pub rtx_pt: Option<u8>,
    pub fmtp: String,
    pub feedback: Feedback,
}

/// The RTCP feedback both sides understand for a payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
}

impl Feedback {
    pub(super) const VIDEO: Self = Self { nack: true, pli: true, fir: true, transport_cc: true };
    /// Audio has no RTX, and nothing is sent twice under one payload type.
    pub(super) const AUDIO: Self = Self { nack: false, pli: false, fir: false, transport_cc: true };

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            nack: self.nack && other.nack,
            pli: self.pli && other.pli,
            fir: self.fir && other.fir,
            transport_cc: self.transport_cc && other.transport_cc,
        }
    }

    /// The values of `a=rtcp-fb` that say it.
    pub(super) fn lines(self) -> impl Iterator<Item = &'static str> {
        [
            (self.nack, "nack"),
            (self.pli, "nack pli"),
            (self.fir, "ccm fir"),
            (self.transport_cc, "transport-cc"),
        ]
        .into_iter()
        .filter_map(|(has, text)| has.then_some(text))
    }
}

/// The payload type of `codecs` for a track of codec `wanted`, best match first: the same
/// configuration, else one whose decoders must be able to decode it.
pub fn find<'a>(codecs: &'a [NegotiatedCodec], wanted: &CodecSpec) -> Option<&'a NegotiatedCodec> {
    let stream = Configuration::of(wanted.codec, &wanted.fmtp)?;
    let of = |codec: &NegotiatedCodec| Configuration::of(codec.codec, &codec.fmtp);
    codecs
        .iter()
        .find(|codec| of(codec) == Some(stream))
        .or_else(|| codecs.iter().find(|codec| of(codec).is_some_and(|c| c.decodes(stream))))
}

/// What must be equal for two payload types to be interchangeable. Levels are no part of it:
/// they bound an encoder, and browsers decode beyond what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Configuration {
    /// A codec without profiles.
    Plain(Codec),
    Vp9 {
        profile: u8,
    },
    H264 {
        profile: H264Profile,
        packetization: u8,
    },
    H265 {
        profile: u8,
    },
    Av1 {
        profile: u8,
    },
}

/// RFC 6184, 8.1, table 5, as far as WebRTC uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    PredictiveHigh444,
}

impl Configuration {
    /// `None` when a parameter makes no sense, or one that we could not forward.
    pub(super) fn of(codec: Codec, fmtp: &str) -> Option<Self> {
        let profile = |name, default| match parameter(fmtp, name) {
            Some(value) => value.parse::<u8>().ok(),
            None => Some(default),
        };
        Some(match codec {
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::Vp8 => Self::Plain(codec),
            Codec::Vp9 => Self::Vp9 { profile: profile("profile-id", 0)? },
            Codec::Av1 => Self::Av1 { profile: profile("profile", 0)? },
            Codec::H265 => Self::H265 { profile: profile("profile-id", 1)? },
            Codec::H264 => {
                let packetization = profile("packetization-mode", 0)?;
                // Mode 2 interleaves: nothing forwarded could be cut at a key frame.
                if packetization > 1 {
                    return None;
                }
                Self::H264 { profile: H264Profile::of(profile_level_id(fmtp)?)?, packetization }
            }
        })
    }

    /// Whether a decoder for this decodes `stream`, though it is not the same configuration.
    fn decodes(self, stream: Self) -> bool {
        match (self, stream) {
            (
                Self::H264 { profile, packetization },
                Self::H264 { profile: of, packetization: mode },
            ) => {
                let covers = profile == of || of == H264Profile::ConstrainedBaseline;
                covers && mode <= packetization
            }
            (
                Self::Plain(_)
                | Self::Vp9 { .. }
                | Self::H264 { .. }
                | Self::H265 { .. }
                | Self::Av1 { .. },
                _,
            ) => false,
        }
    }
}

impl H264Profile {
    fn of(profile_level_id: u32) -> Option<Self> {
        let (idc, constraints) = (profile_level_id >> 16, profile_level_id >> 8 & 0xff);
        Some(match (idc, constraints) {
            (0x42, c) if c & 0x40 != 0 => Self::ConstrainedBaseline,
            (0x42, _) => Self::Baseline,
            (0x4d, c) if c & 0x80 != 0 => Self::ConstrainedBaseline,
            (0x4d, _) => Self::Main,
            (0x58, c) if c & 0xc0 == 0xc0 => Self::ConstrainedBaseline,
            (0x58, c) if c & 0xc0 == 0x80 => Self::Baseline,
            (0x64, 0x0c) => Self::ConstrainedHigh,
            (0x64, _) => Self::High,
            (0xf4, _) => Self::PredictiveHigh444,
            _ => return None,
        })
    }
}

/// What our own offers say of a codec: only values we have understood, because it reaches
/// clients that did not write it.
pub(super) fn clean_fmtp(spec: &CodecSpec) -> Option<String> {
    let CodecSpec { codec, fmtp } = spec;
    Some(match Configuration::of(*codec, fmtp)? {
        Configuration::Plain(Codec::Opus) => "minptime=10;useinbandfec=1".to_owned(),
        Configuration::Plain(_) => String::new(),
        Configuration::Vp9 { profile } => format!("profile-id={profile}"),
        Configuration::Av1 { profile } => format!("level-idx=5;profile={profile};tier=0"),
        Configuration::H265 { profile } => {
            let level = parameter(fmtp, "level-id").and_then(|text| text.parse::<u8>().ok());
            let level = level.unwrap_or(93);
            format!("level-id={level};profile-id={profile};tier-flag=0;tx-mode=SRST")
        }
        Configuration::H264 { packetization, .. } => {
            let id = profile_level_id(fmtp)?;
            format!(
                "level-asymmetry-allowed=1;packetization-mode={packetization};\
                 profile-level-id={id:06x}"
            )
        }
    })
}

/// The parameters without those that describe the writer's own stream (`sprop-…`), which is
/// what an answer may repeat.
pub(super) fn without_stream_properties(fmtp: &str) -> String {
    if !fmtp.contains("sprop-") {
        return fmtp.to_owned();
    }
    let kept: Vec<&str> =
        fmtp.split(';').map(str::trim).filter(|part| !part.starts_with("sprop-")).collect();
    kept.join(";")
}

/// The payload types of a section that we forward, in its order.
pub(super) fn forwarded(section: &Section) -> Vec<NegotiatedCodec> {
    let is_audio = section.media == "audio";
    let mut codecs: Vec<NegotiatedCodec> = Vec::new();
    let mut repairs: Vec<(u8, u8)> = Vec::new();
    for pt in section.formats.iter().filter_map(|format| format.parse::<u8>().ok()) {
        // RFC 5761, 4: on one port, these would look like RTCP.
        if (64..=95).contains(&pt) {
            continue;
        }
        let fmtp = section.fmtp(pt);
        let map = section.maps.iter().find(|map| map.pt == pt);
        if map.is_some_and(|map| map.name.eq_ignore_ascii_case("rtx")) {
            let apt = parameter(fmtp, "apt").and_then(|apt| apt.parse().ok());
            repairs.extend(apt.map(|apt| (apt, pt)));
            continue;
        }
        let codec = match map {
            Some(map) => codec_named(&map.name, map.clock_rate, map.channels),
            None => static_codec(pt),
        };
        if let Some(codec) = codec.filter(|codec| codec.is_audio() == is_audio)
            && Configuration::of(codec, fmtp).is_some()
        {
            let feedback = feedback(section, pt);
            let fmtp = fmtp.to_owned();
            codecs.push(NegotiatedCodec { codec, pt, rtx_pt: None, fmtp, feedback });
        }
    }
    for codec in &mut codecs {
        codec.rtx_pt = repairs.iter().find(|(apt, _)| *apt == codec.pt).map(|(_, pt)| *pt);
    }
    drop_unwrappable_red(&mut codecs);
    codecs
}

/// The Opus payload type inside RED, from `111/111`.
pub(super) fn red_payload(fmtp: &str) -> Option<u8> {
    let mut blocks = fmtp.split('/').map(|block| block.trim().parse::<u8>().ok());
    let first = blocks.next()??;
    blocks.all(|block| block == Some(first)).then_some(first)
}

/// RED whose blocks are not Opus of the same line cannot be taken apart for those without RED.
pub(super) fn drop_unwrappable_red(codecs: &mut Vec<NegotiatedCodec>) {
    let opus: Vec<u8> =
        codecs.iter().filter(|codec| codec.codec == Codec::Opus).map(|codec| codec.pt).collect();
    codecs.retain(|codec| {
        codec.codec != Codec::Red || red_payload(&codec.fmtp).is_some_and(|pt| opus.contains(&pt))
    });
}

fn feedback(section: &Section, pt: u8) -> Feedback {
    let has = |wanted: &str| {
        let mut of_pt = section.feedback.iter().filter(|(of, _)| of.is_none_or(|of| of == pt));
        of_pt.any(|(_, text)| text == wanted)
    };
    Feedback {
        nack: has("nack"),
        pli: has("nack pli"),
        fir: has("ccm fir"),
        transport_cc: has("transport-cc"),
    }
}

fn codec_named(name: &str, clock_rate: u32, channels: Option<u8>) -> Option<Codec> {
    const ALL: [Codec; 9] = [
        Codec::Opus,
        Codec::Red,
        Codec::Pcmu,
        Codec::Pcma,
        Codec::Vp8,
        Codec::Vp9,
        Codec::H264,
        Codec::H265,
        Codec::Av1,
    ];
    let codec = ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))?;
    (codec.clock_rate() == clock_rate && channels.unwrap_or(1) == self::channels(codec))
        .then_some(codec)
}

pub(super) fn channels(codec: Codec) -> u8 {
    match codec {
        Codec::Opus | Codec::Red => 2,
        Codec::Pcmu
        | Codec::Pcma
        | Codec::Vp8
        | Codec::Vp9
        | Codec::H264
        | Codec::H265
        | Codec::Av1 => 1,
    }
}

/// RFC 3551, table 4: these need no `a=rtpmap`.
fn static_codec(pt: u8) -> Option<Codec> {
    match pt {
        0 => Some(Codec::Pcmu),
        8 => Some(Codec::Pcma),
        _ => None,
    }
}

fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn profile_level_id(fmtp: &str) -> Option<u32> {
    // What a missing one means in WebRTC: Constrained Baseline, level 3.1.
    let Some(text) = parameter(fmtp, "profile-level-id") else { return Some(0x42_e01f) };
    if text.len() != 6 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264(pt: u8, id: &str, mode: u8) -> NegotiatedCodec {
        let fmtp = format!("packetization-mode={mode};profile-level-id={id}");
        let feedback = Feedback::VIDEO;
        NegotiatedCodec { codec: Codec::H264, pt, rtx_pt: None, fmtp, feedback }
    }

    #[test]
    fn h264_is_matched_by_profile_and_packetization_not_by_level() {
        let codecs = [h264(102, "42001f", 1), h264(108, "42e01f", 1), h264(114, "42e01f", 0)];
        let pt_for = |id: &str, mode: u8| {
            let h264 = h264(0, id, mode);
            find(&codecs, &CodecSpec { codec: h264.codec, fmtp: h264.fmtp }).map(|c| c.pt)
        };
        assert_eq!(pt_for("42e033", 1), Some(108));
        assert_eq!(pt_for("42c01e", 1), Some(108));
        assert_eq!(pt_for("4d801f", 1), Some(108));
        assert_eq!(pt_for("42001e", 1), Some(102));
        assert_eq!(pt_for("42e01f", 0), Some(114));
        assert_eq!(pt_for("640c1f", 1), None);
        assert_eq!(pt_for("zzzzzz", 1), None);
    }

    #[test]
    fn a_constrained_baseline_stream_fits_where_only_higher_profiles_were_negotiated() {
        let codecs = [h264(112, "64001f", 1)];
        let spec = |id: &str| CodecSpec { codec: Codec::H264, fmtp: h264(0, id, 1).fmtp };
        assert_eq!(find(&codecs, &spec("42e01f")).map(|c| c.pt), Some(112));
        assert_eq!(find(&codecs, &spec("4d001f")).map(|c| c.pt), None);
    }

    #[test]
    fn red_is_kept_only_around_an_opus_of_its_line() {
        assert_eq!(red_payload("111/111"), Some(111));
        assert_eq!(red_payload("111/111/111"), Some(111));
        assert_eq!(red_payload("111/0"), None);
        assert_eq!(red_payload(""), None);
    }

    #[test]
    fn nothing_a_publisher_wrote_reaches_others_unless_it_was_understood() {
        let spec = |codec, fmtp: &str| CodecSpec { codec, fmtp: fmtp.to_owned() };
        let h264 =
            "x-evil=1; packetization-mode=1;sprop-parameter-sets=Z0I=;profile-level-id=42C01E";
        assert_eq!(
            clean_fmtp(&spec(Codec::H264, h264)).as_deref(),
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42c01e")
        );
        assert_eq!(clean_fmtp(&spec(Codec::H264, "profile-level-id=nonsense")), None);
        assert_eq!(clean_fmtp(&spec(Codec::Vp8, "max-fs=12288")).as_deref(), Some(""));
    }
}

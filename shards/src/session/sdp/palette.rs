//! Payload types and header extension ids of our own offers.
//!
//! Invariants: within one offer, a payload type of a line we add means what it means on every
//! other line of BUNDLE, down to its parameters, and so does an extension id: libwebrtc
//! refuses a description where they do not. Payload types 64 to 95 are never chosen
//! (RFC 5761, 4).
//!
//! Not here: payload types the client chose for its own lines. Those stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use super::codecs::{self, CodecSpec, Configuration, Feedback, NegotiatedCodec};
use super::description::Direction;
use super::error::{BadRequest, SdpError};
use super::line::{self, Line, LineKind, NegotiatedExtension};
use super::negotiator::Heard;
use crate::media::format::{Codec, Extension, ExtensionIds};

#[derive(Debug)]
pub(super) struct Palette<'a> {
    meanings: BTreeMap<u8, Meaning>,
    /// `None` where two lines give an id different meanings.
    extensions: BTreeMap<u8, Option<Extension>>,
    heard: &'a Heard,
}

/// What our offers have used so far. A number once told keeps its meaning for the session:
/// browsers remember it even when they declined it, and refuse another meaning.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    meanings: BTreeMap<u8, Meaning>,
    extensions: BTreeMap<u8, Extension>,
}

/// What a payload type stands for in the description being made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    Codec(Codec, String),
    /// Repairs this payload type.
    Rtx(u8),
    /// Two lines of the client disagree: not for a third.
    Disputed,
}

/// A codec to be offered, with the payload types it would like.
struct Wish {
    codec: Codec,
    fmtp: String,
    pt: Option<u8>,
    /// `None`: not repaired. `Some(None)`: repaired under any payload type.
    rtx: Option<Option<u8>>,
    feedback: Feedback,
}

impl<'a> Palette<'a> {
    /// Knows what `lines` use, and what was told before. Where two lines give one payload type
    /// different parameters, the first one's are taken for both.
    pub(super) fn new(lines: &mut [Line], heard: &'a Heard, told: &Told) -> Self {
        let mut palette = Self { meanings: BTreeMap::new(), extensions: BTreeMap::new(), heard };
        for line in lines.iter_mut().filter(|line| !line.stopped) {
            for codec in &mut line.terms.codecs {
                palette.learn(codec);
            }
            for negotiated in &line.terms.extensions {
                let meaning = Some(negotiated.extension);
                let known = palette.extensions.entry(negotiated.id).or_insert(meaning);
                *known = known.filter(|_| *known == meaning);
            }
        }
        palette.recall(told);
        palette
    }

    /// What was told before and the client has not given another meaning since.
    fn recall(&mut self, told: &Told) {
        for (&pt, meaning) in &told.meanings {
            let agrees = match meaning {
                Meaning::Codec(codec, _) => self.may_take(pt, *codec),
                Meaning::Rtx(of) => self.may_repair(pt, *of),
                Meaning::Disputed => false,
            };
            if agrees {
                self.meanings.entry(pt).or_insert_with(|| meaning.clone());
            }
        }
        for (&id, &extension) in &told.extensions {
            let heard = self.heard.extensions.meaning(id).is_none_or(|heard| heard == extension);
            let elsewhere = self.extensions.values().any(|known| *known == Some(extension));
            if heard && !elsewhere && !self.heard.foreign_ids.contains(&id) {
                self.extensions.entry(id).or_insert(Some(extension));
            }
        }
    }

    /// Whether the client uses a payload type for nothing else than repairing another.
    fn may_repair(&self, pt: u8, of: u8) -> bool {
        let unspoken = self.heard.payload_types >> pt & 1 == 0;
        let mut heard = self.heard.audio.iter().chain(&self.heard.video);
        unspoken || heard.any(|known| known.pt == of && known.rtx_pt == Some(pt))
    }

    /// What the description that was made tells.
    pub(super) fn told(self) -> Told {
        let extensions = self.extensions.into_iter();
        Told {
            meanings: self.meanings,
            extensions: extensions.filter_map(|(id, known)| Some((id, known?))).collect(),
        }
    }

    fn learn(&mut self, codec: &mut NegotiatedCodec) {
        let fmtp = codecs::without_stream_properties(&codec.fmtp);
        let config = Configuration::of(codec.codec, &fmtp);
        let red = codec.codec == Codec::Red;
        match self.meanings.get_mut(&codec.pt) {
            None => {
                self.meanings.insert(codec.pt, Meaning::Codec(codec.codec, fmtp));
            }
            Some(Meaning::Codec(of, known))
                if *of == codec.codec
                    && Configuration::of(*of, known) == config
                    && (!red || *known == fmtp) =>
            {
                known.clone_into(&mut codec.fmtp);
            }
            Some(other) => *other = Meaning::Disputed,
        }
        if let Some(rtx) = codec.rtx_pt {
            let meaning = Meaning::Rtx(codec.pt);
            let known = self.meanings.entry(rtx).or_insert_with(|| meaning.clone());
            if *known != meaning {
                *known = Meaning::Disputed;
            }
        }
    }

    /// The codecs of a line of `kind`, `preferred` first: those the client has offered, or all
    /// we know when it has offered none.
    pub(super) fn codecs(
        &mut self,
        kind: LineKind,
        preferred: Option<&CodecSpec>,
    ) -> Result<Vec<NegotiatedCodec>, SdpError> {
        let mut wishes = self.wishes(kind);
        if let Some(preferred) = preferred {
            put_first(&mut wishes, preferred);
        }
        let mut chosen: Vec<Option<NegotiatedCodec>> = vec![None; wishes.len()];
        // RED names the payload type of an Opus, which must be known by then.
        for red in [false, true] {
            for (wish, chosen_one) in wishes.iter().enumerate() {
                if (chosen_one.codec == Codec::Red) == red {
                    let opus = chosen.iter().flatten().find(|c| c.codec == Codec::Opus);
                    let opus = opus.map(|opus| opus.pt);
                    chosen[wish] = self.choose(chosen_one, opus);
                }
            }
        }
        if chosen.first().is_none_or(|first| preferred.is_some() && first.is_none()) {
            return Err(BadRequest::NoPayloadTypes.into());
        }
        let chosen: Vec<NegotiatedCodec> = chosen.into_iter().flatten().collect();
        if chosen.is_empty() { Err(BadRequest::NoPayloadTypes.into()) } else { Ok(chosen) }
    }

    /// The extensions of a line of `kind`; those that name layers only if we receive on it.
    pub(super) fn extensions(
        &mut self,
        kind: LineKind,
        receives: bool,
    ) -> Vec<NegotiatedExtension> {
        let wanted = Extension::ALL.into_iter().filter(|&extension| {
            line::is_for(extension, kind) && (receives || !line::is_for_receiving(extension))
        });
        let mut taken = BTreeSet::new();
        let mut chosen = Vec::new();
        for extension in wanted {
            let Some(id) = self.extension_id(extension).filter(|id| taken.insert(*id)) else {
                continue;
            };
            self.extensions.insert(id, Some(extension));
            chosen.push(NegotiatedExtension { extension, id, direction: Direction::SendRecv });
        }
        chosen
    }

    fn extension_id(&self, extension: Extension) -> Option<u8> {
        let in_use = self.extensions.iter().find(|(_, known)| **known == Some(extension));
        let in_use = in_use.map(|(id, _)| *id);
        let free = |id: &u8| !self.extensions.contains_key(id);
        let heard: &ExtensionIds = &self.heard.extensions;
        let unspoken =
            |id: &u8| heard.meaning(*id).is_none() && !self.heard.foreign_ids.contains(id);
        // 15 means "stop" in a one-byte header; above it only two-byte headers reach.
        in_use
            .or_else(|| heard.get(extension).filter(free))
            .or_else(|| (1..=14).chain(16..=255).find(|id| free(id) && unspoken(id)))
    }

    fn wishes(&self, kind: LineKind) -> Vec<Wish> {
        let heard = self.heard.codecs(kind);
        if heard.is_empty() {
            return canonical(kind);
        }
        let wish = |codec: &NegotiatedCodec| Wish {
            codec: codec.codec,
            fmtp: codecs::without_stream_properties(&codec.fmtp),
            pt: Some(codec.pt),
            rtx: codec.rtx_pt.map(Some),
            feedback: codec.feedback,
        };
        heard.iter().map(wish).collect()
    }

    fn choose(&mut self, wish: &Wish, opus: Option<u8>) -> Option<NegotiatedCodec> {
        let fmtp = if wish.codec == Codec::Red {
            opus.map(|pt| format!("{pt}/{pt}"))?
        } else {
            wish.fmtp.clone()
        };
        let config = Configuration::of(wish.codec, &fmtp)?;
        let (pt, fmtp) = self.payload_type(wish, config, fmtp)?;
        self.meanings.insert(pt, Meaning::Codec(wish.codec, fmtp.clone()));
        let rtx_pt = wish.rtx.and_then(|wished| self.repair(pt, wished));
        if let Some(rtx) = rtx_pt {
            self.meanings.insert(rtx, Meaning::Rtx(pt));
        }
        let feedback = wish.feedback;
        Some(NegotiatedCodec { codec: wish.codec, pt, rtx_pt, fmtp, feedback })
    }

    /// The wished payload type if it is free or means this already, else one that means this,
    /// else a free one; with the parameters it has in this description.
    fn payload_type(
        &self,
        wish: &Wish,
        config: Configuration,
        fmtp: String,
    ) -> Option<(u8, String)> {
        let same = |meaning: &Meaning| match meaning {
            Meaning::Codec(codec, known)
                if *codec == wish.codec
                    && Configuration::of(*codec, known) == Some(config)
                    // Two REDs are the same only around the same Opus.
                    && (*codec != Codec::Red || *known == fmtp) =>
            {
                Some(known.clone())
            }
            Meaning::Codec(..) | Meaning::Rtx(_) | Meaning::Disputed => None,
        };
        if let Some(pt) = wish.pt {
            match self.meanings.get(&pt) {
                Some(meaning) => {
                    if let Some(fmtp) = same(meaning) {
                        return Some((pt, fmtp));
                    }
                }
                None if self.may_take(pt, wish.codec) => return Some((pt, fmtp)),
                None => {}
            }
        }
        let known = self.meanings.iter().find_map(|(pt, meaning)| Some((*pt, same(meaning)?)));
        known.or_else(|| Some((self.free()?, fmtp)))
    }

    fn repair(&self, pt: u8, wished: Option<u8>) -> Option<u8> {
        let means_it = |rtx: &u8| self.meanings.get(rtx) == Some(&Meaning::Rtx(pt));
        let mut heard = self.heard.audio.iter().chain(&self.heard.video);
        let is_free = |rtx: &u8| {
            let unspoken = self.heard.payload_types >> *rtx & 1 == 0;
            let its_own = unspoken || heard.any(|codec| codec.rtx_pt == Some(*rtx));
            its_own && !self.meanings.contains_key(rtx)
        };
        let known = self.meanings.keys().copied().find(means_it);
        known.or_else(|| wished.filter(is_free)).or_else(|| self.free())
    }

    /// Whether an unused payload type may become this codec: not if the client uses it for
    /// something else.
    fn may_take(&self, pt: u8, codec: Codec) -> bool {
        let unspoken = self.heard.payload_types >> pt & 1 == 0;
        let mut heard = self.heard.audio.iter().chain(&self.heard.video);
        unspoken || heard.any(|known| known.pt == pt && known.codec == codec)
    }

    fn free(&self) -> Option<u8> {
        let unspoken = |pt: &u8| self.heard.payload_types >> *pt & 1 == 0;
        (96..=127).chain(35..=63).find(|pt| !self.meanings.contains_key(pt) && unspoken(pt))
    }
}

fn put_first(wishes: &mut Vec<Wish>, preferred: &CodecSpec) {
    let config = Configuration::of(preferred.codec, &preferred.fmtp);
    let same =
        |wish: &Wish| config.is_some() && Configuration::of(wish.codec, &wish.fmtp) == config;
    if let Some(index) = wishes.iter().position(same) {
        wishes[..=index].rotate_right(1);
    } else if let Some(fmtp) = codecs::clean_fmtp(preferred) {
        let audio = preferred.codec.is_audio();
        let (rtx, feedback) =
            if audio { (None, Feedback::AUDIO) } else { (Some(None), Feedback::VIDEO) };
        wishes.insert(0, Wish { codec: preferred.codec, fmtp, pt: None, rtx, feedback });
    }
}

/// What we offer to a client that has not shown its own list: Chromium's payload types, which
/// every client copes with.
fn canonical(kind: LineKind) -> Vec<Wish> {
    const AUDIO: [(Codec, u8, &str); 4] = [
        (Codec::Opus, 111, "minptime=10;useinbandfec=1"),
        (Codec::Red, 63, ""),
        (Codec::Pcmu, 0, ""),
        (Codec::Pcma, 8, ""),
    ];
    const VIDEO: [(Codec, u8, u8, &str); 9] = [
        (Codec::Vp8, 96, 97, ""),
        (Codec::Vp9, 98, 99, "profile-id=0"),
        (
            Codec::H264,
            102,
            103,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
        ),
        (
            Codec::H264,
            108,
            109,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        ),
        (
            Codec::H264,
            116,
            117,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f",
        ),
        (
            Codec::H264,
            112,
            113,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f",
        ),
        (Codec::Av1, 45, 46, "level-idx=5;profile=0;tier=0"),
        (Codec::Vp9, 100, 101, "profile-id=2"),
        (Codec::H265, 49, 50, "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST"),
    ];
    let audio = |&(codec, pt, fmtp): &(Codec, u8, &str)| Wish {
        codec,
        fmtp: fmtp.to_owned(),
        pt: Some(pt),
        rtx: None,
        feedback: Feedback::AUDIO,
    };
    let video = |&(codec, pt, rtx, fmtp): &(Codec, u8, u8, &str)| Wish {
        codec,
        fmtp: fmtp.to_owned(),
        pt: Some(pt),
        rtx: Some(Some(rtx)),
        feedback: Feedback::VIDEO,
    };
    match kind {
        LineKind::Audio => AUDIO.iter().map(audio).collect(),
        LineKind::Video => VIDEO.iter().map(video).collect(),
        LineKind::Application | LineKind::Unknown => Vec::new(),
    }
}

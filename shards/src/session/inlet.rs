//! An m-line that receives: which payload type is which codec of its track, which RID which
//! layer.
//!
//! Invariants: once a packet came, an index of a codec or a layer means the same as long as
//! the inlet lives, whatever is negotiated meanwhile: packets on their way, remembered ones and
//! pulls all over the node speak in indexes. New terms are appended; what the client sends no
//! longer keeps its place.

use super::sdp::Receiving;
use crate::limits::LAYERS_PER_TRACK;
use crate::media::format::{Codec, CodecSpec, Extension, ExtensionIds};
use crate::media::rtp::RtpHeader;
use crate::switch::feed::FeedKey;
use crate::switch::pull::CODECS_PER_TRACK;

/// An m-line that receives.
#[derive(Debug)]
pub struct Inlet {
    pub mid: String,
    /// The track its packets belong to; none before it is named, or after it was closed.
    pub feed: Option<FeedKey>,
    /// Its indexes are in use.
    pub used: bool,
    /// By index, those of former terms too.
    pub codecs: Vec<CodecSpec>,
    /// By index, those of former terms too; the empty one is a stream without layers.
    pub rids: Vec<String>,
    /// Layers of the terms now, in the client's order.
    layers: Vec<u8>,
    /// The terms now are simulcast.
    pub layered: bool,
    /// (payload type, index of its codec, whether it repairs that codec).
    payload_types: Vec<(u8, u8, bool)>,
    pub extensions: ExtensionIds,
    pub ssrcs: Vec<(u32, Option<u32>)>,
    pub wants_nack: bool,
    pub wants_pli: bool,
}

impl Inlet {
    pub fn new(mid: &str, receiving: &Receiving) -> Self {
        let mut payload_types = Vec::new();
        for (index, codec) in receiving.codecs.iter().enumerate() {
            payload_types.push((codec.pt, index as u8, false));
            payload_types.extend(codec.rtx_pt.map(|pt| (pt, index as u8, true)));
        }
        let specs = receiving.codecs.iter();
        let specs = specs.map(|c| CodecSpec { codec: c.codec, fmtp: c.fmtp.clone() });
        let layered = !receiving.rids.is_empty();
        let rids = if layered { receiving.rids.clone() } else { vec![String::new()] };
        Self {
            mid: mid.to_owned(),
            feed: None,
            used: false,
            codecs: specs.collect(),
            layers: (0..rids.len()).map(|layer| layer as u8).collect(),
            rids,
            layered,
            payload_types,
            extensions: receiving.extensions,
            ssrcs: receiving.ssrcs.clone(),
            wants_nack: receiving.codecs.iter().any(|codec| codec.feedback.nack),
            wants_pli: receiving.codecs.iter().any(|codec| codec.feedback.pli),
        }
    }

    /// Takes over what `old` carries, and its indexes if packets came. False if they do not fit
    /// any more, so that this inlet begins anew, without a track.
    pub fn go_on_from(&mut self, old: &Self) -> bool {
        if !old.used {
            self.feed = old.feed;
            return true;
        }
        let (codecs, codec_at) = merged(&old.codecs, &self.codecs);
        let (rids, rid_at) = merged(&old.rids, &self.rids);
        // One that was too long already does no more harm than before.
        let fits = codecs.len() <= CODECS_PER_TRACK.max(old.codecs.len())
            && rids.len() <= LAYERS_PER_TRACK.max(old.rids.len());
        if fits {
            for (_, codec, _) in &mut self.payload_types {
                *codec = codec_at.get(usize::from(*codec)).map_or(*codec, |&at| at as u8);
            }
            self.layers = rid_at.iter().map(|&at| at as u8).collect();
            (self.codecs, self.rids) = (codecs, rids);
            (self.feed, self.used) = (old.feed, true);
        }
        fits
    }

    pub fn codec(&self, index: u8) -> Option<Codec> {
        self.codecs.get(usize::from(index)).map(|spec| spec.codec)
    }

    /// The codec of a payload type, and whether it repairs it.
    pub fn payload_type(&self, pt: u8) -> Option<(u8, bool)> {
        let found = self.payload_types.iter().find(|(other, _, _)| *other == pt);
        found.map(|&(_, codec, repairs)| (codec, repairs))
    }

    /// The data of a header extension, by its meaning on this line.
    pub fn element<'a>(&self, header: &RtpHeader<'a>, extension: Extension) -> Option<&'a [u8]> {
        let id = self.extensions.get(extension)?;
        header.elements().find(|(other, _)| *other == id).map(|(_, data)| data)
    }

    /// The layer of a RID, if the client may send it now.
    pub fn layer(&self, rid: &str) -> Option<u8> {
        let is_it = |layer: &u8| self.rids.get(usize::from(*layer)).is_some_and(|r| r == rid);
        self.layers.iter().copied().find(is_it)
    }

    /// The layer that the client's description names at this place.
    pub fn told_layer(&self, at: usize) -> Option<u8> {
        self.layers.get(at).copied()
    }
}

/// `old` with what it lacks of `new` appended, and where each of `new` is in it.
fn merged<T: Clone + PartialEq>(old: &[T], new: &[T]) -> (Vec<T>, Vec<usize>) {
    let mut all = old.to_vec();
    let places = new.iter().map(|item| {
        all.iter().position(|other| other == item).unwrap_or_else(|| {
            all.push(item.clone());
            all.len() - 1
        })
    });
    let places = places.collect();
    (all, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inlet(rids: &[&str]) -> Inlet {
        let rids = rids.iter().map(|&rid| rid.to_owned()).collect();
        let (codecs, extensions, ssrcs) = (Vec::new(), ExtensionIds::default(), Vec::new());
        Inlet::new("0", &Receiving { codecs, extensions, rids, ssrcs })
    }

    #[test]
    fn layers_keep_their_indexes_once_packets_came() {
        let mut old = inlet(&["f", "h"]);
        let mut new = inlet(&["h", "q"]);
        assert!(new.go_on_from(&old));
        assert_eq!(new.rids, ["h", "q"], "nobody has heard of the others");
        old.used = true;
        let mut new = inlet(&["q", "h"]);
        assert!(new.go_on_from(&old));
        assert_eq!(new.rids, ["f", "h", "q"]);
        assert_eq!([new.layer("f"), new.layer("h"), new.layer("q")], [None, Some(1), Some(2)]);
        assert_eq!([new.told_layer(0), new.told_layer(1)], [Some(2), Some(1)]);
    }

    #[test]
    fn terms_that_change_for_ever_make_an_inlet_begin_anew() {
        let mut old = inlet(&["0"]);
        old.used = true;
        let rids: Vec<String> = (0..100).map(|rid| rid.to_string()).collect();
        let renewals = rids.iter().filter(|rid| {
            let mut new = inlet(&[rid]);
            let goes_on = new.go_on_from(&old);
            assert!(new.rids.len() <= LAYERS_PER_TRACK);
            new.used = true;
            old = new;
            !goes_on
        });
        assert_eq!(renewals.count(), (100 - 1) / LAYERS_PER_TRACK);
    }
}

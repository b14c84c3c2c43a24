//! What a shard writes to a shard of another node about tracks: what it wants, and what became of
//! what the other wanted.
//!
//! ```text
//! format (8) | sender's shard (8) | receiver's shard (8) | postcard of a list of `Note`
//! ```
//!
//! All of it is soft state. Who wants a track says so again each second; who has it answers with
//! the whole state when the other does not have the present one. So a letter may be lost, or come
//! twice, and the next one mends it. A *lane* is a track on the link of the two shards; it is named
//! by the shard that receives the packets.
//!
//! Invariants: what [`read`] accepts is whole and within the limits of a track.
//!
//! Not here: how letters travel (`relay::control`), and what becomes of them (`engine`).

use relay::control::MESSAGE_MAX;
use relay::wire::LaneId;
use serde::{Deserialize, Serialize};

use super::letter::NotALetter;
use crate::command::ItemError;
use crate::ids::{SessionId, ShardId};
use crate::limits::{LAYERS_PER_TRACK, TRACK_NAME_LEN};
use crate::switch::feed::TrackMeta;
use crate::switch::pull::CODECS_PER_TRACK;

/// The present format. Another one is for an incompatible change of anything a note holds, the
/// order of codecs among it.
const FORMAT: u8 = 1;

/// Bytes before the notes.
const HEAD: usize = 3;

/// Layers of a track, as bits: the lowest is layer 0.
pub type Layers = u16;

const _: () = assert!(LAYERS_PER_TRACK <= Layers::BITS as usize);

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The sender wants these layers of a track of the receiver's, on this lane of its own.
    Want(Want),
    /// It wants it no more.
    Unwant { lane: u32 },
    /// How things stand with the track that the receiver wants on this lane.
    Track {
        lane: u32,
        /// Another one with each change, never 0.
        version: u32,
        state: TrackState,
    },
}

/// See [`Note::Want`]. The application goes by its name, because each node numbers its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    pub lane: u32,
    /// The version of the track's state that the sender has; 0 for none.
    pub known: u32,
    pub layers: Layers,
    pub app: String,
    pub session: SessionId,
    pub name: String,
}

/// A track as its owner knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrackState {
    /// Its publisher has no such track yet.
    Sought,
    Live {
        meta: TrackMeta,
        /// Once packets have come: the codec they are in.
        codec: Option<u8>,
        /// By layer: bytes a second, of those that flow.
        rates: Vec<Option<u64>>,
    },
    /// It ended; with `gone`, its session too.
    Ended { gone: bool },
    /// It cannot be had, for this reason.
    Refused(ItemError),
}

/// A letter's notes, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notes {
    pub from: ShardId,
    pub to: ShardId,
    pub notes: Vec<Note>,
}

impl Notes {
    /// The letters to send: one, or several if one would be longer than a message may be.
    pub fn to_letters(&self) -> Vec<Vec<u8>> {
        let head = vec![FORMAT, self.from.0, self.to.0];
        match postcard::to_extend(&self.notes, head) {
            Ok(letter) if letter.len() <= MESSAGE_MAX => vec![letter],
            Ok(_) if self.notes.len() > 1 => {
                let (first, rest) = self.notes.split_at(self.notes.len() / 2);
                let part = |notes: &[Note]| Self { notes: notes.to_vec(), ..*self }.to_letters();
                [part(first), part(rest)].concat()
            }
            // No note is as long as a message.
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// Reads a letter.
    ///
    /// # Errors
    ///
    /// If the bytes are anything but exactly one letter, or a track in it cannot be.
    pub fn read(letter: &[u8]) -> Result<Self, NotALetter> {
        let (from, to) = shards(letter).ok_or(NotALetter)?;
        if letter.len() > MESSAGE_MAX {
            return Err(NotALetter);
        }
        let (notes, left): (Vec<Note>, _) =
            postcard::take_from_bytes(&letter[HEAD..]).map_err(|_| NotALetter)?;
        if !left.is_empty() || !notes.iter().all(Note::is_sane) {
            return Err(NotALetter);
        }
        Ok(Self { from, to, notes })
    }
}

/// The shards that a letter is from and to; `None` if it is not of this format.
pub fn shards(letter: &[u8]) -> Option<(ShardId, ShardId)> {
    match *letter {
        [FORMAT, from, to, ..] => Some((ShardId(from), ShardId(to))),
        _ => None,
    }
}

impl Note {
    fn is_sane(&self) -> bool {
        match self {
            Self::Want(Want { lane, name, .. }) => {
                is_lane(*lane) && !name.is_empty() && name.len() <= TRACK_NAME_LEN
            }
            Self::Unwant { lane } => is_lane(*lane),
            Self::Track { lane, version, state } => {
                is_lane(*lane) && *version > 0 && state.is_sane()
            }
        }
    }
}

fn is_lane(lane: u32) -> bool {
    LaneId::new(lane).is_some()
}

impl TrackState {
    fn is_sane(&self) -> bool {
        let Self::Live { meta, codec, rates } = self else { return true };
        let layers = meta.rids.len();
        (1..=LAYERS_PER_TRACK).contains(&layers)
            && rates.len() <= layers
            && (1..=CODECS_PER_TRACK).contains(&meta.codecs.len())
            && codec.is_none_or(|codec| usize::from(codec) < meta.codecs.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::MediaKind;
    use crate::ids::NodeId;
    use crate::media::format::{Codec, CodecSpec};

    fn meta(layers: usize) -> TrackMeta {
        TrackMeta {
            kind: MediaKind::Video,
            codecs: vec![CodecSpec { codec: Codec::Vp8, fmtp: "a=b".into() }],
            rids: (0..layers).map(|n| n.to_string()).collect(),
            cname: "c".into(),
            stream_id: "s".into(),
        }
    }

    fn want(name: &str) -> Note {
        let session = SessionId::new(NodeId(7), ShardId(3), 5, 9);
        let (app, name) = ("a".into(), name.into());
        Note::Want(Want { lane: 5, known: 0, layers: 3, app, session, name })
    }

    fn notes() -> impl Strategy<Value = Vec<Note>> {
        let live = (1..4usize, any::<Option<u64>>()).prop_map(|(layers, rate)| {
            let state = TrackState::Live { meta: meta(layers), codec: Some(0), rates: vec![rate] };
            Note::Track { lane: 1, version: 2, state }
        });
        let ended = any::<bool>().prop_map(|gone| Note::Track {
            lane: 0,
            version: 1,
            state: TrackState::Ended { gone },
        });
        let unwant = (0u32..1 << 24).prop_map(|lane| Note::Unwant { lane });
        let wants = "[a-z]{1,40}".prop_map(|name| want(&name));
        proptest::collection::vec(prop_oneof![live, ended, unwant, wants], 0..20)
    }

    fn letter(notes: Vec<Note>) -> Notes {
        Notes { from: ShardId(1), to: ShardId(2), notes }
    }

    proptest! {
        #[test]
        fn notes_are_read_as_they_were_written(notes in notes()) {
            let notes = letter(notes);
            let letters = notes.to_letters();
            prop_assert_eq!(letters.len(), 1);
            prop_assert_eq!(shards(&letters[0]), Some((ShardId(1), ShardId(2))));
            prop_assert_eq!(Notes::read(&letters[0]), Ok(notes));
        }

        #[test]
        fn a_letter_cut_or_continued_is_none(notes in notes(), cut: usize) {
            let mut bytes = letter(notes).to_letters().remove(0);
            prop_assert_eq!(Notes::read(&bytes[..cut % bytes.len()]), Err(NotALetter));
            bytes.push(0);
            prop_assert_eq!(Notes::read(&bytes), Err(NotALetter));
        }

        #[test]
        fn any_bytes_are_notes_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(notes) = Notes::read(&bytes) {
                prop_assert_eq!(notes.to_letters().len(), 1);
            }
        }
    }

    #[test]
    fn a_track_that_cannot_be_is_refused() {
        let live = |meta, codec, rates| {
            let state = TrackState::Live { meta, codec, rates };
            Notes::read(&letter(vec![Note::Track { lane: 1, version: 1, state }]).to_letters()[0])
        };
        assert!(live(meta(16), Some(0), vec![None; 16]).is_ok());
        assert!(live(meta(17), Some(0), vec![]).is_err(), "more layers than there are bits");
        assert!(live(meta(0), None, vec![]).is_err());
        assert!(live(meta(1), Some(1), vec![]).is_err(), "a codec that it does not have");
        assert!(live(meta(1), None, vec![None; 2]).is_err());
        let many = vec![meta(1).codecs[0].clone(); CODECS_PER_TRACK + 1];
        assert!(live(TrackMeta { codecs: many, ..meta(1) }, None, vec![]).is_err());
        for bad in [
            want(""),
            want(&"x".repeat(TRACK_NAME_LEN + 1)),
            Note::Unwant { lane: 1 << 24 },
            Note::Track { lane: 1, version: 0, state: TrackState::Sought },
        ] {
            assert!(Notes::read(&letter(vec![bad]).to_letters()[0]).is_err());
        }
    }

    #[test]
    fn more_than_fits_a_message_goes_in_several() {
        let notes = letter(vec![want(&"x".repeat(TRACK_NAME_LEN)); 3000]);
        let letters = notes.to_letters();
        assert!(letters.len() > 1 && letters.iter().all(|letter| letter.len() <= MESSAGE_MAX));
        let read = letters.iter().flat_map(|letter| Notes::read(letter).unwrap().notes);
        assert_eq!(read.collect::<Vec<_>>(), notes.notes);
    }
}

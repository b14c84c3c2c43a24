//! What nodes write to each other about sessions: requests of the API, and their answers.
//!
//! ```text
//! format (8) | postcard of a `Letter`
//! ```
//!
//! Invariants: what [`Letter::parse`] accepts is one whole letter, and a call names a session;
//! a letter never exceeds [`MESSAGE_MAX`].
//!
//! Not here: how letters travel (`relay::control`), and what becomes of them ([`super`]).

use relay::control::MESSAGE_MAX;
use serde::{Deserialize, Serialize};

use crate::command::{Answer, Ask};

/// The present format. Another one is for an incompatible change of anything a letter holds.
const FORMAT: u8 = 1;

/// One message of the class of calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// Execute this, and answer under this number, which the sender uses once. The application
    /// goes by its name, because each node numbers its own.
    Call { number: u64, app: String, ask: Ask },
    /// The answer to the receiver's call of this number.
    Answer { number: u64, answer: Answer },
}

/// The bytes are no letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotALetter;

impl Letter {
    /// The bytes to send; `None` if they would be longer than a message may be.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let bytes = postcard::to_extend(self, vec![FORMAT]).ok()?;
        (bytes.len() <= MESSAGE_MAX).then_some(bytes)
    }

    /// Reads a letter.
    ///
    /// # Errors
    ///
    /// If the bytes are anything but exactly one letter.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotALetter> {
        let (&format, rest) = bytes.split_first().ok_or(NotALetter)?;
        if format != FORMAT || bytes.len() > MESSAGE_MAX {
            return Err(NotALetter);
        }
        let (letter, left) = postcard::take_from_bytes(rest).map_err(|_| NotALetter)?;
        match &letter {
            _ if !left.is_empty() => Err(NotALetter),
            // New sessions are made where they are asked for.
            Self::Call { ask, .. } if ask.session().is_none() => Err(NotALetter),
            Self::Call { .. } | Self::Answer { .. } => Ok(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Description, Refusal, Reply, SdpKind, TrackObject, TracksRequest};
    use crate::ids::{NodeId, SessionId, ShardId};

    fn session(random: u64) -> SessionId {
        SessionId::new(NodeId(7), ShardId(3), 5, random)
    }

    fn letters() -> impl Strategy<Value = Letter> {
        let call = (any::<u64>(), ".{0,40}", any::<u64>(), ".{0,200}").prop_map(
            |(number, app, random, text)| {
                let offer = Description { kind: SdpKind::Offer, sdp: text.clone() };
                let track = TrackObject { track_name: Some(text), ..TrackObject::default() };
                let request = TracksRequest {
                    offer: Some(offer),
                    tracks: vec![track],
                    auto_discover: random % 2 == 0,
                };
                let ask = Ask::NewTracks { session: session(random), request };
                Letter::Call { number, app, ask }
            },
        );
        let answer = (any::<u64>(), ".{0,99}", any::<bool>()).prop_map(|(number, text, good)| {
            let refusal = Refusal::NotImplemented(text.into());
            Letter::Answer { number, answer: if good { Ok(Reply::Deleted) } else { Err(refusal) } }
        });
        prop_oneof![call, answer]
    }

    proptest! {
        #[test]
        fn a_letter_is_read_as_it_was_written(letter in letters()) {
            let bytes = letter.to_bytes().unwrap();
            prop_assert_eq!(Letter::parse(&bytes), Ok(letter));
        }

        #[test]
        fn a_letter_cut_or_continued_is_none(letter in letters(), cut in any::<usize>()) {
            let mut bytes = letter.to_bytes().unwrap();
            prop_assert_eq!(Letter::parse(&bytes[..cut % bytes.len()]), Err(NotALetter));
            bytes.push(0);
            prop_assert_eq!(Letter::parse(&bytes), Err(NotALetter));
        }

        #[test]
        fn any_bytes_are_a_letter_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(letter) = Letter::parse(&bytes) {
                prop_assert!(letter.to_bytes().is_some());
            }
        }
    }

    #[test]
    fn another_format_and_a_call_for_no_session_are_refused() {
        let call = |ask| Letter::Call { number: 1, app: "a".into(), ask };
        let mut bytes = call(Ask::Describe { session: session(1) }).to_bytes().unwrap();
        assert!(Letter::parse(&bytes).is_ok());
        bytes[0] = FORMAT + 1;
        assert_eq!(Letter::parse(&bytes), Err(NotALetter));
        let create = call(Ask::Create { offer: None }).to_bytes().unwrap();
        assert_eq!(Letter::parse(&create), Err(NotALetter));
    }

    #[test]
    fn what_is_longer_than_a_message_is_not_written() {
        let sdp = "x".repeat(MESSAGE_MAX);
        let description = Description { kind: SdpKind::Offer, sdp };
        let ask = Ask::Renegotiate { session: session(1), description };
        assert_eq!(Letter::Call { number: 1, app: "a".into(), ask }.to_bytes(), None);
    }
}

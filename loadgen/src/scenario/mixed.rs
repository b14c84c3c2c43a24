//! A stage, a meeting, an audio room and churn together, on one server. The sizes are those of
//! the stage; the others are a tenth of it.

use std::rc::Rc;

use super::audience::Audience;
use super::cast::{Cast, Track, all_leave};
use super::{Cue, Sizes, churn, meeting, stage};
use crate::api::{Caller, Failure};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    let (people, listeners) = beside(sizes.viewers);
    let meeting_sizes = Sizes { publishers: people, rooms: None, ..sizes.clone() };
    let room_sizes = Sizes { publishers: SPEAKERS, video: false, audio: true, ..sizes.clone() };
    let joins = sizes.publishers + sizes.viewers + 2 * people + SPEAKERS + listeners;
    cue.expect_joins(joins);
    let publishers = stage::publishers(&cast, &cue, sizes).await;
    let tracks: Rc<[Track]> = stage::tracks(&publishers).into();
    let viewers = stage::viewers(&cast, &cue, sizes, &tracks, sizes.viewers).await;
    let members = meeting::gather(&cast, &cue, &meeting_sizes).await?;
    let speakers = stage::publishers(&cast, &cue, &room_sizes).await;
    let voices = stage::tracks(&speakers);
    let listeners = stage::viewers(&cast, &cue, sizes, &voices, listeners).await;
    let audience = Audience::new(viewers);
    let turning = churn::turn_over(&cast, &cue, sizes.event_rate, &audience, &tracks);
    let viewers = audience.clone().measured(&cue, sizes, turning).await;
    for group in [viewers, listeners, members, speakers, publishers] {
        all_leave(&cast, group).await;
    }
    Ok(())
}

/// Of the audio room.
pub const SPEAKERS: usize = 3;

/// People of the meeting and listeners of the audio room, beside so many viewers of the stage.
pub fn beside(viewers: usize) -> (usize, usize) {
    let tenth = (viewers / 10).max(2);
    (tenth.min(MEETING_MAX), tenth)
}

/// Everyone pulls everyone: beyond this the meeting would be the whole load.
const MEETING_MAX: usize = 12;

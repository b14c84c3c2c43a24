//! A track goes viral: viewers that are connected, listening to its audio, all pull its video.

use std::rc::Rc;
use std::time::Duration;

use super::cast::{Cast, Track, all_leave, at_rate};
use super::{Cue, Sizes, stage};
use crate::api::{Caller, Cause, Failure, Kind};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    if !cast.api.can_change() {
        let what = "a pull-storm needs sessions that can pull more, which this API has not";
        return Err(Failure::new(Cause::Refused, what));
    }
    let sizes = Sizes { video: true, audio: true, ..sizes.clone() };
    cue.expect_joins(sizes.publishers + sizes.viewers);
    let publishers = stage::publishers(&cast, &cue, &sizes).await;
    let tracks = stage::tracks(&publishers);
    let of = |kind: Kind| -> Vec<Track> {
        tracks.iter().filter(|track| track.kind == kind).take(1).cloned().collect()
    };
    let (audio, video) = (of(Kind::Audio), Rc::new(of(Kind::Video)));
    let viewers = stage::viewers(&cast, &cue, &sizes, &audio, sizes.viewers).await;
    let mut waiting: Vec<_> = viewers.into_iter().map(Some).collect();
    let count = waiting.len();
    let storm = at_rate(&cue, count, sizes.event_rate, |at| {
        let member = waiting[at].take();
        let (cast, video) = (Rc::clone(&cast), Rc::clone(&video));
        async move {
            let mut member = member?;
            if let Err(failure) = cast.pull_more(&mut member, &video).await {
                cast.fail(failure);
            }
            Some(member)
        }
    });
    // The measurement begins with the storm.
    let (members, ()) = tokio::join!(storm, cue.steady(Duration::ZERO, sizes.duration));
    let viewers = members.into_iter().flatten().chain(waiting.into_iter().flatten()).collect();
    all_leave(&cast, viewers).await;
    all_leave(&cast, publishers).await;
    Ok(())
}

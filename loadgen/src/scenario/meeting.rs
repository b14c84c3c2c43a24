//! Everyone publishes audio and video, and pulls everyone else's.

use std::rc::Rc;

use super::cast::{Cast, Member, Track, all_leave, at_rate};
use super::{Cue, Sizes, stage};
use crate::api::{Caller, Cause, Failure};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    cue.expect_joins(2 * sizes.publishers);
    let members = gather(&cast, &cue, sizes).await?;
    cue.steady(sizes.settle, sizes.duration).await;
    all_leave(&cast, members).await;
    Ok(())
}

/// All join and publish; then each pulls all others.
pub(super) async fn gather<C: Caller + Clone + 'static>(
    cast: &Rc<Cast<C>>,
    cue: &Rc<Cue>,
    sizes: &Sizes,
) -> Result<Vec<Member>, Failure> {
    if !cast.api.can_pull_and_push() {
        let what = "a meeting needs sessions that publish and receive, which this API has not";
        return Err(Failure::new(Cause::Refused, what));
    }
    let members = stage::publishers(cast, cue, sizes).await;
    let tracks: Rc<[Vec<Track>]> = members.iter().map(|m| m.tracks.clone()).collect();
    let mut waiting: Vec<Option<Member>> = members.into_iter().map(Some).collect();
    let count = waiting.len();
    let pull = |at: usize| {
        let member = waiting[at].take();
        let (cast, cue, tracks) = (Rc::clone(cast), Rc::clone(cue), Rc::clone(&tracks));
        async move {
            let mut member = member?;
            let others = tracks.iter().enumerate().filter(|(other, _)| *other != at);
            let others: Vec<Track> = others.flat_map(|(_, tracks)| tracks.clone()).collect();
            if let Err(failure) = cast.pull_more(&mut member, &others).await {
                cast.fail(failure);
            }
            cue.joined();
            Some(member)
        }
    };
    let members = at_rate(cue, count, sizes.join_rate, pull).await;
    // Those whose turn did not come before the run was stopped leave with the others.
    Ok(members.into_iter().flatten().chain(waiting.into_iter().flatten()).collect())
}

//! Publishers with audio and video, each watched by all viewers.

use std::rc::Rc;

use super::cast::{Cast, Member, Track, all_leave, at_rate, by_session};
use super::{Cue, Sizes};
use crate::api::{Caller, Failure, Kind};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    cue.expect_joins(sizes.publishers + sizes.viewers);
    let publishers = publishers(&cast, &cue, sizes).await;
    let tracks = tracks(&publishers);
    let viewers = viewers(&cast, &cue, sizes, &tracks, sizes.viewers).await;
    cue.steady(sizes.settle, sizes.duration).await;
    all_leave(&cast, viewers).await;
    all_leave(&cast, publishers).await;
    Ok(())
}

/// Those who publish, all there.
pub(super) async fn publishers<C: Caller + Clone + 'static>(
    cast: &Rc<Cast<C>>,
    cue: &Rc<Cue>,
    sizes: &Sizes,
) -> Vec<Member> {
    let kinds = kinds(sizes);
    let join = |_| {
        let (cast, cue, kinds) = (Rc::clone(cast), Rc::clone(cue), kinds.clone());
        async move {
            let member = cast.join(&kinds, &[]).await;
            cue.joined();
            member
        }
    };
    at_rate(cue, sizes.publishers, sizes.join_rate, join).await.into_iter().flatten().collect()
}

pub(super) fn kinds(sizes: &Sizes) -> Vec<Kind> {
    let audio = sizes.audio.then_some(Kind::Audio);
    let video = sizes.video.then_some(Kind::Video);
    audio.into_iter().chain(video).collect()
}

pub(super) fn tracks(publishers: &[Member]) -> Vec<Track> {
    publishers.iter().flat_map(|member| member.tracks.iter().cloned()).collect()
}

/// `count` viewers of all these tracks. A server whose sessions receive one publisher's only
/// gets a session for each.
pub(super) async fn viewers<C: Caller + Clone + 'static>(
    cast: &Rc<Cast<C>>,
    cue: &Rc<Cue>,
    sizes: &Sizes,
    tracks: &[Track],
    count: usize,
) -> Vec<Member> {
    if tracks.is_empty() {
        return Vec::new();
    }
    let sessions = by_session(tracks, cast.api.pulls_per_session());
    let join = |_| {
        let (cast, cue, sessions) = (Rc::clone(cast), Rc::clone(cue), Rc::clone(&sessions));
        async move {
            let mut members = Vec::with_capacity(sessions.len());
            for tracks in sessions.iter() {
                members.extend(cast.join(&[], tracks).await);
            }
            cue.joined();
            members
        }
    };
    at_rate(cue, count, sizes.join_rate, join).await.into_iter().flatten().collect()
}

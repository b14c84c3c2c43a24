//! A stage whose viewers come and go: as many join each second as leave.

use std::rc::Rc;
use std::time::Duration;

use super::audience::Audience;
use super::cast::{Cast, Track, all_leave, by_session};
use super::{Cue, Sizes, stage};
use crate::api::{Caller, Failure};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    cue.expect_joins(sizes.publishers + sizes.viewers);
    let publishers = stage::publishers(&cast, &cue, sizes).await;
    let tracks: Rc<[Track]> = stage::tracks(&publishers).into();
    let viewers = stage::viewers(&cast, &cue, sizes, &tracks, sizes.viewers).await;
    let audience = Audience::new(viewers);
    let turning = turn_over(&cast, &cue, sizes.event_rate, &audience, &tracks);
    let viewers = audience.clone().measured(&cue, sizes, turning).await;
    all_leave(&cast, viewers).await;
    all_leave(&cast, publishers).await;
    Ok(())
}

/// The longest-seated leaves, another comes, `rate` times a second, for ever. Who needs several
/// sessions to watch comes and goes with one at a time.
pub(super) async fn turn_over<C: Caller + Clone + 'static>(
    cast: &Rc<Cast<C>>,
    cue: &Rc<Cue>,
    rate: f64,
    audience: &Audience,
    tracks: &Rc<[Track]>,
) {
    let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.max(0.01)));
    let sessions = by_session(tracks, cast.api.pulls_per_session());
    let mut turn = (0..sessions.len()).cycle();
    loop {
        beat.tick().await;
        let next = turn.next().filter(|_| !cue.is_stopped());
        let Some(next) = next else { return std::future::pending().await };
        let leaving = audience.take_first();
        let (cast, seated) = (Rc::clone(cast), audience.clone());
        let sessions = Rc::clone(&sessions);
        audience.run(async move {
            if let Some(member) = leaving {
                cast.leave(member).await;
            }
            if let Some(member) = cast.join(&[], &sessions[next]).await {
                seated.seat(member);
            }
        });
    }
}

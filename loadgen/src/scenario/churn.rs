//! A stage whose viewers come and go: as many join each second as leave.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::cast::{Cast, Errands, Member, Track, all_leave, by_session};
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
    let seats = Rc::new(RefCell::new(VecDeque::from(viewers)));
    let errands = Errands::default();
    let turning = turn_over(&cast, &cue, sizes.event_rate, &seats, &tracks, &errands);
    tokio::select! {
        () = cue.steady(sizes.settle, sizes.duration) => {}
        () = turning => {}
    }
    errands.finish().await;
    let viewers: Vec<Member> = seats.borrow_mut().drain(..).collect();
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
    seats: &Rc<RefCell<VecDeque<Member>>>,
    tracks: &Rc<[Track]>,
    errands: &Errands,
) {
    let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.max(0.01)));
    let sessions = by_session(tracks, cast.api.pulls_per_session());
    let mut turn = (0..sessions.len()).cycle();
    loop {
        beat.tick().await;
        let next = turn.next().filter(|_| !cue.is_stopped());
        let Some(next) = next else { return std::future::pending().await };
        let leaving = seats.borrow_mut().pop_front();
        let (cast, seats) = (Rc::clone(cast), Rc::clone(seats));
        let sessions = Rc::clone(&sessions);
        errands.run(async move {
            if let Some(member) = leaving {
                cast.leave(member).await;
            }
            if let Some(member) = cast.join(&[], &sessions[next]).await {
                seats.borrow_mut().push_back(member);
            }
        });
    }
}

//! A stage whose viewers change their address: every other one without a word, as behind a NAT
//! that rebinds; the others with an ICE restart, as from one network to another.

use std::rc::Rc;
use std::time::Duration;

use super::audience::Audience;
use super::cast::{Cast, Member, all_leave};
use super::{Cue, Sizes, stage};
use crate::api::{Caller, Failure};
use crate::real::clock;
use crate::report::tally::Tally;

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    cue.expect_joins(sizes.publishers + sizes.viewers);
    let publishers = stage::publishers(&cast, &cue, sizes).await;
    let tracks = stage::tracks(&publishers);
    let viewers = stage::viewers(&cast, &cue, sizes, &tracks, sizes.viewers).await;
    let audience = Audience::new(viewers);
    let moving = move_about(&cast, &cue, sizes, &audience);
    let viewers = audience.clone().measured(&cue, sizes, moving).await;
    all_leave(&cast, viewers).await;
    all_leave(&cast, publishers).await;
    Ok(())
}

/// One after the other moves, `event_rate` a second, for ever.
async fn move_about<C: Caller + Clone + 'static>(
    cast: &Rc<Cast<C>>,
    cue: &Rc<Cue>,
    sizes: &Sizes,
    audience: &Audience,
) {
    let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / sizes.event_rate.max(0.01)));
    let mut restarts = false;
    loop {
        beat.tick().await;
        if cue.is_stopped() {
            std::future::pending::<()>().await;
        }
        // All are on the move: the next beat may find one.
        let Some(member) = audience.take_first() else { continue };
        restarts = !restarts && cast.api.can_restart_ice();
        let (cast, seated, patience) = (Rc::clone(cast), audience.clone(), sizes.patience);
        audience.run(async move {
            if let Err(failure) = roam(&cast, &member, restarts, patience).await {
                cast.fail(failure);
            }
            seated.seat(member);
        });
    }
}

/// Moves one viewer; counts its time without media.
async fn roam<C: Caller + Clone + 'static>(
    cast: &Cast<C>,
    member: &Member,
    restarts: bool,
    patience: Duration,
) -> Result<(), Failure> {
    let began = clock::moment().now;
    member.hand.rebind();
    if restarts {
        cast.api.restart_ice(&cast.caller, &member.hand, &member.joined).await?;
    }
    member.hand.media_again(patience).await?;
    let elapsed = clock::moment().now.saturating_duration_since(began);
    Tally::record(&mut cast.tally.borrow_mut().outage, elapsed);
    Ok(())
}

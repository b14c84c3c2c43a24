//! Who joins when, and does what. One file per scenario; all play with a [`Cast`] and follow a
//! [`Cue`].
//!
//! Invariants: a failed peer is counted and left out, it does not end the run; a scenario ends
//! when it is cued to, early or not, and everybody leaves: viewers first, so that what
//! publishers stop sending is not missed.

mod audience;
pub mod cast;
mod churn;
pub mod cue;
mod idle;
mod meeting;
pub mod mixed;
mod roam;
mod room;
pub mod sizes;
mod stage;
mod storm;

use std::rc::Rc;

pub use self::cast::Cast;
pub use self::cue::Cue;
pub use self::sizes::{Scenario, Sizes};
use crate::api::{Caller, Failure};

/// Plays a scenario from the first join to the last leave.
pub async fn play<C: Caller + Clone + 'static>(
    scenario: Scenario,
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    match scenario {
        Scenario::Stage => stage::play(cast, cue, sizes).await,
        Scenario::Meeting => meeting::play(cast, cue, sizes).await,
        Scenario::AudioRoom => room::play(cast, cue, sizes).await,
        Scenario::Churn => churn::play(cast, cue, sizes).await,
        Scenario::PullStorm => storm::play(cast, cue, sizes).await,
        Scenario::Roam => roam::play(cast, cue, sizes).await,
        Scenario::Idle => idle::play(cast, cue, sizes).await,
        Scenario::Mixed => mixed::play(cast, cue, sizes).await,
    }
}

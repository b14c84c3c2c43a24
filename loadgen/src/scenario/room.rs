//! Speakers with audio only, heard by all listeners.

use std::rc::Rc;

use super::cast::Cast;
use super::{Cue, Sizes, stage};
use crate::api::{Caller, Failure};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    let sizes = Sizes { video: false, audio: true, ..sizes.clone() };
    stage::play(cast, cue, &sizes).await
}

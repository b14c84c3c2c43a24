//! Connected sessions on which nothing happens but the checks that keep their path alive.

use std::rc::Rc;

use super::cast::{Cast, all_leave, at_rate};
use super::{Cue, Sizes};
use crate::api::{Caller, Failure, Kind};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    cue.expect_joins(sizes.publishers);
    let join = |_| {
        let (cast, cue) = (Rc::clone(&cast), Rc::clone(&cue));
        async move {
            let member = cast.join_silently(&[Kind::Audio]).await;
            cue.joined();
            member
        }
    };
    let members = at_rate(&cue, sizes.publishers, sizes.join_rate, join).await;
    cue.steady(sizes.settle, sizes.duration).await;
    all_leave(&cast, members.into_iter().flatten().collect()).await;
    Ok(())
}

//! Meetings: in each, everyone publishes audio and video, and pulls everyone else's.
//!
//! Invariant: rooms know nothing of each other; who fails to join leaves his own room smaller.

use std::rc::Rc;

use super::cast::{Cast, Member, all_leave, at_rate};
use super::{Cue, Sizes, stage};
use crate::api::{Caller, Cause, Failure};

pub(super) async fn play<C: Caller + Clone + 'static>(
    cast: Rc<Cast<C>>,
    cue: Rc<Cue>,
    sizes: &Sizes,
) -> Result<(), Failure> {
    cue.expect_joins(2 * sizes.publishers * sizes.rooms());
    let members = gather(&cast, &cue, sizes).await?;
    cue.steady(sizes.settle, sizes.duration).await;
    all_leave(&cast, members).await;
    Ok(())
}

/// Somebody, and in which room.
#[derive(Debug)]
struct Guest {
    room: usize,
    member: Member,
}

/// All join and publish; then each pulls all others of the room.
pub(super) async fn gather<C: Caller + Clone + 'static>(
    cast: &Rc<Cast<C>>,
    cue: &Rc<Cue>,
    sizes: &Sizes,
) -> Result<Vec<Member>, Failure> {
    if !cast.api.can_pull_and_push() {
        let what = "a meeting needs sessions that publish and receive, which this API has not";
        return Err(Failure::new(Cause::Refused, what));
    }
    let guests = arrive(cast, cue, sizes).await;
    let published: Vec<_> =
        guests.iter().map(|guest| (guest.room, guest.member.tracks.clone())).collect();
    let mut waiting: Vec<Option<Guest>> = guests.into_iter().map(Some).collect();
    let pull = |at: usize| {
        let guest = waiting[at].take();
        let others = guest.as_ref().map(|guest| others(&published, at, guest.room));
        let (cast, cue) = (Rc::clone(cast), Rc::clone(cue));
        async move {
            let (mut guest, others) = (guest?, others?);
            if let Err(failure) = cast.pull_more(&mut guest.member, &others).await {
                cast.fail(failure);
            }
            cue.joined();
            Some(guest)
        }
    };
    let guests = at_rate(cue, published.len(), sizes.join_rate, pull).await;
    // Those whose turn did not come before the run was stopped leave with the others.
    let all = guests.into_iter().flatten().chain(waiting.into_iter().flatten());
    Ok(all.map(|guest| guest.member).collect())
}

/// Fills one room after the other.
async fn arrive<C: Caller + Clone + 'static>(
    cast: &Rc<Cast<C>>,
    cue: &Rc<Cue>,
    sizes: &Sizes,
) -> Vec<Guest> {
    let (kinds, people) = (stage::kinds(sizes), sizes.publishers);
    let join = |number: usize| {
        let (cast, cue, kinds) = (Rc::clone(cast), Rc::clone(cue), kinds.clone());
        async move {
            let member = cast.join(&kinds, &[]).await;
            cue.joined();
            Some(Guest { room: number / people, member: member? })
        }
    };
    let all = people * sizes.rooms();
    at_rate(cue, all, sizes.join_rate, join).await.into_iter().flatten().collect()
}

/// What the others in the room publish. Guests stand in the order of their rooms.
fn others<T: Clone>(published: &[(usize, Vec<T>)], of: usize, room: usize) -> Vec<T> {
    let first = published.partition_point(|(other, _)| *other < room);
    let there = published[first..].iter().enumerate().map(|(at, guest)| (first + at, guest));
    let there = there.take_while(|(_, (other, _))| *other == room);
    there.filter(|(at, _)| *at != of).flat_map(|(_, (_, tracks))| tracks.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_pulls_the_others_of_the_room_and_nobody_else() {
        // The second room lost somebody on the way in, the third everybody.
        let published: Vec<(usize, Vec<char>)> = vec![
            (0, vec!['a', 'A']),
            (0, vec!['b']),
            (0, vec!['c']),
            (1, vec!['d']),
            (1, vec!['e', 'E']),
            (3, vec!['f']),
        ];
        let pulled =
            |at: usize| -> String { others(&published, at, published[at].0).into_iter().collect() };
        let all: Vec<String> = (0..published.len()).map(pulled).collect();
        assert_eq!(all, ["bc", "aAc", "aAb", "eE", "d", ""]);
    }
}

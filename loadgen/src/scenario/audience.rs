//! Viewers that come, go or move while a run is measured.
//!
//! Invariants: who is on the way when the measurement ends arrives, or fails to, before anybody
//! leaves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::task::JoinSet;

use super::cast::Member;
use super::{Cue, Sizes};

/// Those who are seated, and what is done about some of them. Clones are one audience.
#[derive(Debug, Clone, Default)]
pub(super) struct Audience {
    seats: Rc<RefCell<VecDeque<Member>>>,
    errands: Rc<RefCell<JoinSet<()>>>,
}

impl Audience {
    pub(super) fn new(viewers: Vec<Member>) -> Self {
        Self { seats: Rc::new(RefCell::new(viewers.into())), ..Self::default() }
    }

    /// Whoever has been seated longest gets up.
    pub(super) fn take_first(&self) -> Option<Member> {
        self.seats.borrow_mut().pop_front()
    }

    pub(super) fn seat(&self, member: Member) {
        self.seats.borrow_mut().push_back(member);
    }

    /// Does something beside: a join, a move. It must end by itself.
    pub(super) fn run(&self, errand: impl Future<Output = ()> + 'static) {
        let mut running = self.errands.borrow_mut();
        running.spawn_local(errand);
        // Those that are done make room.
        while running.try_join_next().is_some() {}
    }

    /// Measures while `bustle` goes on, which does not end by itself; gives everybody who is
    /// seated then.
    pub(super) async fn measured(
        self,
        cue: &Cue,
        sizes: &Sizes,
        bustle: impl Future<Output = ()>,
    ) -> Vec<Member> {
        tokio::select! {
            () = cue.steady(sizes.settle, sizes.duration) => {}
            () = bustle => {}
        }
        let mut running = std::mem::take(&mut *self.errands.borrow_mut());
        while running.join_next().await.is_some() {}
        self.seats.borrow_mut().drain(..).collect()
    }
}

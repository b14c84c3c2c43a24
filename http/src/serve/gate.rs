//! A bound on TLS handshakes under way.
//!
//! Invariants: never more inside than allowed; who waits can give up; leaving wakes all who
//! wait, so that none is forgotten when another gave up.
//!
//! Not here: what is done inside.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
pub(super) struct Gate {
    room: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

/// A place inside.
#[derive(Debug)]
pub(super) struct Inside(Rc<Gate>);

impl Gate {
    pub(super) fn new(room: usize) -> Self {
        Self { room: Cell::new(room), waiting: RefCell::default() }
    }

    pub(super) fn poll_enter(self: &Rc<Self>, cx: &Context<'_>) -> Poll<Inside> {
        match self.room.get().checked_sub(1) {
            Some(room) => {
                self.room.set(room);
                Poll::Ready(Inside(self.clone()))
            }
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.room.set(self.0.room.get() + 1);
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_left_is_taken_by_who_waits() {
        let gate = Rc::new(Gate::new(1));
        let cx = Context::from_waker(Waker::noop());
        let Poll::Ready(inside) = gate.poll_enter(&cx) else { panic!("there is room") };
        assert!(gate.poll_enter(&cx).is_pending());
        drop(inside);
        assert!(gate.waiting.borrow().is_empty());
        assert!(gate.poll_enter(&cx).is_ready());
    }
}

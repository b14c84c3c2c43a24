//! The deadlines of a shard's connections, checked together a few times a second.
//!
//! A timer per read would cost a wake of the executor each (50 us); looking at every
//! connection's deadline costs microseconds at the number we allow, so there is no wheel.
//!
//! Invariants: an alarm rings at most one tick late, never early; a dropped alarm is forgotten.
//!
//! Not here: the clock and the timer; `serve` ticks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

/// All alarms of a shard.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    slots: RefCell<Vec<Option<Slot>>>,
    free: RefCell<Vec<usize>>,
    leaving: Cell<bool>,
    cut: Cell<bool>,
}

#[derive(Debug, Default)]
struct Slot {
    due: Option<Instant>,
    rung: bool,
    waker: Option<Waker>,
}

/// One task's place among the alarms.
#[derive(Debug)]
pub(crate) struct Alarm {
    alarms: Rc<Alarms>,
    index: usize,
}

impl Alarms {
    pub(crate) fn register(self: &Rc<Self>) -> Alarm {
        let mut slots = self.slots.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                slots[index] = Some(Slot::default());
                index
            }
            None => {
                slots.push(Some(Slot::default()));
                slots.len() - 1
            }
        };
        Alarm { alarms: self.clone(), index }
    }

    /// Rings what is due.
    pub(crate) fn tick(&self, now: Instant) {
        for slot in self.slots.borrow_mut().iter_mut().flatten() {
            if slot.due.is_some_and(|due| due <= now) {
                slot.due = None;
                slot.rung = true;
                slot.wake();
            }
        }
    }

    /// Tells everyone that the node leaves.
    pub(crate) fn leave(&self) {
        self.leaving.set(true);
        self.wake_all();
    }

    /// Tells everyone to end at once.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.slots.borrow_mut().iter_mut().flatten().for_each(Slot::wake);
    }
}

impl Slot {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Alarm {
    /// Sets when to ring; forgets a ring before.
    pub(crate) fn set(&self, due: Option<Instant>) {
        self.with(|slot| {
            slot.due = due;
            slot.rung = false;
        });
    }

    pub(crate) fn has_rung(&self) -> bool {
        self.with(|slot| slot.rung)
    }

    /// Whom to wake. One task owns an alarm, so the last waker is the right one.
    pub(crate) fn listen(&self, waker: &Waker) {
        self.with(|slot| match &mut slot.waker {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        });
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.alarms.leaving.get()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.alarms.cut.get()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.alarms.slots.borrow_mut();
        act(slots[self.index].as_mut().expect("a slot lives as long as its alarm"))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.alarms.slots.borrow_mut()[self.index] = None;
        self.alarms.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn alarms_ring_when_due_and_not_before() {
        let alarms = Rc::new(Alarms::default());
        let start = Instant::now();
        let (early, late) = (alarms.register(), alarms.register());
        early.set(Some(start + Duration::from_secs(1)));
        late.set(Some(start + Duration::from_secs(3)));
        alarms.tick(start);
        assert!(!early.has_rung() && !late.has_rung());
        alarms.tick(start + Duration::from_secs(1));
        assert!(early.has_rung() && !late.has_rung());
        late.set(None);
        alarms.tick(start + Duration::from_secs(9));
        assert!(!late.has_rung(), "set to nothing, it is silent");
    }

    #[test]
    fn places_are_used_again() {
        let alarms = Rc::new(Alarms::default());
        for _ in 0..10 {
            drop(alarms.register());
        }
        assert_eq!(alarms.slots.borrow().len(), 1);
    }
}

//! A doorbell: wakes a sleeping shard from another thread.
//!
//! A wake costs both sides 15 to 40 µs, far more than what it announces. So a ringer writes
//! to the shard's eventfd only if the shard said that it is about to sleep, and only the first
//! ringer of a sleep does.
//!
//! Invariants: no wake is lost here. The shard first says "asleep", then looks for work, then
//! sleeps; a ringer first leaves work, then looks for "asleep". Both put a sequentially
//! consistent fence between the two, so at least one sees what the other did.
//!
//! Not here: the queues that hold the work (`mesh`).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::watch::Watch;

/// The button. Clones ring the same bell, from any thread.
#[derive(Debug, Clone)]
pub struct Bell {
    wire: Arc<Wire>,
}

/// The shard's side. Belongs to the executor it first waits in.
pub struct Ear {
    wire: Arc<Wire>,
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Wire {
    eventfd: OwnedFd,
    asleep: AtomicBool,
}

impl Bell {
    /// A bell that nobody listens to yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            wire: Arc::new(Wire { eventfd: new_eventfd()?, asleep: AtomicBool::new(false) }),
        })
    }

    /// The listening side, to be made on the shard's thread. One per bell: two would steal each
    /// other's wakes.
    pub fn ear(&self) -> Ear {
        Ear { wire: Arc::clone(&self.wire), watch: None }
    }

    /// Wakes the shard if it sleeps. To be called after the work was left where it looks.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        let asleep = &self.wire.asleep;
        if asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::SeqCst) {
            write(self.wire.eventfd.as_fd());
        }
    }

    /// Wakes the shard whatever it said, or spoils its next sleep. For what it does not look for
    /// before it sleeps: that it shall leave.
    pub fn rouse(&self) {
        write(self.wire.eventfd.as_fd());
    }
}

impl Ear {
    /// Sleeps until rung, unless `has_work` finds something, now or right after a wake was
    /// asked for. May be given up at any time, for instance because a datagram came first.
    pub async fn rung(&mut self, mut has_work: impl FnMut() -> bool) -> io::Result<()> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(Watch::eventfd(&self.wire.eventfd)?),
        };
        let _awake_again = Asleep::fall(&self.wire.asleep);
        if !has_work() {
            poll_fn(|cx| watch.poll(cx)).await;
        }
        Ok(())
    }
}

/// While this lives, ringers write.
struct Asleep<'a>(&'a AtomicBool);

impl<'a> Asleep<'a> {
    fn fall(asleep: &'a AtomicBool) -> Self {
        asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Self(asleep)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ear(asleep: {})", self.wire.asleep.load(Ordering::Relaxed))
    }
}

/// An eventfd for [`Watch::eventfd`]: blocking, because glommio's read has to wait.
pub(super) fn new_eventfd() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Cannot fail or block: the count would have to reach 2^64 - 2 first.
fn write(eventfd: BorrowedFd<'_>) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight live bytes, as an eventfd demands.
    unsafe { libc::write(eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use futures_lite::FutureExt;
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    #[test]
    fn no_wake_is_lost_between_threads() {
        const ROUNDS: u64 = 20_000;
        let bell = Bell::new().unwrap();
        let left = Arc::new(AtomicU64::new(0));
        let shard = {
            let (bell, left) = (bell.clone(), Arc::clone(&left));
            LocalExecutorBuilder::new(Placement::Unbound)
                .spawn(move || async move {
                    let mut ear = bell.ear();
                    let (mut seen, mut sleeps) = (0, 0);
                    while seen < 2 * ROUNDS {
                        let before = seen;
                        ear.rung(|| left.load(Ordering::Acquire) != before).await.unwrap();
                        sleeps += 1;
                        seen = left.load(Ordering::Acquire);
                    }
                    sleeps
                })
                .unwrap()
        };
        let ringers: Vec<_> = (0..2)
            .map(|ringer| {
                let (bell, left) = (bell.clone(), Arc::clone(&left));
                std::thread::spawn(move || {
                    for n in 0..ROUNDS {
                        left.fetch_add(1, Ordering::Release);
                        bell.ring();
                        // Now and then long enough for the shard to fall asleep.
                        match n % 64 {
                            0 => std::thread::sleep(Duration::from_micros(ringer * 40)),
                            1..8 => std::thread::yield_now(),
                            _ => {}
                        }
                    }
                })
            })
            .collect();
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
        // A lost wake would hang here.
        assert!(shard.join().unwrap() > 0);
    }

    #[test]
    fn nobody_writes_to_a_shard_that_is_awake() {
        let bell = Bell::new().unwrap();
        (0..10).for_each(|_| bell.ring());
        bell.wire.asleep.store(true, Ordering::SeqCst);
        (0..10).for_each(|_| bell.ring());
        let mut count = [0; 8];
        // SAFETY: eight writable bytes; the read cannot block, as one ring was written.
        unsafe { libc::read(bell.wire.eventfd.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn a_shard_that_does_not_seem_to_sleep_can_be_roused() {
        let bell = Bell::new().unwrap();
        let shard = {
            let bell = bell.clone();
            LocalExecutorBuilder::new(Placement::Unbound)
                .spawn(move || async move {
                    let mut ear = bell.ear();
                    ear.rung(|| false).await.unwrap();
                    // And again: roused once is woken once.
                    let unheard = ear.rung(|| false).or(async {
                        glommio::timer::sleep(Duration::from_millis(20)).await;
                        Err(io::ErrorKind::TimedOut.into())
                    });
                    unheard.await.unwrap_err().kind()
                })
                .unwrap()
        };
        while !bell.wire.asleep.swap(false, Ordering::SeqCst) {
            std::thread::yield_now();
        }
        bell.ring();
        bell.rouse();
        // Would hang here.
        assert_eq!(shard.join().unwrap(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_wait_given_up_loses_nothing() {
        let bell = Bell::new().unwrap();
        let other = bell.clone();
        let shard = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let mut ear = bell.ear();
                // More than the 32,767 wakers of one task that glommio can count.
                for _ in 0..40_000 {
                    ear.rung(|| false).or(std::future::ready(Ok(()))).await.unwrap();
                }
                let ringer = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    (0..1000).for_each(|_| {
                        other.ring();
                        std::thread::yield_now();
                    });
                });
                ear.rung(|| false).await.unwrap();
                ringer.join().unwrap();
            })
            .unwrap();
        shard.join().unwrap();
    }
}

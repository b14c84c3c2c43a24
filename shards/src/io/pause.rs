//! Pauses of some 50 to 200 µs, by stopping the thread.
//!
//! A timer of the executor costs more CPU (16 µs against 25 µs alone, `cargo bench --bench port`,
//! and twice that in a whole shard). The price is that everything else on the thread waits too:
//! `wake` bounds that.
//!
//! Not here: whether and how long (`wake`).

use std::time::Duration;

/// How much later than asked the kernel may end a pause of this thread. Its default of 50 µs
/// would be half of a pause again.
const SLACK: Duration = Duration::from_micros(1);

/// To be called once, on the thread that will pause.
pub fn prepare() {
    // SAFETY: takes numbers only, and concerns this thread only. It cannot fail; if it did,
    // pauses would be a little longer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK.as_nanos() as libc::c_ulong) };
}

/// Stops the thread for `time`.
pub fn stop(time: Duration) {
    std::thread::sleep(time);
}

//! How long to wait before asking again for what may come.

use std::time::Duration;

use super::Caller;

/// A track that is not there after this many asks does not come: some 12 s have passed, and
/// servers wait for the track themselves besides.
const ASKS: u32 = 8;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(4);

/// Pauses that double, with a little chance so that peers refused together do not return
/// together. Bounded in number and length.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    asked: u32,
}

impl Backoff {
    /// Waits; false when it is time to give up.
    pub(super) async fn wait<C: Caller>(&mut self, caller: &C) -> bool {
        self.asked += 1;
        if self.asked >= ASKS {
            return false;
        }
        let pause = LONGEST.min(FIRST * 2u32.pow(self.asked - 1));
        let share = (caller.random() % 256) as u32;
        caller.pause(pause / 2 + pause * share / 512).await;
        true
    }
}

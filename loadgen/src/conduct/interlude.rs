//! Something that is done between the measurement and the leaving: nobody publishes any more,
//! but everybody's sockets are still open and looked at as before.
//!
//! It is for measuring what the same receivers cost whoever sends to them without a server.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot::{Receiver, channel};

/// Runs on a thread of its own; everybody stays until it returns. Left out when the run is
/// stopped early.
#[derive(Clone)]
pub struct Interlude(Arc<dyn Fn(Window) + Send + Sync>);

/// What was measured before, nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: u64,
    pub to: u64,
}

impl Interlude {
    pub fn new(play: impl Fn(Window) + Send + Sync + 'static) -> Self {
        Self(Arc::new(play))
    }

    /// Starts it. What is returned is settled when it has ended, however it has.
    pub(super) fn begin(&self, window: Window) -> Receiver<()> {
        let (ended, end) = channel();
        let play = Arc::clone(&self.0);
        std::thread::spawn(move || {
            play(window);
            // Nobody waits when the run is over.
            let _ = ended.send(());
        });
        end
    }
}

impl fmt::Debug for Interlude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interlude")
    }
}

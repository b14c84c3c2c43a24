//! Containment: a panic while serving one session ends that session, not the shard.
//!
//! Panics are bugs, ours or a library's. What the interrupted work left half done belongs to
//! the session that is ended for it; what it held of others' is soft state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{Engine, SessionKey};

impl Engine {
    /// Does `work`; should it panic, the session that `culprit` names is ended.
    pub(super) fn guarded(
        &mut self,
        now: Instant,
        culprit: impl FnOnce(&Self) -> Option<SessionKey>,
        work: impl FnOnce(&mut Self),
    ) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            let session = culprit(self);
            self.session_failed(session, now);
        }
    }

    /// A session's work panicked.
    pub(super) fn session_failed(&mut self, session: Option<SessionKey>, now: Instant) {
        self.meters.panics += 1;
        let Some(key) = session else { return };
        tracing::warn!("a session failed inside and was ended");
        if catch_unwind(AssertUnwindSafe(|| self.end_session(key, now))).is_err() {
            // Not even its end could be done in order: at least nothing finds it any more.
            self.sessions.remove(key);
        }
    }
}

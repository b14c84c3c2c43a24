//! What a debug build remembers of the RTP indexes it sealed, to catch one sealed twice.
//!
//! Not here: anything in a release build. The caller owns the indexes; this only checks.

use crate::media::replay::ReplayWindow;
use std::cell::RefCell;

/// The recent indexes of recent SSRCs under one key.
#[derive(Default)]
pub(super) struct Ledger(RefCell<Vec<(u32, ReplayWindow)>>);

impl Ledger {
    /// Panics if (`ssrc`, `index`) was sealed before, or is too far back to tell.
    pub(super) fn enter(&self, ssrc: u32, index: u64) {
        let mut sealed = self.0.borrow_mut();
        let at = match sealed.iter().position(|entry| entry.0 == ssrc) {
            Some(at) => at,
            None => {
                if sealed.len() == SSRCS_MAX {
                    sealed.remove(0);
                }
                sealed.push((ssrc, ReplayWindow::new()));
                sealed.len() - 1
            }
        };
        let window = &mut sealed[at].1;
        assert!(window.is_new(index), "RTP index {index} of SSRC {ssrc:08x} sealed twice");
        window.commit(index);
    }
}

/// More would see a repetition among more streams; fewer keep the linear search short. A
/// subscriber with this many streams has long stopped looking at them.
const SSRCS_MAX: usize = 128;

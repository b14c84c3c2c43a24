//! `tracks/close`: by the list of mids, whatever the SDP says of them.

use std::time::Instant;

use super::{Engine, SessionKey};
use crate::command::{CloseRequest, ItemError, Refusal, TrackResult, TracksReply};
use crate::session::sdp::Role;
use crate::session::{PulledState, Session};
use crate::switch::feed::{FeedKey, PullKey};

impl Engine {
    pub(super) fn close_tracks(
        &mut self,
        key: SessionKey,
        request: &CloseRequest,
        now: Instant,
    ) -> Result<TracksReply, Refusal> {
        if let Some(at) = request.mids.iter().position(String::is_empty) {
            return Err(Refusal::InvalidParams(format!("tracks[{at}]: Missing mid in track")));
        }
        // Twice in one request is closed once: the second time it is closed already.
        let session = self.sessions.get(key).ok_or(Refusal::Internal)?;
        let mids = &request.mids;
        let is_open =
            |(at, mid): (usize, &String)| session.is_open(mid) && !mids[..at].contains(mid);
        let open: Vec<bool> = mids.iter().enumerate().map(is_open).collect();
        let description = match (&request.offer, request.force) {
            (_, true) => None,
            (Some(offer), false) => Some(self.accept_offer(
                key,
                offer,
                |(_, read)| {
                    let offered = mids.iter().filter(|mid| read.line(mid).is_some());
                    Ok(offered.map(|mid| (mid.clone(), Role::Close)).collect())
                },
                now,
            )?),
            (None, false) => {
                let text = "sessionDescription: an offer is expected unless force is true";
                return Err(Refusal::InvalidParams(text.into()));
            }
        };
        let was_offering = self.offers_something(key);
        for mid in &request.mids {
            self.close_mid(key, mid, now);
        }
        if was_offering && !self.offers_something(key) {
            // Nothing is left that an answer could bring about.
            self.abandon_offer(key);
        }
        let tracks = request.mids.iter().zip(open).map(|(mid, open)| TrackResult {
            mid: mid.clone(),
            error: (!open).then_some(ItemError::AlreadyClosed),
            ..TrackResult::default()
        });
        let tracks = tracks.collect();
        Ok(TracksReply { requires_immediate_renegotiation: false, description, tracks })
    }

    /// Our open offer is for tracks that nobody has closed.
    fn offers_something(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let pulls = session.pulled.iter().any(|p| p.state == PulledState::Offered);
            pulls || !session.offered.is_empty()
        })
    }

    /// Ends what goes over one transceiver, in both directions.
    fn close_mid(&mut self, key: SessionKey, mid: &str, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Closed { published, pulls, promised } = session.close(mid);
        for feed in published {
            self.unpublish(key, feed, now);
        }
        for pull in pulls {
            self.remove_pull(pull);
        }
        for feed in promised {
            self.break_promise(feed);
        }
    }
}

/// What went over a transceiver.
#[derive(Default)]
struct Closed {
    published: Vec<FeedKey>,
    pulls: Vec<PullKey>,
    /// Tracks of pulls whose offer is not answered yet.
    promised: Vec<FeedKey>,
}

impl Session {
    fn is_open(&self, mid: &str) -> bool {
        let pulls =
            |state: &PulledState| matches!(state, PulledState::Active(_) | PulledState::Offered);
        self.published.iter().any(|p| p.mid == mid && p.is_active())
            || self.pulled.iter().any(|p| p.mid == mid && pulls(&p.state))
            || self.offered.iter().any(|track| track.mid.as_deref() == Some(mid))
    }

    /// Marks what goes over a transceiver as closed, and tells what it was.
    fn close(&mut self, mid: &str) -> Closed {
        let mut closed = Closed::default();
        let published = self.published.iter().filter(|p| p.mid == mid);
        closed.published.extend(published.filter_map(|p| p.feed));
        self.offered.retain(|track| track.mid.as_deref() != Some(mid));
        for pulled in self.pulled.iter_mut().filter(|p| p.mid == mid) {
            match pulled.state {
                PulledState::Active(pull) => closed.pulls.push(pull),
                PulledState::Offered => closed.promised.push(pulled.feed),
                PulledState::Closed | PulledState::Refused(_) => continue,
            }
            pulled.state = PulledState::Closed;
        }
        closed
    }
}

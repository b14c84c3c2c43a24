//! One PeerConnection: its negotiation, its transport, what it publishes and what it pulls.
//!
//! The only place that knows str0m ([`transport`], [`keys`]). Media in and out is ours, on the
//! keys of the DTLS handshake.

mod association;
pub mod egress;
mod hello;
pub mod ingress;
pub mod inlet;
pub mod keys;
pub mod paths;
pub mod recheck;
pub mod sdp;
mod sources;
pub mod stun;
pub mod transport;
pub mod ufrag;

/// The node's DTLS certificate and its key.
pub use str0m::config::DtlsCert;

use std::sync::Arc;
use std::time::Instant;

use self::egress::Egress;
use self::ingress::Ingress;
use self::sdp::Negotiator;
use self::transport::Transport;
use crate::command::{MediaKind, Simulcast, TrackObject};
use crate::ids::{AppId, SessionId};
use crate::switch::feed::{FeedKey, PullKey, TrackKey, Waiter};

/// A track this session publishes, or published.
#[derive(Debug, Clone)]
pub struct Published {
    pub name: Arc<str>,
    pub mid: String,
    pub kind: MediaKind,
    pub feed: Option<FeedKey>,
}

impl Published {
    pub fn is_active(&self) -> bool {
        self.feed.is_some()
    }
}

/// A track this session pulls, or pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    pub mid: String,
    pub kind: MediaKind,
    /// The track as the client named it.
    pub key: TrackKey,
    pub feed: FeedKey,
    pub simulcast: Option<Simulcast>,
    pub state: PulledState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PulledState {
    /// Our offer is out; the answer decides.
    Offered,
    Active(PullKey),
    Closed,
    /// The client's answer made it impossible; says why.
    Refused(String),
}

impl Pulled {
    pub fn pull(&self) -> Option<PullKey> {
        match self.state {
            PulledState::Active(key) => Some(key),
            PulledState::Offered | PulledState::Closed | PulledState::Refused(_) => None,
        }
    }
}

#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub app: AppId,
    pub negotiator: Negotiator,
    /// Made with the first description. Boxed: most of it is str0m's, 10 KB that are of no use
    /// once the session is connected, and would keep sessions from being neighbours.
    pub transport: Option<Box<Transport>>,
    pub ingress: Ingress,
    pub egress: Egress,
    pub published: Vec<Published>,
    pub pulled: Vec<Pulled>,
    /// Tracks our open offer asks the client to send.
    pub offered: Vec<TrackObject>,
    /// When our open offer was made.
    pub offered_at: Option<Instant>,
    /// RTCP canonical name and media stream id of all this session publishes (lip sync).
    pub cname: String,
    pub stream_id: String,
    /// The last request, or creation.
    pub asked_at: Instant,
    /// The last authenticated datagram.
    pub heard_at: Option<Instant>,
    /// DTLS is done, and the client is heard.
    pub connected: bool,
    /// When receiver and sender reports are due.
    pub report_at: Option<Instant>,
    /// Requests that wait.
    pub waiters: Vec<Waiter>,
    /// Tracks that others asked for and this session does not publish yet.
    pub sought: Vec<FeedKey>,
    /// The deadline this session is queued for.
    pub due: Option<Instant>,
}

impl Session {
    pub fn new(id: SessionId, app: AppId, random: &mut dyn FnMut() -> u64, now: Instant) -> Self {
        Self {
            id,
            app,
            negotiator: Negotiator::new(random() >> 2),
            transport: None,
            ingress: Ingress::new(random() as u32),
            egress: Egress::default(),
            published: Vec::new(),
            pulled: Vec::new(),
            offered: Vec::new(),
            offered_at: None,
            cname: format!("{:016x}", random()),
            stream_id: format!("{:016x}{:016x}", random(), random()),
            asked_at: now,
            heard_at: None,
            connected: false,
            report_at: None,
            waiters: Vec::new(),
            sought: Vec::new(),
            due: None,
        }
    }

    pub fn published_by_name(&self, name: &str) -> Option<&Published> {
        self.published.iter().find(|p| p.is_active() && &*p.name == name)
    }

    /// An SSRC for something new to send: of no m-line, nor of our reports.
    pub fn draw_ssrc(&mut self, random: &mut dyn FnMut() -> u64) -> u32 {
        let (negotiator, reporter) = (&self.negotiator, self.ingress.reporter);
        self.egress.draw_ssrc(random, |ssrc| ssrc == reporter || negotiator.owns_ssrc(ssrc))
    }

    /// The live pull on a transceiver.
    pub fn pulled_by_mid(&mut self, mid: &str) -> Option<&mut Pulled> {
        self.pulled.iter_mut().find(|p| p.mid == mid && p.pull().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::sdp::{LocalTransport, SendSpec, Want};
    use super::*;
    use crate::switch::pull::Numbering;
    use crate::testing::start;

    #[test]
    fn an_ssrc_is_never_drawn_twice_for_one_session() {
        let id = "0".repeat(32).parse().unwrap();
        let mut session = Session::new(id, AppId(0), &mut || 7, start());
        assert_eq!(session.ingress.reporter, 7);
        session.egress.retire(8, Numbering::fresh(0));
        let text = |text: &str| text.to_owned();
        let (cname, stream_id, track_id) = (text("c"), text("s"), text("t"));
        let (ssrc, rtx_ssrc) = (9, Some(10));
        let spec = SendSpec { ssrc, rtx_ssrc, cname, stream_id, track_id, preferred: None };
        let local = LocalTransport { ufrag: "u", pwd: "p", fingerprint: "f", candidates: &[] };
        session.negotiator.offer(&[Want::Send { kind: MediaKind::Video, spec }], &local).unwrap();
        let mut drawn = [0, 7, 8, 9, 10, 11, 11, 12].into_iter();
        let mut random = || drawn.next().unwrap();
        assert_eq!(session.draw_ssrc(&mut random), 11);
        assert_eq!(session.draw_ssrc(&mut random), 12);
    }
}

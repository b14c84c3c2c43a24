//! One way to ask any server: each call goes to the dialect the server speaks.
//!
//! Invariants: whoever holds an [`Api`] need not know which one it is, except for what
//! [`Api::can_pull_and_push`] and its neighbours say.

use super::janus::Janus;
use super::realtime::Realtime;
use super::whip::Whip;
use super::{Caller, Cause, Endpoint, Failure, Joined, Pull, Push};

/// A server's API with what it takes to use it.
#[derive(Debug, Clone)]
pub enum Api {
    Realtime(Realtime),
    Whip(Whip),
    Janus(Janus),
}

impl Api {
    /// One session can publish and receive; otherwise a participant needs two.
    pub fn can_pull_and_push(&self) -> bool {
        match self {
            Self::Realtime(_) => true,
            Self::Whip(_) | Self::Janus(_) => false,
        }
    }

    /// How many publishers one session can receive from.
    pub fn pulls_per_session(&self) -> usize {
        match self {
            Self::Realtime(_) | Self::Janus(_) => usize::MAX,
            Self::Whip(_) => 1,
        }
    }

    /// A session can begin a new transport after its address changed.
    pub fn can_restart_ice(&self) -> bool {
        match self {
            Self::Realtime(_) | Self::Janus(_) => true,
            Self::Whip(_) => false,
        }
    }

    /// A session that stands can pull more, and close single tracks.
    pub fn can_change(&self) -> bool {
        match self {
            Self::Realtime(_) | Self::Janus(_) => true,
            Self::Whip(_) => false,
        }
    }

    /// Once, before the first session: tries target and credentials, and makes what all
    /// sessions share. Clones for other workers are taken after it.
    pub async fn prepare<C: Caller>(&mut self, caller: &C) -> Result<(), Failure> {
        match self {
            Self::Realtime(api) => api.prepare(caller).await,
            Self::Whip(api) => api.prepare(caller).await,
            Self::Janus(api) => api.prepare(caller).await,
        }
    }

    /// Once, after the last session: removes what [`Self::prepare`] made.
    pub async fn finish<C: Caller>(&self, caller: &C) -> Result<(), Failure> {
        match self {
            Self::Realtime(_) | Self::Whip(_) => Ok(()),
            Self::Janus(api) => api.finish(caller).await,
        }
    }

    /// Opens a session, publishes and pulls, and exchanges the descriptions. The transport
    /// comes up meanwhile or after it. Nothing is left behind by a failure.
    pub async fn join<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        pushes: &[Push],
        pulls: &[Pull],
    ) -> Result<Joined, Failure> {
        match self {
            Self::Realtime(api) => api.join(caller, endpoint, pushes, pulls).await,
            Self::Whip(api) => api.join(caller, endpoint, pushes, pulls).await,
            Self::Janus(api) => api.join(caller, endpoint, pushes, pulls).await,
        }
    }

    /// Pulls more: `joined.pulled` grows by a result for each, in their order.
    pub async fn pull_more<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        joined: &mut Joined,
        pulls: &[Pull],
    ) -> Result<(), Failure> {
        let more = match self {
            Self::Realtime(api) => api.pull(caller, endpoint, &joined.session, pulls).await?,
            Self::Whip(_) => return Err(fixed()),
            Self::Janus(api) => api.pull_more(caller, endpoint, joined, pulls).await?,
        };
        joined.pulled.extend(more);
        Ok(())
    }

    /// Closes tracks, pushed or pulled, by their mids. `joined` keeps them as they were.
    pub async fn close<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        joined: &Joined,
        mids: &[String],
    ) -> Result<(), Failure> {
        match self {
            Self::Realtime(api) => api.close(caller, &joined.session, mids).await,
            Self::Whip(_) => Err(fixed()),
            Self::Janus(api) => api.close(caller, endpoint, joined, mids).await,
        }
    }

    pub async fn restart_ice<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        joined: &Joined,
    ) -> Result<(), Failure> {
        match self {
            Self::Realtime(api) => api.restart_ice(caller, endpoint, &joined.session).await,
            Self::Whip(_) => Err(fixed()),
            Self::Janus(api) => api.restart_ice(caller, endpoint, joined).await,
        }
    }

    /// Ends the session. One that is gone already is no failure.
    pub async fn leave<C: Caller>(&self, caller: &C, joined: &Joined) -> Result<(), Failure> {
        match self {
            Self::Realtime(api) => api.leave(caller, &joined.session).await,
            Self::Whip(api) => api.leave(caller, joined).await,
            Self::Janus(api) => api.leave(caller, joined).await,
        }
    }

    /// Asks for what the server knows of a session that stands, as [`Joined::session`] names it.
    pub async fn look<C: Caller>(&self, caller: &C, session: &str) -> Result<(), Failure> {
        match self {
            Self::Realtime(api) => api.look(caller, session).await,
            Self::Whip(_) | Self::Janus(_) => {
                Err(Failure::new(Cause::Local, "only the Realtime API tells of sessions"))
            }
        }
    }

    /// Keeps the session alive for as long as it is polled, and returns when the server says
    /// it is over, or when it was left. To be polled from the join to [`Self::leave`], beside
    /// all other calls of the session: what is given up in between may take news with it.
    pub async fn keep<C: Caller>(&self, caller: &C, joined: &Joined) -> Failure {
        match self {
            Self::Realtime(_) | Self::Whip(_) => std::future::pending().await,
            Self::Janus(api) => api.keep(caller, joined).await,
        }
    }
}

fn fixed() -> Failure {
    Failure::new(Cause::Local, "with WHIP and WHEP, a session stays as it was joined")
}

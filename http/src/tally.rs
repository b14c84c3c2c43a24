//! Counting requests, by what they ask for and how they were answered.
//!
//! Invariants: every request that was read whole is counted once, under one kind.
//!
//! Not here: where the counts are kept (the desk has them), and how they are shown.

use std::time::Duration;

use shards::snapshot::{API_ROUTES, ApiMeters};

use crate::route::{Endpoint, Route};

/// What a request asks for, coarsely enough that clients cannot make up more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Create,
    Describe,
    Delete,
    NewTracks,
    Renegotiate,
    CloseTracks,
    UpdateTracks,
    /// A call of the Realtime API that this node does not have.
    Missing,
    Preflight,
    Health,
    Metrics,
    Cluster,
    Demo,
    /// No endpoint, or not with this method.
    Unknown,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Create,
        Self::Describe,
        Self::Delete,
        Self::NewTracks,
        Self::Renegotiate,
        Self::CloseTracks,
        Self::UpdateTracks,
        Self::Missing,
        Self::Preflight,
        Self::Health,
        Self::Metrics,
        Self::Cluster,
        Self::Demo,
        Self::Unknown,
    ];

    pub(crate) fn of(route: &Route<'_>) -> Self {
        match route {
            Route::Preflight => Self::Preflight,
            Route::Health => Self::Health,
            Route::Metrics => Self::Metrics,
            Route::Cluster => Self::Cluster,
            Route::Demo(_) | Route::DemoConfig => Self::Demo,
            Route::Api { endpoint, .. } => match endpoint {
                Endpoint::Create => Self::Create,
                Endpoint::Describe { .. } => Self::Describe,
                Endpoint::Delete { .. } => Self::Delete,
                Endpoint::NewTracks { .. } => Self::NewTracks,
                Endpoint::Renegotiate { .. } => Self::Renegotiate,
                Endpoint::CloseTracks { .. } => Self::CloseTracks,
                Endpoint::UpdateTracks { .. } => Self::UpdateTracks,
                Endpoint::Missing(_) => Self::Missing,
            },
        }
    }

    /// Where it is counted.
    pub(crate) fn place(self) -> usize {
        self as usize
    }

    /// Whether it is a call that a session's shard answers.
    pub(crate) fn is_call(self) -> bool {
        self.place() < Self::Missing.place()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "sessions/new",
            Self::Describe => "sessions/get",
            Self::Delete => "sessions/delete",
            Self::NewTracks => "tracks/new",
            Self::Renegotiate => "renegotiate",
            Self::CloseTracks => "tracks/close",
            Self::UpdateTracks => "tracks/update",
            Self::Missing => "not_implemented",
            Self::Preflight => "preflight",
            Self::Health => "healthz",
            Self::Metrics => "metrics",
            Self::Cluster => "cluster",
            Self::Demo => "demo",
            Self::Unknown => "unknown",
        }
    }
}

/// Counts a request that was answered.
pub(crate) fn count(meters: &mut ApiMeters, kind: Kind, status: u16, took: Duration) {
    let class = usize::from(status / 100).clamp(1, 5) - 1;
    meters.requests[kind.place()][class] += 1;
    if kind.is_call() {
        meters.latency[kind.place()].record_time(took);
    }
    if status == TOO_MANY_REQUESTS {
        meters.limited += 1;
    }
}

/// What nothing but the limit of requests per session answers.
const TOO_MANY_REQUESTS: u16 = 429;

const _: () = assert!(Kind::ALL.len() <= API_ROUTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_and_a_name_of_its_own() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.place(), at);
            assert!(Kind::ALL[..at].iter().all(|other| other.name() != kind.name()));
        }
    }

    #[test]
    fn answers_are_counted_by_class_and_only_calls_are_timed() {
        let mut meters = ApiMeters::default();
        let took = Duration::from_millis(3);
        count(&mut meters, Kind::NewTracks, 200, took);
        count(&mut meters, Kind::NewTracks, 429, took);
        count(&mut meters, Kind::Health, 200, took);
        assert_eq!(meters.requests[Kind::NewTracks.place()], [0, 1, 0, 1, 0]);
        assert_eq!(meters.requests[Kind::Health.place()], [0, 1, 0, 0, 0]);
        assert_eq!(meters.limited, 1);
        assert_eq!(meters.latency[Kind::NewTracks.place()].sum(), 6_000_000);
        assert_eq!(meters.latency[Kind::Health.place()].count(), 0);
    }
}

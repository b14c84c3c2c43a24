//! How large a scenario is. Every number is a flag; each scenario has its own defaults.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// Publishers with audio and video, each watched by all viewers.
    Stage,
    /// Everyone publishes audio and video, and pulls everyone else's.
    Meeting,
    /// Speakers with audio only, heard by all listeners.
    AudioRoom,
    /// A stage whose viewers come and go.
    Churn,
    /// Viewers that are connected already all pull one track at once.
    PullStorm,
    /// A stage whose viewers change their address.
    Roam,
    /// Sessions that are connected and do nothing.
    Idle,
    /// A stage, a meeting, an audio room and churn together.
    Mixed,
}

impl Scenario {
    pub const ALL: [Self; 8] = [
        Self::Stage,
        Self::Meeting,
        Self::AudioRoom,
        Self::Churn,
        Self::PullStorm,
        Self::Roam,
        Self::Idle,
        Self::Mixed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Meeting => "meeting",
            Self::AudioRoom => "audio-room",
            Self::Churn => "churn",
            Self::PullStorm => "pull-storm",
            Self::Roam => "roam",
            Self::Idle => "idle",
            Self::Mixed => "mixed",
        }
    }

    /// Publishers and viewers, if not said. In a meeting publishers are the viewers.
    pub fn people(self) -> (usize, usize) {
        match self {
            Self::Stage | Self::Churn | Self::Roam => (1, 100),
            Self::Meeting => (10, 0),
            Self::AudioRoom => (10, 200),
            Self::PullStorm => (1, 500),
            Self::Idle => (1000, 0),
            Self::Mixed => (1, 100),
        }
    }

    /// Whether something happens at a rate while it is measured.
    pub fn has_events(self) -> bool {
        matches!(self, Self::Churn | Self::PullStorm | Self::Roam | Self::Mixed)
    }

    /// Joins, pulls or moves a second, if not said.
    pub fn event_rate(self) -> f64 {
        if self == Self::PullStorm { 1000.0 } else { 10.0 }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no scenario: it is one of {names}")
        })
    }
}

/// The numbers of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    /// In a meeting: of each room.
    pub publishers: usize,
    pub viewers: usize,
    /// Meetings at the same time, if said.
    pub rooms: Option<usize>,
    /// Without video, publishers send audio only.
    pub video: bool,
    pub audio: bool,
    /// Joins a second while the audience comes.
    pub join_rate: f64,
    /// Joins, or pulls, a second while the run is measured (churn, pull-storm, roam).
    pub event_rate: f64,
    /// How long the run is measured.
    pub duration: Duration,
    /// Looks at sessions by the API, a second, while the run is measured; 0 for none.
    pub api_rate: f64,
    /// After the last join, before the measurement.
    pub settle: Duration,
    /// How long a peer may take to connect, and a track to begin.
    pub patience: Duration,
}

impl Sizes {
    pub fn rooms(&self) -> usize {
        self.rooms.unwrap_or(1)
    }

    /// All that have a socket.
    pub fn peers(&self) -> usize {
        self.publishers.saturating_add(self.viewers).saturating_mul(self.rooms())
    }
}

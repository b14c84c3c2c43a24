//! How many peers a plan has at a time: each needs a port and an open file.

use super::Plan;
use crate::scenario::mixed::{SPEAKERS, beside};
use crate::scenario::{Scenario, Sizes};

/// Those of the largest moment. Who is coming while another is leaving is not among them: they
/// are a few.
pub fn peers(plan: &Plan) -> usize {
    let at_once = plan.target.api(plan.api).map_or(usize::MAX, |api| api.pulls_per_session());
    of(plan.scenario, &plan.sizes, at_once)
}

/// `at_once` is from how many publishers one session can receive.
fn of(scenario: Scenario, sizes: &Sizes, at_once: usize) -> usize {
    let Sizes { publishers, viewers, .. } = *sizes;
    let sessions = |publishers: usize| publishers.div_ceil(at_once.max(1));
    match scenario {
        Scenario::Meeting => publishers.saturating_mul(sizes.rooms()),
        Scenario::Idle => publishers,
        // All pull of one publisher.
        Scenario::PullStorm => publishers + viewers,
        Scenario::Stage | Scenario::AudioRoom | Scenario::Churn | Scenario::Roam => {
            publishers + viewers * sessions(publishers)
        }
        Scenario::Mixed => {
            let (people, listeners) = beside(viewers);
            let stage = publishers + viewers * sessions(publishers);
            stage + people + SPEAKERS + listeners * sessions(SPEAKERS)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everybody_is_counted_with_all_their_sessions() {
        let sizes = Sizes {
            publishers: 4,
            viewers: 100,
            video: true,
            audio: true,
            rooms: Some(2),
            api_rate: 0.0,
            join_rate: 1.0,
            event_rate: 1.0,
            duration: Duration::ZERO,
            settle: Duration::ZERO,
            patience: Duration::ZERO,
        };
        for (scenario, all_at_once, one_at_once) in [
            (Scenario::Stage, 104, 404),
            (Scenario::Meeting, 8, 8),
            (Scenario::Idle, 4, 4),
            (Scenario::PullStorm, 104, 104),
            (Scenario::Mixed, 104 + 10 + 3 + 10, 404 + 10 + 3 + 30),
        ] {
            let found = [usize::MAX, 1].map(|at_once| of(scenario, &sizes, at_once));
            assert_eq!(found, [all_at_once, one_at_once], "{scenario}");
        }
    }
}

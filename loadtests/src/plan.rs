//! When requests are due: stages whose rate is constant or changes evenly.

use std::time::Duration;

/// A part of a plan: `seconds` long, beginning at the rate `from` and ending at `to`, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How long it takes.
    pub seconds: f64,
    /// The rate that it begins with.
    pub from: f64,
    /// The rate that it ends with.
    pub to: f64,
}

impl Stage {
    fn requests(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.seconds
    }

    /// After how many seconds of this stage `requests` of its requests were due.
    fn time_of(&self, requests: f64) -> f64 {
        if requests <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.seconds;
        if slope.abs() < f64::EPSILON {
            return requests / self.from;
        }
        // The rate is from + slope·t, so from·t + slope·t²/2 requests were due by t.
        let root = (self.from * self.from + 2.0 * slope * requests).max(0.0).sqrt();
        2.0 * requests / (self.from + root)
    }
}

/// Stages, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    stages: Vec<Stage>,
}

impl Plan {
    /// A plan of these stages; those that take no time are left out.
    #[must_use]
    pub fn new(stages: Vec<Stage>) -> Self {
        Self { stages: stages.into_iter().filter(|stage| stage.seconds > 0.0).collect() }
    }

    /// The stages.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// How long it takes.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.stages.iter().map(|stage| stage.seconds).sum())
    }

    /// How many requests there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.stages.iter().map(Stage::requests).sum::<f64>().round() as u64
    }

    /// When request `number`, counted from 0, is due; `None` = there are not that many.
    #[must_use]
    pub fn due(&self, number: u64) -> Option<Duration> {
        if number >= self.total() {
            return None;
        }
        let (mut requests, mut seconds) = (number as f64, 0.0);
        for stage in &self.stages {
            if requests < stage.requests() {
                seconds += stage.time_of(requests);
                return Some(Duration::from_secs_f64(seconds));
            }
            requests -= stage.requests();
            seconds += stage.seconds;
        }
        // Only rounding leads here: the last request of all.
        Some(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(seconds: f64, from: f64, to: f64) -> Stage {
        Stage { seconds, from, to }
    }

    fn seconds(plan: &Plan, number: u64) -> f64 {
        plan.due(number).unwrap().as_secs_f64()
    }

    #[test]
    fn a_constant_rate_is_even() {
        let plan = Plan::new(vec![stage(10.0, 5.0, 5.0)]);
        assert_eq!((plan.total(), plan.stages().len()), (50, 1));
        for number in 0..50 {
            assert!((seconds(&plan, number) - number as f64 / 5.0).abs() < 1e-9);
        }
        assert_eq!(plan.due(50), None);
    }

    #[test]
    fn a_ramp_has_the_mean_rate_and_begins_slowly() {
        let plan = Plan::new(vec![stage(10.0, 0.0, 20.0)]);
        assert_eq!(plan.total(), 100);
        // t² requests were due by t.
        for (number, due) in [(0, 0.0), (1, 1.0), (25, 5.0), (81, 9.0)] {
            assert!((seconds(&plan, number) - due).abs() < 1e-9, "{number}");
        }
    }

    #[test]
    fn a_falling_ramp_ends_slowly() {
        let plan = Plan::new(vec![stage(10.0, 20.0, 0.0)]);
        // By symmetry with the rising one.
        for (number, due) in [(19, 1.0), (75, 5.0), (99, 9.0)] {
            assert!((seconds(&plan, number) - due).abs() < 1e-9, "{number}: {}", seconds(&plan, number));
        }
    }

    #[test]
    fn stages_follow_each_other_without_a_gap() {
        let plan = Plan::new(vec![stage(2.0, 10.0, 10.0), stage(0.0, 1.0, 9.0), stage(2.0, 10.0, 100.0)]);
        assert_eq!((plan.total(), plan.stages().len(), plan.length().as_secs()), (130, 2, 4));
        let due: Vec<f64> = (0..130).map(|number| seconds(&plan, number)).collect();
        assert!(due.windows(2).all(|pair| pair[0] <= pair[1]), "they are in order");
        assert!((due[20] - 2.0).abs() < 1e-9 && due[129] < 4.0);
    }

    #[test]
    fn a_plan_without_stages_has_no_requests() {
        assert_eq!((Plan::new(vec![]).total(), Plan::new(vec![]).due(0)), (0, None));
    }
}

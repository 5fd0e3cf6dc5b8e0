//! Rollouts of made-up traffic, from a seed: what the guards promise, measured.

use super::*;

// No run of these plans is longer unless something is wrong.
const RUN_MAX: u64 = 2_000_000;

const CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Traffic of one request per second.
struct Traffic {
    random: fastrand::Rng,
    /// Rates of bad requests, current and new version, around which the day swings.
    error_rates: [f64; 2],
    slow_rates: [f64; 2],
    /// By how much a day's cycle moves both rates, as a part of them.
    swing: f64,
    /// Cumulated part of each class at each side; empty without classes.
    classes: [Vec<f64>; 2],
}

impl Traffic {
    fn equal(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            error_rates: [0.01; 2],
            slow_rates: [0.01; 2],
            swing: 0.8,
            classes: [Vec::new(), Vec::new()],
        }
    }

    /// Counts one request; true if it was bad.
    fn request(&mut self, share: f64, swing: f64, drift: f64, counts: &mut Counts) -> bool {
        let side = usize::from(self.random.f64() < share);
        let bad = self.random.f64();
        let (error_rate, slow_rate) = (self.error_rates[side] * swing, self.slow_rates[side] * swing);
        let arm = if side == 1 { &mut counts.new } else { &mut counts.current };
        arm.units += 1;
        arm.requests += 1;
        // Either bad thing is rare; that both never coincide changes nothing.
        arm.errors += u64::from(bad < error_rate);
        arm.slow += u64::from(bad > 1.0 - slow_rate);
        if let Some(last) = self.classes[side].len().checked_sub(1) {
            // The drift moves the same part of either version's answers into the last class.
            let drifted = self.random.f64() < drift;
            let draw = self.random.f64();
            let class = self.classes[side].iter().position(|end| draw < *end && !drifted).unwrap_or(last);
            counts.add_category(CLASSES[class], [Arm::Current, Arm::New][side], 1);
        }
        bad < error_rate || bad > 1.0 - slow_rate
    }
}

/// When a run is judged, besides after every bad request, and when it is broken off. Between bad requests only the
/// sample ratio's evidence moves, and the evidence of a shift.
#[derive(Clone, Copy)]
struct Pace {
    every: u64,
    requests_max: u64,
}

/// Carries a rollout through. Returns how it ended and the requests until then.
fn carry_out(mut rollout: Rollout, mut traffic: Traffic, pace: Pace) -> (State, u64) {
    let (mut swing, mut drift) = (1.0, 0.0);
    for request in 1..=pace.requests_max {
        if request % 128 == 1 {
            let day = libm::sin(request as f64 / 86_400.0 * std::f64::consts::TAU);
            (swing, drift) = (1.0 + traffic.swing * day, 0.15 + 0.15 * day);
        }
        let bad = traffic.request(rollout.step_share(), swing, drift, &mut rollout.step.counts);
        if !bad && !request.is_multiple_of(pace.every) {
            continue;
        }
        let now_ms = request * 1000;
        match rollout.judge(now_ms).decision {
            Decision::Wait { .. } => {}
            Decision::Advance | Decision::Complete => rollout.advance(now_ms).unwrap(),
            Decision::RollBack { reason } => rollout.roll_back(&reason, now_ms).unwrap(),
            Decision::Pause { reason } => return (State::Paused { reason, by: None }, request),
        }
        if rollout.state.is_over() {
            return (rollout.state, request);
        }
    }
    (rollout.state, pace.requests_max)
}

fn begun(plan: &str) -> Rollout {
    let start = Start { id: 1, model: "m".into(), from: 1, by: "operator".into(), at_ms: 0 };
    Rollout::begin(start, serde_json::from_str(plan).unwrap()).unwrap()
}

/// How many of the runs ended so, and the median number of requests of all.
struct Outcomes {
    rolled_back: usize,
    paused: usize,
    completed: usize,
    median: u64,
}

fn outcomes(runs: u64, run: impl Fn(u64) -> (State, u64)) -> Outcomes {
    let ended: Vec<_> = (0..runs).map(run).collect();
    let count = |is: fn(&State) -> bool| ended.iter().filter(|(state, _)| is(state)).count();
    let mut requests: Vec<u64> = ended.iter().map(|(_, requests)| *requests).collect();
    requests.sort_unstable();
    let outcomes = Outcomes {
        rolled_back: count(|state| matches!(state, State::RolledBack { .. })),
        paused: count(|state| matches!(state, State::Paused { .. })),
        completed: count(|state| matches!(state, State::Completed { .. })),
        median: requests[requests.len() / 2],
    };
    println!(
        "{runs} runs: {} rolled back, {} paused, {} completed; median {} requests",
        outcomes.rolled_back, outcomes.paused, outcomes.completed, outcomes.median
    );
    outcomes
}

// Wide margins, so that a run takes tens of thousands of requests and not hundreds of thousands; they have no part in rollbacks.
const EQUAL: &str = r#"{"target": 2, "guards": {"errors": {"margin": 0.05},
    "latency": {"objective_ms": 50, "margin": 0.05}}}"#;

#[test]
fn of_a_thousand_rollouts_between_equal_versions_at_most_ten_are_rolled_back() {
    let outcomes = outcomes(1000, |seed| {
        carry_out(begun(EQUAL), Traffic::equal(seed), Pace { every: 50, requests_max: RUN_MAX })
    });
    assert!(outcomes.rolled_back <= 10, "{} rolled back", outcomes.rolled_back);
    assert!(outcomes.paused <= 10, "{} paused", outcomes.paused);
    assert_eq!(outcomes.rolled_back + outcomes.paused + outcomes.completed, 1000);
}

#[test]
fn five_times_the_errors_are_found_within_six_thousand_requests_at_five_per_cent() {
    let outcomes = outcomes(200, |seed| {
        let traffic = Traffic { error_rates: [0.01, 0.05], swing: 0.0, ..Traffic::equal(seed) };
        carry_out(begun(r#"{"target": 2, "steps": [5]}"#), traffic, Pace { every: 10, requests_max: RUN_MAX })
    });
    assert_eq!(outcomes.rolled_back + outcomes.paused, 200);
    assert!(outcomes.paused <= 4 && outcomes.median <= 6000, "median {}", outcomes.median);
}

#[test]
fn five_times_the_errors_do_not_reach_all_traffic() {
    let outcomes = outcomes(300, |seed| {
        let traffic = Traffic { error_rates: [0.01, 0.05], ..Traffic::equal(seed) };
        carry_out(begun(r#"{"target": 2}"#), traffic, Pace { every: 50, requests_max: RUN_MAX })
    });
    assert!(outcomes.rolled_back >= 297 - outcomes.paused && outcomes.completed <= 3);
}

/// Ten classes; the first makes up `first` of the answers, the others share the rest.
fn classes(first: f64) -> Vec<f64> {
    (0..10).map(|class| first + f64::from(class) * (1.0 - first) / 9.0).collect()
}

#[test]
fn twice_the_frequency_of_a_class_is_found_and_a_drift_of_all_traffic_is_not() {
    let plan = r#"{"target": 2, "steps": [10, 50], "step_requests_min": 2000,
        "guards": {"errors": null, "shift": {}}}"#;
    let pace = Pace { every: 100, requests_max: 60_000 };
    let shifted = outcomes(40, |seed| {
        let classes = [classes(0.1), classes(0.2)];
        let traffic = Traffic { classes, ..Traffic::equal(seed) };
        carry_out(begun(plan), traffic, pace)
    });
    assert!(shifted.rolled_back >= 39, "{} of 40", shifted.rolled_back);
    let equal = outcomes(40, |seed| {
        let classes = [classes(0.1), classes(0.1)];
        let traffic = Traffic { classes, ..Traffic::equal(seed) };
        carry_out(begun(plan), traffic, pace)
    });
    assert_eq!(equal.rolled_back, 0);
}

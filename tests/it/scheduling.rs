//! The scheduler against the clairvoyant optimum and against queueing theory. Simulated: the queue is the real one,
//! time and calls are made up, so that nothing here depends on the machine.

#[path = "../../benches/scheduling/arrivals.rs"]
mod arrivals;
#[path = "../../benches/scheduling/optimum.rs"]
mod optimum;
#[path = "../../benches/scheduling/rates.rs"]
mod rates;
#[path = "../../benches/scheduling/simulation.rs"]
#[allow(dead_code, reason = "the benchmarks use the rest")]
mod simulation;

use arrivals::Pattern;
use optimum::can_serve;
use rates::{CHOSEN_BY, Trial, inoue};
use simulation::{Calls, Setting, simulate};

fn trials() -> impl Iterator<Item = Trial> {
    let patterns = |line| [Pattern::Poisson, Pattern::Bursty].map(move |pattern| (line, pattern));
    CHOSEN_BY.into_iter().flat_map(patterns).map(|(line, pattern)| Trial {
        setting: Setting::line(line),
        pattern,
        requests: 4000,
        seeds: 3,
    })
}

#[test]
fn the_highest_rate_on_time_is_close_to_the_optimum() {
    for trial in trials() {
        let rates = trial.rates();
        let least = if trial.pattern == Pattern::Poisson { 0.90 } else { 0.80 };
        assert!(rates.promised >= least, "{:?}: {rates:?}", trial.pattern);
        assert!(rates.promised >= rates.take_all, "{:?}: {rates:?}", trial.pattern);
    }
}

#[test]
fn goodput_holds_under_overload_and_what_is_admitted_is_not_late() {
    for mut trial in trials() {
        for noise in [0.0, 0.1, 0.3] {
            trial.setting.noise = noise;
            let capacity = trial.highest_simulated(0, true);
            let mut peak: f64 = 0.0;
            for part in [0.8, 1.0, 1.2, 1.5, 2.0, 3.0] {
                let outcome = trial.at(part * capacity, true);
                let admitted = outcome.arrived() - outcome.refused;
                assert!(outcome.late * 100 <= admitted, "{part}: {outcome:?}");
                // Bursts of so short a trace are not the same at two rates.
                if trial.pattern == Pattern::Poisson {
                    peak = peak.max(outcome.goodput());
                    assert!(outcome.goodput() >= 0.9 * peak, "{part}: {outcome:?}, of {peak}");
                }
            }
        }
    }
}

#[test]
fn mean_latency_of_take_all_is_what_theory_says() {
    for (t0, alpha) in [(1.0, 0.1), (0.3, 1.0), (10.0, 0.1)] {
        for load in [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8] {
            let calls = Calls::line(t0, alpha, 1 << 12);
            let setting = Setting { calls, objective: f64::MAX, instances: 1, noise: 0.0 };
            let trace = Pattern::Poisson.arrivals(load / alpha, 200_000, 5);
            let part = simulate(&setting, false, &trace).latency() / inoue(t0, alpha, load / alpha);
            // An upper bound, loosest where its two halves meet; what is above it is chance.
            let least = if (t0, alpha, load) == (1.0, 0.1, 0.1) { 0.92 } else { 0.95 };
            assert!((least..1.01).contains(&part), "t0 {t0}, alpha {alpha}, load {load}: {part}");
        }
    }
}

#[test]
fn where_batches_buy_nothing_requests_run_one_by_one() {
    // Then an instance is the queue M/D/1, whose mean latency Pollaczek and Khinchine gave.
    for load in [0.3, 0.6, 0.9] {
        let calls = Calls::line(0.0, 1.0, 64);
        let setting = Setting { calls, objective: f64::MAX, instances: 1, noise: 0.0 };
        let trace = Pattern::Poisson.arrivals(load, 200_000, 5);
        let latency = simulate(&setting, false, &trace).latency();
        let part = latency / (1.0 + load / (2.0 * (1.0 - load)));
        // One batch in sixteen may be of two, to see whether that has come to pay.
        assert!((0.95..1.05).contains(&part), "load {load}: {part}");
    }
}

#[test]
fn several_instances_serve_several_times_as_much() {
    let one = Setting::line((1.0, 0.1, 10.0));
    let four = Setting { instances: 4, ..one.clone() };
    let on_time = |setting: &Setting, rate| {
        simulate(setting, true, &Pattern::Poisson.arrivals(rate, 20_000, 2)).on_time_share()
    };
    assert!(on_time(&one, 7.0) > 0.99 && on_time(&four, 28.0) > 0.99);
    assert!(on_time(&one, 28.0) < 0.35);
}

/// Whether some way to cut the requests into batches and leave some out is good enough: all ways are tried.
fn some_way_serves(arrivals: &[f64], calls: &Calls, objective: f64, free: f64, given_up: usize) -> bool {
    let Some((_, later)) = arrivals.split_first() else { return true };
    if given_up > 0 && some_way_serves(later, calls, objective, free, given_up - 1) {
        return true;
    }
    (1..=arrivals.len()).any(|rows| {
        let end = free.max(arrivals[rows - 1]) + calls.time(rows);
        end <= arrivals[0] + objective && some_way_serves(&arrivals[rows..], calls, objective, end, given_up)
    })
}

#[test]
fn the_optimum_is_that_of_all_ways_tried() {
    let mut kinds = [0, 0];
    for seed in 0..400 {
        let trace = Pattern::Poisson.arrivals(1.0 + (seed % 7) as f64, 9, seed);
        let calls = Calls::line(1.0, 0.2, 9);
        for given_up in 0..4 {
            let expected = some_way_serves(&trace, &calls, 3.0, 0.0, given_up);
            assert_eq!(can_serve(&trace, &calls, 3.0, given_up), expected, "seed {seed}, {given_up}");
            kinds[usize::from(expected)] += 1;
        }
    }
    assert!(kinds.iter().all(|&n| n > 100), "{kinds:?}");
}

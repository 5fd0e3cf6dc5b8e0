//! Simulates the scheduler's queue and holds it against the clairvoyant optimum.
//!
//!     cargo bench --bench scheduling [-- requests=20000 seeds=3]
//!
//! The queue is the real one; arrivals, clocks and calls are made up, so that the tables are the same on every
//! machine. The last one is not: its calls take as long as those of a real session took a moment before. "Promised"
//! is the queue that knows the latency objective; shares are of the optimum of one instance that knows all arrivals.

// A panic is how a benchmark says that there is nothing to measure.
#![allow(clippy::unwrap_used)]

mod arrivals;
mod measured;
mod optimum;
mod rates;
mod simulation;

use arrivals::Pattern;
use rates::{CHOSEN_BY, Rates, Trial, inoue};
use simulation::{Calls, Setting, simulate};

/// `name=value` on the command line.
fn option(name: &str, default: usize) -> usize {
    let value =
        std::env::args().find_map(|option| Some(option.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
    value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn main() {
    let (requests, seeds) = (option("requests", 20_000), option("seeds", 3) as u64);
    let trial = |setting: &Setting, pattern| Trial { setting: setting.clone(), pattern, requests, seeds };
    println!("highest rate with 99 % on time: the optimum's in requests a millisecond, shares of it\n");
    for line in CHOSEN_BY {
        for pattern in [Pattern::Poisson, Pattern::Bursty] {
            let rates = trial(&Setting::line(line), pattern).rates();
            show(&format!("t0 {} alpha {} S {} {pattern:?}", line.0, line.1, line.2), rates);
        }
    }
    println!("\nbeyond that rate, Poisson: goodput of the peak's; late and given up of those admitted\n");
    for line in CHOSEN_BY {
        for noise in [0.0, 0.1, 0.3] {
            overload(&trial(&Setting { noise, ..Setting::line(line) }, Pattern::Poisson), line);
        }
    }
    println!("\nmean latency of take-all, simulated to predicted (Inoue 2021)\n");
    theory();
    println!("\nwith the calls of a real session, 16 numbers to 10 classes through layers of 512\n");
    let calls = measured::session_calls();
    for objective in [5.0, 20.0] {
        let objective_ms = objective * calls.time(1);
        let setting = Setting { calls: calls.clone(), objective: objective_ms, instances: 1, noise: 0.0 };
        for pattern in [Pattern::Poisson, Pattern::Bursty] {
            show(&format!("S {objective} calls of one row, {pattern:?}"), trial(&setting, pattern).rates());
        }
    }
}

fn show(name: &str, rates: Rates) {
    let Rates { optimum, take_all, promised } = rates;
    println!("{name:<36} optimum {optimum:8.3}  take-all {take_all:.3}  promised {promised:.3}");
}

fn overload(trial: &Trial, line: (f64, f64, f64)) {
    let capacity = trial.highest_simulated(0, true);
    let mut peak: f64 = 0.0;
    print!("t0 {} alpha {} S {} noise {:<4}", line.0, line.1, line.2, trial.setting.noise);
    for part in [1.0, 1.5, 3.0] {
        let outcome = trial.at(part * capacity, true);
        let admitted = (outcome.arrived() - outcome.refused) as f64;
        peak = peak.max(outcome.goodput());
        print!(
            "  x{part}: {:.2}, late {:.4}, given up {:.3}",
            outcome.goodput() / peak,
            outcome.late as f64 / admitted,
            outcome.dropped as f64 / admitted
        );
    }
    let take_all = trial.at(1.5 * capacity, false);
    println!("  take-all x1.5: {:.2}", take_all.goodput() / peak);
}

fn theory() {
    for (t0, alpha) in [(1.0, 0.1), (0.3, 1.0), (10.0, 0.1)] {
        print!("t0 {t0} alpha {alpha}");
        for load in [0.1, 0.2, 0.5, 0.8] {
            let calls = Calls::line(t0, alpha, 1 << 12);
            let setting = Setting { calls, objective: f64::MAX, instances: 1, noise: 0.0 };
            let trace = Pattern::Poisson.arrivals(load / alpha, 200_000, 5);
            let part = simulate(&setting, false, &trace).latency() / inoue(t0, alpha, load / alpha);
            print!("  load {load}: {part:.3}");
        }
        println!();
    }
}

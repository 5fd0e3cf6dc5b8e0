//! Versions swap, routes change and a rollout runs under load: does any request fail, wait, or get an answer from a
//! version that was not live?

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::{Generator, Request, Sample, percentile, quartiles};
use super::support::repository::Repository;
use super::support::weir::Weir;
use super::{CONNECTIONS, Options, Processor, ask, capacity, control, models, only, stretch};

/// Loaded, routed to and unloaded in turns.
const SWAPPED: usize = 0;
/// Its route alone changes.
const ROUTED: usize = 1;
/// A rollout moves it from one version to the other.
const ROLLING: usize = 2;
const NAMES: [&str; 3] = ["swapped", "routed", "rolling"];

/// When versions were live, by the generator's clock: from before the change was asked for until it was answered.
#[derive(Default)]
struct History(Mutex<Vec<(usize, u64, u64, u64)>>);

impl History {
    fn begins(&self, model: usize, version: u64, now: u64) {
        self.0.lock().unwrap().push((model, version, now, u64::MAX));
    }

    /// Only `versions` are live from now on.
    fn ends_but(&self, model: usize, versions: &[u64], now: u64) {
        for (of, version, _, until) in &mut *self.0.lock().unwrap() {
            if *of == model && *until == u64::MAX && !versions.contains(version) {
                *until = now;
            }
        }
    }

    fn was_live(&self, sample: &Sample) -> bool {
        self.0.lock().unwrap().iter().any(|(model, version, from, until)| {
            *model == sample.model
                && *version == sample.version
                && *from <= sample.done
                && sample.sent <= *until
        })
    }
}

struct Changes<'a> {
    server: SocketAddr,
    generator: &'a Generator,
    history: History,
    /// How many changes were made, so that the next stretch goes on where the last one stopped.
    turn: AtomicU64,
}

/// A stretch of load, and the part of the machine that was idle meanwhile.
struct Stretch {
    samples: Vec<Sample>,
    idle: f64,
}

impl Changes<'_> {
    /// Sets a route, and notes which versions were live when.
    fn route(&self, model: usize, arms: &[(u64, u64)]) {
        let live: Vec<u64> =
            arms.iter().filter(|(_, weight)| *weight > 0).map(|(version, _)| *version).collect();
        live.iter().for_each(|version| self.history.begins(model, *version, self.generator.now()));
        let arms: Vec<Value> =
            arms.iter().map(|(version, weight)| json!({"version": version, "weight": weight})).collect();
        control(self.server, "PUT", &format!("{}/route", NAMES[model]), &json!({"arms": arms}));
        self.history.ends_but(model, &live, self.generator.now());
    }

    /// Loads the other version, gives it everything, unloads the one that had it.
    fn swap(&self, to: u64) {
        let model = NAMES[SWAPPED];
        let t = || self.generator.now() as f64 / 1e9;
        let t0 = t();
        control(self.server, "POST", &format!("{model}/versions/{to}/load"), &Value::Null);
        let t1 = t();
        self.route(SWAPPED, &[(to, 100)]);
        let t2 = t();
        control(self.server, "POST", &format!("{model}/versions/{}/unload", 3 - to), &Value::Null);
        eprintln!("OP load {t0:.3}..{t1:.3} route ..{t2:.3} unload ..{:.3}", t());
    }

    /// The rollouts so far. Panics if one ended badly: the versions are equal.
    fn rollouts(&self) -> Vec<Value> {
        let told = control(self.server, "GET", &format!("{}/rollouts", NAMES[ROLLING]), &Value::Null);
        let all = told["rollouts"].as_array().cloned().unwrap_or_default();
        let good =
            |rollout: &&Value| ["running", "paused", "completed"].iter().any(|s| rollout["state"] == *s);
        let bad = all.iter().find(|rollout| !good(rollout));
        assert!(bad.is_none(), "a rollout between equals ended: {bad:?}");
        all
    }

    /// Starts a rollout unless one is under way.
    fn roll(&self) {
        let all = self.rollouts();
        if all.iter().all(|rollout| rollout["state"] == "completed") {
            let target = 1 + (all.len() as u64 + 1) % 2;
            let plan = json!({"target": target, "step_seconds_min": 1, "step_requests_min": 100});
            control(self.server, "POST", &format!("{}/rollouts", NAMES[ROLLING]), &plan);
        }
    }

    /// Pauses the rollout that is under way, or goes on with it.
    fn hold(&self, from: &str, order: &str) {
        for rollout in self.rollouts().iter().filter(|rollout| rollout["state"] == from) {
            let id = rollout["id"].as_str().unwrap();
            // It may have completed this moment, and be neither.
            ask(self.server, "POST", &format!("{}/rollouts/{id}/{order}", NAMES[ROLLING]), &Value::Null);
        }
    }

    /// Makes changes until told to stop: a route every second, a swap every second time.
    fn go_on(&self, stop: &AtomicBool) {
        self.hold("paused", "resume");
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            if true {
                self.swap(1 + turn % 2);
            }
            let routes: [&[(u64, u64)]; 4] = [&[(1, 90), (2, 10)], &[(2, 100)], &[(1, 0), (2, 1)], &[(1, 1)]];
            self.route(ROUTED, routes[turn as usize % 4]);
            self.roll();
            next += Duration::from_millis(250);
            while Instant::now() < next && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.hold("running", "pause");
    }

    fn steady(&self, rate: f64, time: Duration) -> Stretch {
        let processor = Processor::read();
        let samples = stretch(self.generator, rate, time);
        Stretch { samples, idle: processor.idle_since() }
    }

    fn changing(&self, rate: f64, time: Duration) -> Stretch {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| self.go_on(&stop));
            let stretch = self.steady(rate, time);
            stop.store(true, Ordering::Relaxed);
            changing.join().unwrap();
            stretch
        })
    }
}

/// A server with three models of two equal versions each.
fn repository() -> Repository {
    let repository = Repository::new();
    for name in NAMES {
        for version in [1, 2] {
            repository.write(&format!("{name}/{version}/model.onnx"), models::light(version, 1));
        }
    }
    repository
}

pub fn measure(options: &Options) {
    let pairs = options.get("pairs", 10.0) as usize;
    let time = Duration::from_secs_f64(options.get("seconds", 10.0));
    let repository = repository();
    let weir = Weir::start(&repository, &["--log", "warn"]);
    let requests = models::rows(64).into_iter().enumerate();
    let requests = requests.map(|(i, row)| Request::new(i % 3, NAMES[i % 3], &row)).collect();
    let generator = Generator::connect(weir.http, CONNECTIONS, requests);
    let changes = Changes {
        server: weir.http,
        generator: &generator,
        history: History::default(),
        turn: AtomicU64::new(0),
    };
    changes.route(SWAPPED, &[(2, 100)]);
    changes.route(ROUTED, &[(1, 50), (2, 50)]);
    control(weir.http, "PUT", "rolling/route", &only(1));
    [1, 2].iter().for_each(|version| changes.history.begins(ROLLING, *version, 0));
    let rate = options.get("load", 0.8) * capacity(&generator);

    let (mut ratios, mut failed, mut not_live, mut all) = (Vec::new(), 0, 0, 0);
    println!("           steady: p50, p99 ms, idle      changing: p50, p99 ms, idle");
    for pair in 0..pairs {
        // Whichever comes first may profit from a machine that drifts; so they take turns in that, too.
        let early = (pair % 2 == 1).then(|| changes.changing(rate, time));
        let steady = changes.steady(rate, time);
        let changing = early.unwrap_or_else(|| changes.changing(rate, time));
        {
            let mut all: Vec<&Sample> = changing.samples.iter().collect();
            all.sort_by_key(|s| s.due);
            let mut i = 0;
            while i < all.len() {
                if all[i].done - all[i].due > 15_000_000 {
                    let mut j = i;
                    let mut worst = 0;
                    let mut n = 0;
                    let mut sw = [0; 3];
                    while j < all.len() && all[j].due < all[i].due + 100_000_000 {
                        let l = all[j].done - all[j].due;
                        if l > 15_000_000 {
                            n += 1;
                            sw[all[j].model] += 1;
                        }
                        worst = worst.max(l);
                        j += 1;
                    }
                    eprintln!(
                        "STALL at {:.3}: {} of {} slow in 100 ms, worst {:.1} ms, by model {:?}",
                        all[i].due as f64 / 1e9,
                        n,
                        j - i,
                        worst as f64 / 1e6,
                        sw
                    );
                    i = j;
                } else {
                    i += 1;
                }
            }
        }
        let p99s = [&steady, &changing].map(|Stretch { samples, idle }| {
            let [p50, p99] = [0.5, 0.99].map(|part| percentile(samples.iter().copied(), part));
            print!("{:>12.3} {p99:>10.3} {idle:>6.2}", p50);
            all += samples.len();
            failed += samples.iter().filter(|sample| sample.version == 0).count();
            let good = samples.iter().filter(|sample| sample.version != 0);
            not_live += good.filter(|sample| !changes.history.was_live(sample)).count();
            p99
        });
        ratios.push(p99s[1] / p99s[0]);
        println!("    pair {}: p99 x {:.3}", pair + 1, p99s[1] / p99s[0]);
    }
    let [low, middle, high] = quartiles(ratios);
    let made = changes.turn.load(Ordering::Relaxed);
    let completed = changes.rollouts().iter().filter(|rollout| rollout["state"] == "completed").count();
    println!(
        "requests   {all} at {rate:.0} a second, {failed} failed, {not_live} by a version that was not live"
    );
    println!("changes    {made} of routes, {} swaps, {completed} rollouts completed", made.div_ceil(2));
    println!("p99        x {middle:.3} while things change ({low:.3} to {high:.3})");
}

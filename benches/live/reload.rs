//! A large model is replaced again and again under load: does the process grow, do neighbours wait?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::{Generator, Request, percentile};
use super::support::eventually;
use super::support::repository::Repository;
use super::support::weir::Weir;
use super::{CONNECTIONS, Options, control, models, only, stretch};

/// After so many swaps the process is as large as it needs to be.
const WARM_AFTER: usize = 5;

pub fn measure(options: &Options) {
    let swaps = options.get("swaps", 200.0) as usize;
    let rate = options.get("rate", 1000.0);
    let repository = Repository::new();
    for version in [1, 2] {
        let file = models::large(version, version, options.get("megabytes", 90.0));
        println!("version {version}  {:.1} MB", file.len() as f64 / 1e6);
        repository.write(&format!("large/{version}/model.onnx"), file);
        repository.write(&format!("light/{version}/model.onnx"), models::light(version, version));
    }
    let weir = Weir::start(&repository, &["--log", "warn"]);
    control(weir.http, "PUT", "large/route", &only(2));
    // One request in two hundred goes to the large model, which takes long over each.
    let rows = models::rows(200).into_iter().enumerate();
    let request = |(i, row): (usize, Vec<f32>)| Request::new(i, if i == 0 { "large" } else { "light" }, &row);
    let generator = Generator::connect(weir.http, CONNECTIONS, rows.map(request).collect());
    let megabytes = || weir.resident_bytes() as f64 / 1e6;
    println!("at first   {:.0} MB", megabytes());
    let light = |samples: &[super::load::Sample]| {
        percentile(samples.iter().filter(|sample| sample.model > 0).copied(), 0.99)
    };
    let before = light(&stretch(&generator, rate, Duration::from_secs(10)));
    let done = AtomicBool::new(false);
    let mut sizes = Vec::new();
    let mut took = Duration::ZERO;
    let samples = std::thread::scope(|scope| {
        let load = scope.spawn(|| generator.open_loop(rate, || !done.load(Ordering::Relaxed)));
        for swap in 0..swaps {
            let to = 1 + swap as u64 % 2;
            let began = Instant::now();
            control(weir.http, "POST", &format!("large/versions/{to}/load"), &Value::Null);
            took += began.elapsed();
            control(weir.http, "PUT", "large/route", &only(to));
            control(weir.http, "POST", &format!("large/versions/{}/unload", 3 - to), &Value::Null);
            eventually("the other version is gone", || {
                let versions = control(weir.http, "GET", "large", &Value::Null)["versions"].clone();
                let versions = versions.as_array().cloned().unwrap_or_default();
                versions.iter().any(|v| v["version"] != to && v["state"] == "UNAVAILABLE").then_some(())
            });
            sizes.push(megabytes());
            if (swap + 1) % 10 == 0 || swap + 1 == WARM_AFTER {
                println!("swap {:<5} {:.0} MB", swap + 1, megabytes());
            }
        }
        done.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    let after = light(&stretch(&generator, rate, Duration::from_secs(10)));
    let (warm, end) = (sizes[WARM_AFTER.min(swaps) - 1], sizes[swaps - 1]);
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    let failed = samples.iter().filter(|sample| sample.version == 0).count();
    println!(
        "memory     {warm:.0} MB after swap {WARM_AFTER}, {end:.0} MB at the end (x {:.3}), at most {largest:.0} MB",
        end / warm
    );
    println!("a load     {:.2} s", took.as_secs_f64() / swaps as f64);
    println!("requests   {}, {failed} failed", samples.len());
    println!(
        "neighbour  p99 {:.3} ms under swaps; {before:.3} ms before, {after:.3} ms after",
        light(&samples)
    );
}

//! Shadows that are slow, wrong or broken: does the version that answers notice?

use std::time::Duration;

use serde_json::{Value, json};

use super::load::{Generator, Request, percentile, quartiles};
use super::support::eventually;
use super::support::repository::Repository;
use super::support::weir::Weir;
use super::{BUSY_CONNECTIONS, CONNECTIONS, Options, capacity, control, models, stretch};

/// Versions of the model `m`: the one that answers, and its shadows.
const PRIMARY: u64 = 1;
const SHADOWS: [(u64, &str); 4] = [(2, "garbage"), (3, "failing"), (4, "slow"), (5, "equal")];

pub fn measure(options: &Options) {
    let pairs = options.get("pairs", 10.0) as usize;
    let time = Duration::from_secs_f64(options.get("seconds", 5.0));
    let repository = Repository::new();
    let files = [
        models::light(PRIMARY, 1),
        models::light(PRIMARY, 2),
        models::failing(PRIMARY),
        models::slow(PRIMARY, 1, 20),
        models::light(PRIMARY, 1),
    ];
    for (version, file) in (1..).zip(files) {
        repository.write(&format!("m/{version}/model.onnx"), file);
    }
    repository
        .write("m/config.pbtxt", "version_policy { all {} }\nmax_batch_size: 32\ndynamic_batching {}\n");
    let weir = Weir::start(&repository, &["--log", "error"]);
    route(&weir, None);
    check_agreement(&weir);
    let requests = models::rows(64).iter().map(|row| Request::new(0, "m", row)).collect();
    let generator = Generator::connect(weir.http, CONNECTIONS, requests);
    let rate = options.get("load", 0.8) * capacity(&generator);
    let chosen = options.get("shadow", 0.0) as u64;
    for (version, name) in SHADOWS.into_iter().filter(|(version, _)| chosen == 0 || *version == chosen) {
        let (mut p99s, mut rates) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            let mut measured = [(0.0, 0.0); 2];
            for shadowed in if pair % 2 == 0 { [false, true] } else { [true, false] } {
                quiet(&weir);
                route(&weir, shadowed.then_some(version));
                let open = stretch(&generator, rate, time);
                let closed = generator.closed_loop(BUSY_CONNECTIONS, time);
                let failed = open.iter().chain(&closed).filter(|sample| sample.version != PRIMARY).count();
                assert_eq!(failed, 0, "requests failed, or were answered by the shadow '{name}'");
                let p99 = percentile(open.into_iter(), 0.99);
                measured[usize::from(shadowed)] = (p99, closed.len() as f64 / time.as_secs_f64());
            }
            let [(p99, rate), (p99_shadowed, rate_shadowed)] = measured;
            println!(
                "{name:<8} {:>3}: p99 {p99:.3} -> {p99_shadowed:.3} ms, {rate:.0} -> {rate_shadowed:.0}/s",
                pair + 1
            );
            p99s.push(p99_shadowed / p99);
            rates.push(rate_shadowed / rate);
        }
        let [(low, middle, high), (rate_low, rate_middle, rate_high)] =
            [p99s, rates].map(|ratios| quartiles(ratios).into());
        println!(
            "{name:<8} p99 x {middle:.3} ({low:.3} to {high:.3}), throughput x {rate_middle:.3} ({rate_low:.3} to {rate_high:.3})"
        );
        println!("{name:<8} copies {}", report(&weir, version)["outcomes"]);
    }
}

/// Everything to the primary, with that shadow for all of it.
fn route(weir: &Weir, shadow: Option<u64>) {
    let shadows: Vec<Value> =
        shadow.iter().map(|version| json!({"version": version, "share": 1.0})).collect();
    let route = json!({"arms": [{"version": PRIMARY, "weight": 1}], "shadows": shadows});
    control(weir.http, "PUT", "m/route", &route);
}

/// Waits until the server has nothing to do: a shadow may still be busy with what it was given before.
fn quiet(weir: &Weir) {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", weir.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
        fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
    };
    eventually("the server is quiet", || {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        (ticks() - before < 3).then_some(())
    });
}

/// What the server says of a shadow.
fn report(weir: &Weir, shadow: u64) -> Value {
    let shadows = control(weir.http, "GET", "m/shadows", &Value::Null)["shadows"].clone();
    let reports = shadows.as_array().cloned().unwrap_or_default();
    reports.into_iter().find(|report| report["shadow"] == shadow).unwrap_or(Value::Null)
}

/// Sends requests no faster than they are compared, so that no copy is dropped, and compares the server's figures with what the answers
/// of both versions say.
fn check_agreement(weir: &Weir) {
    const REQUESTS: usize = 500;
    let (shadow, _) = SHADOWS[0];
    route(weir, Some(shadow));
    let mut connection = weir.connect();
    let (mut agreeing, mut confusion, mut told) = (0, [[0; 10]; 10], Value::Null);
    for (sent, row) in (1..).zip(models::rows(REQUESTS)) {
        let mut class = |path: &str| {
            connection.write(&Request::new(0, path, &row).bytes);
            let answer = connection.receive().expect("an answer").expect(200);
            let outputs = &answer.body[answer.body.len() - 44..answer.body.len() - 4];
            let scores = outputs.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
        };
        let (primary, other) = (class("m"), class(&format!("m/versions/{shadow}")));
        agreeing += u64::from(primary == other);
        confusion[primary][other] += 1;
        if sent % 50 == 0 {
            told = eventually("all copies are compared", || {
                let report = report(weir, shadow);
                (report["outcomes"]["compared"] == sent).then_some(report)
            });
        }
    }
    assert_eq!(told["agreement"]["rows"], REQUESTS, "{told}");
    assert_eq!(told["agreement"]["agreeing"], agreeing, "{told}");
    for (primary, row) in confusion.iter().enumerate() {
        for (other, rows) in row.iter().enumerate().filter(|(_, rows)| **rows > 0) {
            let (primary, other) = (primary.to_string(), other.to_string());
            let cells = told["confusion"].as_array().unwrap();
            let cell = cells.iter().find(|c| c["predicted"] == *primary && c["shadow_predicted"] == *other);
            assert_eq!(cell.map(|cell| &cell["rows"]), Some(&json!(rows)), "{primary} {other}: {told}");
        }
    }
    println!("agreement  {agreeing} of {REQUESTS} rows, and the confusion, as calculated outside");
}

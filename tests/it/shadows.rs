//! Shadows on the real server: what is told of them is what a calculation outside finds, and nothing that they do
//! reaches a client (INV-05 itself is in `invariants`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::metrics::Page;
use crate::support::project;
use crate::support::tensors::tensor;
use crate::support::versions::{MODEL, Served, row};
use crate::support::weir::Weir;

/// Weights and a shadow.
fn route(shadow: u64, share: f64) -> Value {
    json!({"arms": [{"version": 1, "weight": 1}], "shadows": [{"version": shadow, "share": share}]})
}

/// The report of one pair of versions, if there is one.
fn report(reports: &Value, shadow: u64) -> Option<Value> {
    let reports = reports["shadows"].as_array().expect("a list");
    reports.iter().find(|report| report["primary"] == 1 && report["shadow"] == shadow).cloned()
}

fn outcome(report: &Value, name: &str) -> u64 {
    report["outcomes"][name].as_u64().unwrap_or_else(|| panic!("no '{name}' in {report}"))
}

impl Served {
    /// Waits until the outcomes of that shadow add up to `copies`; gives its report.
    fn compared(&self, shadow: u64, copies: u64) -> Value {
        eventually("every copy has an outcome", || {
            // Drops are told of when the numbers are looked at.
            self.weir.page();
            let report = report(&self.read("shadows"), shadow)?;
            let outcomes = report["outcomes"].as_object().expect("counts by name");
            let total: u64 = outcomes.values().map(|count| count.as_u64().unwrap()).sum();
            assert!(total <= copies, "{report}");
            (total == copies).then_some(report)
        })
    }
}

/// Images of noise, for which versions of `digits` often disagree. A linear congruence: every run sends the same.
fn images(count: usize) -> Vec<Value> {
    let mut seed = 12_345u64;
    let mut pixel = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % 17
    };
    let mut image = |rows: usize| {
        let pixels: Vec<u64> = (0..64 * rows).map(|_| pixel()).collect();
        json!({"inputs": [tensor("image", "FP32", &[rows, 64], &json!(pixels))]})
    };
    (0..count).map(|number| image(1 + number % 3)).collect()
}

/// What a version of `digits` answers: a class and ten probabilities for each row.
fn answer(weir: &Weir, version: u64, image: &Value) -> (Vec<i64>, Vec<f32>) {
    let path = format!("/v2/models/digits/versions/{version}/infer");
    let answer = weir.post(&path, image).expect(200).json();
    let output = |name: &str| {
        let outputs = answer["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap()["data"].clone()
    };
    (
        serde_json::from_value(output("label")).unwrap(),
        serde_json::from_value(output("probabilities")).unwrap(),
    )
}

/// What is told of a pair of versions, calculated outside.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    rows: u64,
    agreeing: u64,
    disagreeing: u64,
    confusion: BTreeMap<(i64, i64), u64>,
    probabilities_within: u64,
    /// The sum over requests of the largest difference.
    absolute: f64,
    relative: f64,
}

fn expected(weir: &Weir, images: &[Value]) -> Expected {
    let mut expected = Expected::default();
    for image in images {
        let (ours, theirs) = (answer(weir, 1, image), answer(weir, 2, image));
        for (a, b) in ours.0.iter().zip(&theirs.0) {
            expected.rows += 1;
            expected.agreeing += u64::from(a == b);
            *expected.confusion.entry((*a, *b)).or_default() += 1;
        }
        expected.disagreeing += u64::from(ours.0 != theirs.0);
        let pairs = || ours.1.iter().zip(&theirs.1).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let within = pairs().all(|(a, b)| (a - b).abs() <= 1e-5 + 1e-4 * a.abs());
        expected.probabilities_within += u64::from(within);
        expected.absolute += pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let relative = |(a, b): (f64, f64)| (a - b).abs() / a.abs().max(b.abs());
        expected.relative += pairs().map(relative).fold(0.0, f64::max);
    }
    expected
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

#[test]
fn what_is_told_of_a_shadow_is_what_a_calculation_outside_finds() {
    let weir = Weir::start(project("models"), &[]);
    let images = images(60);
    let expected = expected(&weir, &images);
    let path = "/control/v1/models/digits/route";
    weir.connect().ask("PUT", path, &[], route(2, 1.0).to_string().as_bytes()).expect(200);
    for image in &images {
        assert_eq!(weir.infer("digits", image).expect(200).json()["model_version"], "1");
    }
    let pair = [("model", "digits"), ("version", "1"), ("shadow", "2")];
    let with = |label: (&'static str, &'static str)| [&pair[..], &[label]].concat();
    let page = weir.until("every copy is compared", |page| {
        page.sum("weir_shadow_requests_total", &with(("outcome", "compared"))) == images.len() as f64
    });
    let found = report(&weir.get("/control/v1/models/digits/shadows").expect(200).json(), 2).unwrap();

    let agreement = &found["agreement"];
    assert_eq!(
        (&agreement["rows"], &agreement["agreeing"]),
        (&json!(expected.rows), &json!(expected.agreeing))
    );
    assert!(close(agreement["rate"].as_f64().unwrap(), expected.agreeing as f64 / expected.rows as f64));
    assert_eq!(found["disagreeing"], expected.disagreeing);
    assert!(expected.disagreeing > 5 && expected.agreeing > 5, "too much alike to tell: {expected:?}");
    let names = std::fs::read_to_string(project("models/digits/digits_labels.txt")).unwrap();
    let names: Vec<&str> = names.split_whitespace().collect();
    let class = |name: &Value| names.iter().position(|n| name == n).expect("a digit") as i64;
    let confusion: BTreeMap<(i64, i64), u64> = found["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| {
            let key = (class(&cell["predicted"]), class(&cell["shadow_predicted"]));
            (key, cell["rows"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(confusion, expected.confusion);
    // Two outputs of each request are compared: the labels, which agree with the classes, and the probabilities.
    let labels_within = images.len() as u64 - expected.disagreeing;
    assert_eq!(found["within_tolerance"], labels_within + expected.probabilities_within);
    assert_eq!(
        found["within_tolerance"].as_u64().unwrap() + found["out_of_tolerance"].as_u64().unwrap(),
        2 * images.len() as u64
    );

    // The same on the metrics page.
    let sum = |name: &str, label| page.sum(name, &with(label));
    assert_eq!(sum("weir_shadow_agreement_rows_total", ("agree", "true")), expected.agreeing as f64);
    let disagreeing = (expected.rows - expected.agreeing) as f64;
    assert_eq!(sum("weir_shadow_agreement_rows_total", ("agree", "false")), disagreeing);
    assert_eq!(page.sum("weir_shadow_disagreements_total", &pair), expected.disagreeing as f64);
    for ((ours, theirs), rows) in &expected.confusion {
        let cell = [("predicted", names[*ours as usize]), ("shadow_predicted", names[*theirs as usize])];
        let labels = [&pair[..], &cell].concat();
        assert_eq!(page.sum("weir_shadow_confusion_rows_total", &labels), *rows as f64);
    }
    let probabilities = ("output", "probabilities");
    assert_eq!(sum("weir_shadow_absolute_difference_count", probabilities), images.len() as f64);
    for (name, total) in [
        ("weir_shadow_absolute_difference_sum", expected.absolute),
        ("weir_shadow_relative_difference_sum", expected.relative),
    ] {
        assert!(close(sum(name, probabilities), total), "{name}: {} and {total}", sum(name, probabilities));
    }

    // The gravest disagreements can be read, with what each version said.
    let worst = found["disagreements"].as_array().unwrap();
    assert_eq!(worst.len() as u64, expected.disagreeing.min(32));
    let severities: Vec<f64> = worst.iter().map(|kept| kept["severity"].as_f64().unwrap()).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b), "{severities:?}");
    let values = |kept: &Value, side: &str| kept[side][0]["values"].clone();
    for kept in worst {
        assert_eq!(kept["digest"].as_str().unwrap().len(), 64);
        assert_eq!(kept["primary"][0]["name"], "label");
        assert_ne!(values(kept, "primary"), values(kept, "shadow"));
    }
}

#[test]
fn a_share_of_the_requests_is_copied_and_no_request_that_names_its_version() {
    let served = Served::start(&[(1, "same"), (2, "double")]);
    let mut client = served.client();
    let copied = |page: &Page| page.sum("weir_shadow_requests_total", &[]);
    served.put_route(&route(2, 0.0)).expect(200);
    client.send(100, &row(1.0));
    assert_eq!(copied(&served.weir.page()), 0.0);

    served.put_route(&route(2, 1.0)).expect(200);
    for _ in 0..50 {
        client.ask_version(1, &row(1.0)).expect(200);
    }
    client.send(40, &row(1.0));
    let found = served.compared(2, 40);
    assert_eq!((outcome(&found, "compared"), found["disagreeing"].as_u64()), (40, Some(40)), "{found}");

    // Twice its half, and four and a half standard deviations to either side: one run in 100,000 is outside.
    served.put_route(&route(2, 0.5)).expect(200);
    client.send(400, &row(1.0));
    let page = served.weir.until("the copies are compared", |page| copied(page) >= 195.0);
    served.put_route(&json!({"arms": [{"version": 1, "weight": 1}]})).expect(200);
    let copies = copied(&page) - 40.0;
    assert!((155.0..=245.0).contains(&copies), "{copies} of 400");

    // A route without it ends it.
    client.send(50, &row(1.0));
    let copies = copied(&served.weir.page());
    client.send(50, &row(1.0));
    assert_eq!(copied(&served.weir.page()), copies);
}

#[test]
fn copies_beyond_the_budget_are_dropped_and_counted_and_a_route_change_ends_what_waits() {
    // Each copy takes the shadow a fifth of a second at the least.
    let served = Served::start(&[(1, "same"), (2, "burns")]);
    served.put_route(&route(2, 1.0)).expect(200);
    let mut client = served.client();
    let began = Instant::now();
    let sent = 400;
    assert!(client.send(sent, &row(200.0)).iter().all(|reply| reply.status == 200 && reply.version == 1));
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "clients waited for the shadow: {:?}",
        began.elapsed()
    );
    let dropped = |page: &Page| page.sum("weir_shadow_requests_total", &[("outcome", "dropped")]);
    served.weir.until("drops are counted", |page| dropped(page) >= 200.0);

    // More than a hundred wait. Without the shadow none of them begins: what runs, a batch at the most, ends.
    let page = served.weir.page();
    let compared = page.sum("weir_shadow_requests_total", &[("outcome", "compared")]);
    served.put_route(&json!({"arms": [{"version": 1, "weight": 1}]})).expect(200);
    let found = served.compared(2, sent as u64);
    assert!(outcome(&found, "compared") as f64 <= compared + 32.0, "{compared} and then {found}");
    served.change("POST", "versions/2/unload", &json!({})).expect(200);
    eventually("the version is let go of", || {
        let status = served.weir.get(&format!("/control/v1/models/{MODEL}")).expect(200).json();
        let versions = status["versions"].clone();
        let state = versions.as_array().unwrap().iter().find(|version| version["version"] == 2).cloned();
        (state?["state"] == "UNAVAILABLE").then_some(())
    });
}

#[test]
fn shadows_that_fail_refuse_or_answer_nonsense_are_told_apart() {
    let served = Served::start(&[(1, "same"), (2, "fails"), (3, "wide"), (4, "highest"), (5, "double")]);
    let shadows: Vec<Value> = [2, 3, 4, 5].map(|version| json!({"version": version, "share": 1.0})).to_vec();
    served.put_route(&json!({"arms": [{"version": 1, "weight": 1}], "shadows": shadows})).expect(200);
    let mut client = served.client();
    for _ in 0..10 {
        assert_eq!(client.reply(&[], &row(1000.0)).status, 200);
    }
    for (shadow, how) in [(2, "failed"), (3, "refused"), (4, "compared"), (5, "compared")] {
        let found = served.compared(shadow, 10);
        assert_eq!(outcome(&found, how), 10, "{found}");
        // What is not there cannot be compared, and what is twice as much is out of tolerance.
        let wrong = if how == "compared" { 10 } else { 0 };
        assert_eq!(
            (&found["disagreeing"], &found["out_of_tolerance"]),
            (&json!(wrong), &json!(wrong)),
            "{found}"
        );
    }
    // A request that the primary cannot answer has nothing to be compared with.
    served
        .put_route(&json!({"arms": [{"version": 2, "weight": 1}], "shadows": [{"version": 5, "share": 1}]}))
        .expect(200);
    assert_ne!(client.reply(&[], &row(1000.0)).status, 200);
    let pair = [("version", "2"), ("shadow", "5"), ("outcome", "unanswered")];
    served
        .weir
        .until("it is counted as unanswered", |page| page.sum("weir_shadow_requests_total", &pair) == 1.0);
}

#[test]
fn a_hanging_shadow_does_not_hold_the_server_up() {
    let mut served = Served::start(&[(1, "same"), (2, "burns")]);
    served.put_route(&route(2, 1.0)).expect(200);
    // Ten minutes of work, of which one call is under way.
    let mut client = served.client();
    assert!(client.send(5, &row(120_000.0)).iter().all(|reply| reply.status == 200));
    let told = Instant::now();
    served.end("TERM");
    assert!(told.elapsed() < Duration::from_secs(15), "it took {:?}", told.elapsed());
}

/// A repository of one model cannot say it: the pair's figures end with either version.
#[test]
fn what_is_known_of_a_pair_goes_with_its_shadow() {
    let served = Served::start(&[(1, "same"), (2, "double")]);
    served.put_route(&route(2, 1.0)).expect(200);
    served.client().send(3, &row(1.0));
    served.compared(2, 3);
    served.put_route(&json!({"arms": [{"version": 1, "weight": 1}]})).expect(200);
    assert!(report(&served.read("shadows"), 2).is_some(), "what was found stays readable");
    served.change("POST", "versions/2/unload", &json!({})).expect(200);
    eventually("the report is gone", || report(&served.read("shadows"), 2).is_none().then_some(()));
    assert!(!served.weir.page().text.contains("shadow=\"2\""));
}

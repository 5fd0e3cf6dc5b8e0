use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tally::WORST_MAX;
use super::*;
use crate::event::{
    Agreement, Comparison, Cosine, Incomparable, InferEvent, Magnitude, OutputDifference, ShadowOutcome,
    Sides,
};
use crate::id::{ModelName, Version};
use crate::infer::Timings;
use crate::infer::{RouteReason, Routing};
use crate::reading::CLASS_BYTES_MAX;
use crate::tensor::{DataType, Shape, Signature, Tensor, TensorSpec, strings};

fn id(model: &str, version: u64) -> ServableId {
    let (model, version) = (ModelName::parse(model), Version::parse(&version.to_string()));
    ServableId { model: model.unwrap(), version: version.unwrap() }
}

/// One output of labels, as texts.
fn profile() -> ServableProfile {
    let label = TensorSpec {
        name: "label".into(),
        datatype: DataType::Bytes,
        dims: Vec::new(),
        any_rank: false,
        reshape: None,
        optional: false,
        labels: Arc::default(),
    };
    let signature = Signature { inputs: Vec::new(), outputs: vec![label], max_batch_size: 8 };
    ServableProfile {
        signature: Arc::new(signature),
        class_scores: Vec::new(),
        class_labels: vec![0],
        cached: true,
    }
}

fn texts(values: &[&str]) -> Tensor {
    let packed = strings::pack(values.iter().map(|text| text.as_bytes()));
    Tensor::new(DataType::Bytes, Shape::from_dims([values.len() as i64]).unwrap(), packed).unwrap()
}

fn answered(sink: &dyn ServableSink, outcome: Outcome, classes: &[&str]) {
    let predicted = [(0, texts(classes))];
    let timings = Timings { total: Duration::from_millis(2), ..Timings::default() };
    let routing = Routing { reason: RouteReason::Latest, revision: 0, unit: None, experiment: None };
    sink.infer(&InferEvent {
        outcome,
        ended: Instant::now(),
        timings,
        routing: &routing,
        rows: classes.len(),
        lookup: None,
        predicted: &predicted,
    });
}

/// The sum over the samples of `name` whose line has every one of `labels`.
fn sum(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' '));
    let values: Vec<f64> = lines
        .filter(|(own, _)| labels.iter().all(|label| own.contains(label)))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[track_caller]
fn shows(monitor: &Monitor, name: &str, labels: &[&str], expected: Option<f64>) {
    let page = monitor.render(&Readings::default());
    assert_eq!(sum(&page, name, labels), expected, "{name} {labels:?} in\n{page}");
}

#[test]
fn a_versions_series_go_with_it_and_its_outcomes_stay() {
    let monitor = Monitor::new("1");
    let first = monitor.servable(&id("m", 1), &profile());
    let second = monitor.servable(&id("m", 2), &profile());
    answered(&*first, Outcome::Ok, &["spam", "ham"]);
    answered(&*first, Outcome::Internal, &[]);
    answered(&*second, Outcome::Ok, &["spam"]);
    shows(&monitor, "weir_rows_total", &[r#"version="1""#], Some(2.0));
    assert_eq!(monitor.statistics().len(), 2);

    monitor.retired(&id("m", 1));
    answered(&*first, Outcome::Ok, &["spam"]);
    for name in ["weir_rows_total", "weir_request_duration_seconds_count", "weir_predictions_total"] {
        shows(&monitor, name, &[r#"version="1""#], None);
        shows(&monitor, name, &[r#"version="2""#], Some(1.0));
    }
    shows(&monitor, "weir_requests_total", &[r#"version="1""#, r#"outcome="ok""#], Some(2.0));
    shows(&monitor, "weir_requests_total", &[r#"version="1""#], Some(3.0));
    let left: Vec<ServableId> = monitor.statistics().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, [id("m", 2)]);

    let again = monitor.servable(&id("m", 1), &profile());
    answered(&*again, Outcome::Ok, &["spam"]);
    shows(&monitor, "weir_rows_total", &[r#"version="1""#], Some(1.0));
    shows(&monitor, "weir_requests_total", &[r#"version="1""#], Some(4.0));
}

#[test]
fn a_version_loaded_anew_in_place_continues_its_series() {
    let monitor = Monitor::new("1");
    let old = monitor.servable(&id("m", 1), &profile());
    answered(&*old, Outcome::Ok, &["spam"]);
    let new = monitor.servable(&id("m", 1), &profile());
    answered(&*new, Outcome::Ok, &["spam"]);
    monitor.retired(&id("m", 1));
    answered(&*new, Outcome::Ok, &["spam"]);
    shows(&monitor, "weir_predictions_total", &[r#"class="spam""#], Some(3.0));
    assert_eq!(monitor.statistics()[0].1.inference_count, 3);
    monitor.retired(&id("m", 1));
    shows(&monitor, "weir_predictions_total", &[], None);
    monitor.retired(&id("m", 1));
    assert!(monitor.statistics().is_empty(), "one retirement too many changes nothing");
}

#[test]
fn classes_stay_bounded_over_loads_in_place() {
    let monitor = Monitor::new("1");
    for load in 0..4 {
        let sink = monitor.servable(&id("m", 1), &profile());
        for class in 0..150 {
            answered(&*sink, Outcome::Ok, &[&format!("{load}-{class}")]);
        }
        answered(&*sink, Outcome::Ok, &[&"x".repeat(CLASS_BYTES_MAX + 1)]);
    }
    let page = monitor.render(&Readings::default());
    let series = page.lines().filter(|line| line.starts_with("weir_predictions_total{"));
    assert_eq!(series.count(), 2 * prediction::CLASSES_MAX + 1);
    assert_eq!(sum(&page, "weir_predictions_total", &[]), Some(4.0 * 151.0));
}

#[test]
fn the_first_outputs_alone_have_series_of_their_own() {
    let monitor = Monitor::new("1");
    let mut profile = profile();
    let named =
        |i: usize| TensorSpec { name: format!("l{i}").into(), ..profile.signature.outputs[0].clone() };
    let outputs: Vec<TensorSpec> = (0..2 * prediction::OUTPUTS_MAX).map(named).collect();
    profile.class_labels = (0..outputs.len()).collect();
    profile.signature = Arc::new(Signature { outputs, ..(*profile.signature).clone() });
    let predicted: Vec<(usize, Tensor)> =
        profile.class_labels.iter().map(|&index| (index, texts(&["spam"]))).collect();
    let sink = monitor.servable(&id("m", 1), &profile);
    let routing = Routing { reason: RouteReason::Latest, revision: 0, unit: None, experiment: None };
    sink.infer(&InferEvent {
        outcome: Outcome::Ok,
        ended: Instant::now(),
        timings: Timings::default(),
        routing: &routing,
        rows: 1,
        lookup: None,
        predicted: &predicted,
    });
    shows(&monitor, "weir_predictions_total", &[], Some(prediction::OUTPUTS_MAX as f64));
}

#[test]
fn the_page_says_every_metric_once_and_what_is_read_only_of_what_is_there() {
    let monitor = Monitor::new("1");
    for version in 1..4 {
        answered(&*monitor.servable(&id("m", version), &profile()), Outcome::Ok, &["spam"]);
    }
    monitor.upkeep();
    let there = vec![(id("m", 2), 7), (id("n", 1), 0)];
    let ready = vec![(id("m", 2), true), (id("n", 1), false)];
    let readings = Readings {
        queue_depths: there,
        calls_in_flight: vec![(id("m", 2), 2)],
        ready,
        shares: vec![],
        worker_restarts: Vec::new(),
        in_flight: 5,
        bytes_in_flight: 7,
        connections: vec![("http", 3)],
        cache: None,
        certificate_ends: None,
    };
    let page = monitor.render(&readings);
    assert_eq!(sum(&page, "weir_queue_depth", &[]), Some(7.0));
    assert_eq!(sum(&page, "weir_session_calls_in_flight", &[]), Some(2.0));
    assert_eq!(sum(&page, "weir_model_ready", &[r#"model="m""#]), Some(1.0));
    assert_eq!(sum(&page, "weir_model_ready", &[r#"model="n""#]), Some(0.0));
    assert_eq!(sum(&page, "weir_connections", &[]), Some(3.0));
    assert!(page.contains("\nweir_requests_in_flight 5\n"), "{page}");
    let mut seen = BTreeSet::new();
    let mut current = "";
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(named) = line.strip_prefix("# TYPE ") {
            current = named.split(' ').next().unwrap();
            assert!(seen.insert(current), "{current} comes twice");
            let described = format!("# HELP {current} ");
            assert!(page.contains(&described) || !current.starts_with("weir_"), "{current} has no help");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(current), "{line} stands under {current}");
        }
    }
    assert!(seen.contains("process_open_fds") && seen.contains("weir_rows_total"), "{seen:?}");
    let later = monitor.render(&Readings::default());
    assert_eq!((sum(&later, "weir_queue_depth", &[]), sum(&later, "weir_model_ready", &[])), (None, None));
}

fn difference(output: &str, absolute: f64, relative: f64, differing: usize) -> OutputDifference {
    OutputDifference {
        output: output.into(),
        datatype: DataType::Fp32,
        numeric: true,
        elements: 4,
        differing,
        nonfinite_mismatches: 0,
        magnitude: Magnitude { absolute_max: absolute, relative_max: relative, ..Magnitude::default() },
        incomparable: None,
    }
}

fn comparison(pairs: &[(&str, &str)], severity: f64) -> Comparison {
    let sides = |(ours, theirs): &(&str, &str)| Sides { primary: (*ours).into(), shadow: (*theirs).into() };
    let agreeing = pairs.iter().filter(|(ours, theirs)| ours == theirs).count();
    Comparison {
        agreement: Some(Agreement { rows: pairs.len(), agreeing }),
        pairs: pairs.iter().map(sides).collect(),
        differences: Vec::new(),
        cosine: None,
        disagrees: severity > 0.0,
        severity,
    }
}

/// Version 1 of `m` and its shadow, version 2.
struct Pairing {
    monitor: Monitor,
}

impl Pairing {
    fn new() -> Self {
        let monitor = Monitor::new("1");
        monitor.servable(&id("m", 1), &profile());
        monitor.servable(&id("m", 2), &profile());
        Self { monitor }
    }

    fn tell(&self, outcome: ShadowOutcome, comparison: Option<&Comparison>, digest: u8) {
        let (primary, shadow) = ([("label".into(), texts(&["spam"]))], [("label".into(), texts(&["ham"]))]);
        self.monitor.shadow(&ShadowEvent {
            model: &id("m", 1).model,
            versions: Sides { primary: id("m", 1).version, shadow: id("m", 2).version },
            outcome,
            requests: 1,
            comparison,
            digest: Some([digest; 32]),
            outputs: Sides { primary: &primary, shadow: &shadow },
            latency: Some(Sides { primary: Duration::from_millis(3), shadow: Duration::from_millis(30) }),
        });
    }

    fn compared(&self, comparison: &Comparison) {
        self.tell(ShadowOutcome::Compared, Some(comparison), 0xab);
    }

    fn report(&self) -> ShadowReport {
        let reports = self.monitor.shadow_report("m");
        assert_eq!(reports.len(), 1);
        reports.into_iter().next().unwrap()
    }
}

#[test]
fn comparisons_add_up_alike_on_the_page_and_in_the_report() {
    let pairing = Pairing::new();
    for outcome in ShadowOutcome::ALL.iter().skip(1) {
        pairing.tell(*outcome, None, 0);
    }
    pairing.compared(&comparison(&[("spam", "spam"), ("spam", "ham"), ("ham", "ham")], 0.5));
    let mut second = comparison(&[("spam", "ham")], 1.0);
    second.differences = vec![difference("y", 0.0, 0.0, 0), difference("z", 5.0, 0.25, 2)];
    second.differences[0].incomparable = Some(Incomparable::Shape);
    pairing.compared(&second);
    let mut third = comparison(&[], 0.0);
    third.agreement = None;
    third.differences = vec![difference("z", 1e-6, 1e-7, 0)];
    third.cosine = Some(Cosine { min: 0.995, mean: 0.999 });
    pairing.compared(&third);

    let report = pairing.report();
    assert_eq!((report.versions.version, report.versions.shadow), (1, 2));
    let requests: Vec<(&str, u64)> = report.requests.iter().map(|(name, count)| (*name, *count)).collect();
    let others = [("dropped", 1), ("failed", 1), ("refused", 1), ("unanswered", 1)];
    assert_eq!(requests, [&[("compared", 3)], &others[..]].concat());
    assert_eq!(report.disagreements, 2);
    assert_eq!((report.classes.rows, report.classes.agreeing), (4, 2));
    let confusion = report.classes.confusion.iter();
    let confusion: Vec<_> = confusion.map(|c| (&*c.predicted, &*c.shadow_predicted, c.rows)).collect();
    assert_eq!(confusion, [("ham", "ham", 1), ("spam", "ham", 2), ("spam", "spam", 1)]);
    let (y, z) = (&report.outputs["y"], &report.outputs["z"]);
    assert_eq!((y.within_tolerance, y.out_of_tolerance, y.incomparable, y.absolute.count), (0, 0, 1, 0));
    assert_eq!((z.within_tolerance, z.out_of_tolerance, z.incomparable, z.absolute.count), (1, 1, 0, 2));
    assert_eq!((z.absolute.max, z.absolute.sum, z.relative.max), (5.0, 5.0 + 1e-6, 0.25));
    assert_eq!(report.cosine.as_ref().map(|cosine| (cosine.count, cosine.min)), Some((1, 0.995)));
    assert_eq!((report.seconds.primary.count, report.seconds.shadow.max), (3, 0.03));
    let worst: Vec<_> = report.worst.iter().map(|worst| worst.severity).collect();
    assert_eq!(worst, [Some(1.0), Some(0.5)]);
    assert_eq!(report.worst[0].digest, Some("ab".repeat(32)));
    let shown = serde_json::to_value(&report).unwrap();
    let output = &shown["worst"][0]["outputs"]["shadow"][0];
    assert_eq!(
        *output,
        serde_json::json!({"name": "label", "datatype": "BYTES", "shape": [1], "values": ["ham"]})
    );

    let own = r#"model="m",version="1",shadow="2""#;
    for (name, labels, expected) in [
        ("weir_shadow_requests_total", &[own, r#"outcome="compared""#][..], 3.0),
        ("weir_shadow_requests_total", &[own, r#"outcome="dropped""#], 1.0),
        ("weir_shadow_disagreements_total", &[own], 2.0),
        ("weir_shadow_agreement_rows_total", &[own, r#"agree="true""#], 2.0),
        ("weir_shadow_agreement_rows_total", &[own, r#"agree="false""#], 2.0),
        ("weir_shadow_confusion_rows_total", &[own, r#"predicted="spam",shadow_predicted="ham""#], 2.0),
        ("weir_shadow_outputs_total", &[own, r#"output="z",tolerance="within""#], 1.0),
        ("weir_shadow_outputs_total", &[own, r#"output="y",tolerance="incomparable""#], 1.0),
        ("weir_shadow_absolute_difference_count", &[own, r#"output="z""#], 2.0),
        ("weir_shadow_absolute_difference_bucket", &[own, r#"output="z",le="1""#], 1.0),
        ("weir_shadow_relative_difference_sum", &[own, r#"output="z""#], 0.25 + 1e-7),
        ("weir_shadow_cosine_bucket", &[own, r#"le="0.995""#], 1.0),
        ("weir_shadow_duration_seconds_count", &[own, r#"side="shadow""#], 3.0),
    ] {
        shows(&pairing.monitor, name, labels, Some(expected));
    }
}

#[test]
fn differences_as_large_as_doubles_go_have_finite_sums_on_the_page_and_in_the_report() {
    let pairing = Pairing::new();
    for _ in 0..3 {
        let mut largest = comparison(&[], 1.0);
        largest.differences = vec![difference("y", f64::MAX, 2.0, 1), difference("z", f64::INFINITY, 2.0, 1)];
        pairing.compared(&largest);
    }
    let report = pairing.report();
    for output in ["y", "z"] {
        assert_eq!(report.outputs[output].absolute.sum, 3.0 * 1e280);
        let labels = [&*format!("output=\"{output}\"")];
        shows(&pairing.monitor, "weir_shadow_absolute_difference_sum", &labels, Some(3.0 * 1e280));
    }
    let shown = serde_json::to_string(&report).unwrap();
    assert!(!shown.contains("\"sum\":null"), "{shown}");
}

#[test]
fn the_confusion_of_many_classes_is_bounded() {
    let pairing = Pairing::new();
    for class in 0..300 {
        let (ours, theirs) = (format!("a{class}"), format!("b{class}"));
        pairing.compared(&comparison(&[(&ours, &theirs)], 0.0));
    }
    let confusion = pairing.report().classes.confusion;
    assert_eq!(confusion.len(), prediction::CLASSES_MAX + 1);
    let other = confusion.iter().find(|pair| pair.predicted == "other").unwrap();
    assert_eq!((other.shadow_predicted.as_str(), other.rows), ("other", 200));
}

#[test]
fn the_gravest_disagreements_are_kept_in_order() {
    let pairing = Pairing::new();
    // 7 and 100 have no common factor: every severity from 1 to 100 comes once, in no order.
    for step in 0..100u32 {
        let severity = 7 * step % 100 + 1;
        let compared = comparison(&[], f64::from(severity));
        pairing.tell(ShadowOutcome::Compared, Some(&compared), severity as u8);
    }
    for digest in [201, 202] {
        let compared = comparison(&[], f64::INFINITY);
        pairing.tell(ShadowOutcome::Compared, Some(&compared), digest);
    }
    let worst = pairing.report().worst;
    let severities: Vec<_> = worst.iter().map(|worst| worst.severity).collect();
    let expected = [None, None].into_iter().chain((71..=100).rev().map(|severity| Some(f64::from(severity))));
    assert_eq!(severities, expected.collect::<Vec<_>>());
    assert_eq!(severities.len(), WORST_MAX);
    assert_eq!(worst[0].digest, Some("c9".repeat(32)), "of equals, the older comes first");
}

#[test]
fn what_is_known_of_a_pair_goes_with_either_version() {
    for gone in [1, 2] {
        let pairing = Pairing::new();
        pairing.compared(&comparison(&[("spam", "ham")], 0.5));
        pairing.monitor.retired(&id("m", 9));
        assert_eq!(pairing.monitor.shadow_report("m").len(), 1, "another version went");
        assert!(pairing.monitor.shadow_report("n").is_empty());
        pairing.monitor.retired(&id("m", gone));
        assert!(pairing.monitor.shadow_report("m").is_empty());
        pairing.compared(&comparison(&[("spam", "ham")], 0.5));
        assert!(pairing.monitor.shadow_report("m").is_empty(), "a late comparison brings nothing back");
        shows(&pairing.monitor, "weir_shadow_requests_total", &[], None);
    }
}

use std::sync::Arc;

use super::*;
use crate::event::ServableProfile;
use crate::reading::ELEMENTS_MAX;
use crate::tensor::{DataType, Shape, Signature, TensorSpec, strings};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

struct Version {
    reader: Reader,
    outputs: Vec<(usize, Tensor)>,
}

/// A version with these outputs, of which those named `label` and `score` are what they say.
fn version(labels: &[&str], outputs: Vec<(&str, Tensor)>) -> Version {
    let labels: Arc<[String]> = labels.iter().map(|&label| label.to_owned()).collect();
    let specs = outputs.iter().map(|(name, tensor)| TensorSpec {
        name: (*name).into(),
        datatype: tensor.datatype(),
        dims: tensor.shape().dims().iter().skip(1).copied().collect(),
        any_rank: false,
        reshape: None,
        optional: false,
        labels: if *name == "score" { Arc::clone(&labels) } else { Arc::default() },
    });
    let signature = Signature { inputs: Vec::new(), outputs: specs.collect(), max_batch_size: 8 };
    let named = |wanted: &str| outputs.iter().position(|(name, _)| *name == wanted).into_iter().collect();
    let profile = ServableProfile {
        signature: Arc::new(signature),
        class_scores: named("score"),
        class_labels: named("label"),
        cached: false,
    };
    let outputs = outputs.into_iter().map(|(_, tensor)| tensor).enumerate().collect();
    Version { reader: Reader::new(&profile), outputs }
}

fn held(primary: &Version, shadow: &Version) -> Comparison {
    compare(Sides {
        primary: Answer { reader: &primary.reader, outputs: &primary.outputs },
        shadow: Answer { reader: &shadow.reader, outputs: &shadow.outputs },
    })
}

/// One output `y` on both sides.
fn of_one(primary: Tensor, shadow: Tensor) -> Comparison {
    held(&version(&[], vec![("y", primary)]), &version(&[], vec![("y", shadow)]))
}

fn tensor(datatype: DataType, dims: &[i64], data: Vec<u8>) -> Tensor {
    Tensor::new(datatype, Shape::from_dims(dims.iter().copied()).unwrap(), data.into()).unwrap()
}

fn floats(dims: &[i64], values: &[f32]) -> Tensor {
    tensor(DataType::Fp32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn halves(values: &[f32]) -> Tensor {
    let data = values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    tensor(DataType::Fp16, &[1, values.len() as i64], data)
}

fn integers(values: &[i64]) -> Tensor {
    let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(DataType::Int64, &[values.len() as i64], data)
}

fn texts(values: &[&str]) -> Tensor {
    let packed = strings::pack(values.iter().map(|text| text.as_bytes()));
    tensor(DataType::Bytes, &[values.len() as i64], packed.to_vec())
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
}

#[test]
fn differences_are_those_of_a_hand_calculation() {
    // |2 − 3| = 1 of max 3; |−4 + 3.5| = 0.5 of max 4; two are the same. Tolerated at 2: 1e-5 + 2e-4.
    let found = of_one(floats(&[1, 4], &[1.0, 2.0, -4.0, 0.0]), floats(&[1, 4], &[1.0, 3.0, -3.5, 0.0]));
    let difference = &found.differences[0];
    assert_eq!((&*difference.output, difference.elements, difference.differing), ("y", 4, 2));
    near(difference.magnitude.absolute_max, 1.0);
    near(difference.magnitude.absolute_mean, 1.5 / 4.0);
    near(difference.magnitude.relative_max, 1.0 / 3.0);
    near(difference.magnitude.tolerances_max, 1.0 / 2.1e-4);
    assert!(found.disagrees && !difference.within_tolerance());
    near(found.severity, 1.0 / 2.1e-4);
    assert_eq!((found.agreement, found.cosine, found.pairs.len()), (None, None, 0));
}

#[test]
fn each_type_has_its_tolerance() {
    let one = |value: f32| floats(&[1, 1], &[value]);
    let double = |value: f64| tensor(DataType::Fp64, &[1, 1], value.to_le_bytes().to_vec());
    let whole = |datatype, byte: u8| tensor(datatype, &[1], vec![byte]);
    for (primary, shadow, disagrees) in [
        (one(100.0), one(100.009), false),
        (one(100.0), one(100.011), true),
        (one(0.0), one(9e-6), false),
        (one(0.0), one(1.1e-5), true),
        (double(1.0), double(1.0001), false),
        (double(1.0), double(1.0002), true),
        (halves(&[1.0]), halves(&[1.019]), false),
        (halves(&[1.0]), halves(&[1.022]), true),
        (integers(&[i64::MAX]), integers(&[i64::MAX]), false),
        (integers(&[i64::MAX]), integers(&[i64::MAX - 1]), true),
        (whole(DataType::Bool, 1), whole(DataType::Bool, 0), true),
        (whole(DataType::Int8, 255), whole(DataType::Int8, 255), false),
        (whole(DataType::Uint8, 255), whole(DataType::Uint8, 254), true),
        (texts(&["a", "b"]), texts(&["a", "b"]), false),
        (texts(&["a", "b"]), texts(&["a", "c"]), true),
    ] {
        let shown = format!("{primary:?} {shadow:?}");
        let found = of_one(primary, shadow);
        assert_eq!(found.disagrees, disagrees, "{shown}");
        assert_eq!(found.differences[0].within_tolerance(), !disagrees, "{shown}");
        assert_eq!(found.severity >= 1.0, disagrees, "{shown}: {}", found.severity);
    }
}

#[test]
fn integers_are_subtracted_without_rounding() {
    let found = of_one(integers(&[i64::MIN, 5, 9]), integers(&[i64::MAX, 5, 7]));
    let difference = &found.differences[0];
    assert_eq!((difference.elements, difference.differing), (3, 2));
    near(difference.magnitude.absolute_max, 2f64.powi(64) - 1.0);
    near(difference.magnitude.relative_max, (2f64.powi(64) - 1.0) / 2f64.powi(63));
}

#[test]
fn a_nan_equals_a_nan_and_an_infinity_itself_and_nothing_else() {
    for (primary, shadow, mismatches) in [
        ([NAN, INF, -INF], [NAN, INF, -INF], 0),
        ([NAN, 1.0, 1.0], [1.0, 1.0, 1.0], 1),
        ([INF, 1.0, INF], [-INF, 1.0, 1.0], 2),
    ] {
        let found = of_one(floats(&[1, 3], &primary), floats(&[1, 3], &shadow));
        let difference = &found.differences[0];
        assert_eq!((difference.nonfinite_mismatches, difference.differing), (mismatches, mismatches));
        assert_eq!(difference.magnitude.absolute_max, 0.0, "only finite pairs have a distance");
        assert_eq!((found.disagrees, found.severity == f64::INFINITY), (mismatches > 0, mismatches > 0));
    }
}

#[test]
fn what_cannot_be_compared_disagrees_without_bound() {
    let ours = version(&[], vec![("y", floats(&[1, 2], &[1.0, 2.0]))]);
    for (theirs, reason) in [
        (vec![("z", floats(&[1, 2], &[1.0, 2.0]))], Incomparable::Missing),
        (vec![], Incomparable::Missing),
        (vec![("y", halves(&[1.0, 2.0]))], Incomparable::Datatype),
        (vec![("y", floats(&[2, 1], &[1.0, 2.0]))], Incomparable::Shape),
    ] {
        let found = held(&ours, &version(&[], theirs));
        assert_eq!(found.differences[0].incomparable, Some(reason));
        assert!(
            found.disagrees && found.severity == f64::INFINITY && !found.differences[0].within_tolerance()
        );
    }
    let more = version(&[], vec![("x", texts(&["a"])), ("y", floats(&[1, 2], &[1.0, 2.0]))]);
    let found = held(&ours, &more);
    assert!(
        !found.disagrees && found.severity == 0.0,
        "outputs are matched by name; more of them do not matter"
    );
}

#[test]
fn classifiers_disagree_by_class_alone() {
    let scores =
        |values: [f32; 6]| version(&["ant", "bee", "cat"], vec![("score", floats(&[2, 3], &values))]);
    let ours = scores([0.1, 0.8, 0.1, 0.6, 0.3, 0.1]);
    let same = held(&ours, &scores([0.2, 0.6, 0.2, 0.9, 0.1, 0.0]));
    assert_eq!(same.agreement, Some(Agreement { rows: 2, agreeing: 2 }));
    assert!(!same.disagrees && same.severity == 0.0 && !same.differences[0].within_tolerance());

    let other = held(&ours, &scores([0.1, 0.2, 0.7, 0.9, 0.1, 0.0]));
    assert_eq!(other.agreement, Some(Agreement { rows: 2, agreeing: 1 }));
    let pairs: Vec<_> = other.pairs.iter().map(|p| (p.primary.as_str(), p.shadow.as_str())).collect();
    assert_eq!(pairs, [("bee", "cat"), ("ant", "ant")]);
    // The surer the less sure one is, the worse: min(0.8, 0.7).
    near(other.severity, f64::from(0.7f32));
    assert!(other.disagrees);

    let broken = held(&ours, &scores([NAN, NAN, NAN, 0.6, 0.3, 0.1]));
    assert_eq!(broken.agreement, Some(Agreement { rows: 2, agreeing: 1 }));
    assert!(broken.severity == f64::INFINITY && broken.pairs[0].shadow == NO_CLASS);
    assert!(!held(&scores([NAN; 6]), &scores([NAN; 6])).disagrees);
}

#[test]
fn labels_meet_by_what_they_are_called() {
    let texts_of = |values: &[&str]| version(&[], vec![("label", texts(values))]);
    let found = held(&texts_of(&["spam", "ham", "ham"]), &texts_of(&["spam", "spam", "ham"]));
    assert_eq!(found.agreement, Some(Agreement { rows: 3, agreeing: 2 }));
    near(found.severity, 1.0);
    let long = ["x".repeat(99), "x".repeat(98)];
    let found = held(&texts_of(&[&long[0]]), &texts_of(&[&long[1]]));
    assert_eq!(found.agreement, Some(Agreement { rows: 1, agreeing: 0 }), "long names differ beyond the cut");
    assert_eq!((&*found.pairs[0].primary, &*found.pairs[0].shadow), ("other", "other"));

    let indexed = version(&["ham", "spam"], vec![("score", floats(&[1, 2], &[0.25, 0.75]))]);
    let found = held(&indexed, &texts_of(&["spam"]));
    assert_eq!(found.agreement, Some(Agreement { rows: 1, agreeing: 1 }));
    assert!(found.disagrees, "but the output of scores is missing");
}

#[test]
fn embeddings_are_compared_by_their_angle() {
    // Rows of 17: the first scaled by two (cosine 1), the second (3, 4, 0, …) against (4, 3, 0, …): 24/25.
    let mut ours = [0.0; 34];
    let mut theirs = [0.0; 34];
    (ours[0], theirs[0]) = (1.0, 2.0);
    (ours[17], ours[18], theirs[17], theirs[18]) = (3.0, 4.0, 4.0, 3.0);
    let found = of_one(floats(&[2, 17], &ours), floats(&[2, 17], &theirs));
    let cosine = found.cosine.unwrap();
    near(cosine.min, 24.0 / 25.0);
    near(cosine.mean, (1.0 + 24.0 / 25.0) / 2.0);
    assert!(found.disagrees);
    near(found.severity, 1.0 / 25.0);

    let scaled = of_one(floats(&[1, 17], &[0.5; 17]), floats(&[1, 17], &[0.75; 17]));
    near(scaled.cosine.unwrap().min, 1.0);
    assert!(!scaled.disagrees && scaled.differences[0].differing == 17);
    let zeros = of_one(floats(&[1, 17], &[0.0; 17]), floats(&[1, 17], &[0.0; 17]));
    assert_eq!((zeros.disagrees, zeros.cosine.unwrap().min), (false, 1.0));
    let turned = of_one(floats(&[1, 17], &[1.0; 17]), floats(&[1, 17], &[-1.0; 17]));
    near(turned.cosine.unwrap().min, -1.0);
    let mut broken = [1.0; 17];
    broken[3] = NAN;
    let broken = of_one(floats(&[1, 17], &[1.0; 17]), floats(&[1, 17], &broken));
    assert!(broken.disagrees && broken.severity == f64::INFINITY);
    near(broken.cosine.unwrap().min, 1.0);
}

#[test]
fn work_and_pairs_are_bounded() {
    let many = ELEMENTS_MAX + 1;
    let mut other = vec![1.0; many];
    other[many - 1] = 9.0;
    let found = of_one(floats(&[1, many as i64], &vec![1.0; many]), floats(&[1, many as i64], &other));
    assert_eq!((found.differences[0].elements, found.disagrees), (ELEMENTS_MAX, false));
    near(found.cosine.unwrap().min, 1.0);

    let classes: Vec<i64> = (0..many as i64).collect();
    let wrong: Vec<i64> = classes.iter().map(|class| class + 1).collect();
    let label = |values: &[i64]| version(&[], vec![("label", integers(values))]);
    let found = held(&label(&classes), &label(&wrong));
    assert_eq!(found.agreement, Some(Agreement { rows: ELEMENTS_MAX, agreeing: 0 }));
    assert_eq!(found.pairs.len(), PAIRS_MAX);
}

//! The control API as operators ask it, and `digits`, whose three versions answer one image differently.

use serde_json::{Value, json};

use super::http::{Answer, Connection};
use super::weir::{Weir, infer_path};

/// What each version of `digits` takes [`eight`] for, by version; models/README.md says so.
const TAKEN_FOR: [(u64, i64); 3] = [(1, 1), (2, 4), (3, 8)];

/// The image on which the versions of `digits` disagree.
pub fn eight() -> Value {
    let image = vec![
        0, 0, 0, 2, 15, 5, 0, 0, 0, 0, 2, 4, 10, 12, 0, 0, 0, 3, 15, 14, 10, 8, 0, 0, 0, 8, 15, 1, 11, 4, 0,
        0, 0, 1, 8, 15, 16, 0, 0, 0, 0, 0, 0, 6, 16, 12, 1, 0, 0, 0, 0, 4, 14, 15, 4, 0, 0, 0, 0, 2, 14, 11,
        0, 0,
    ];
    json!({
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": image}],
        "outputs": [{"name": "label"}]
    })
}

/// The version of `digits` that answered [`eight`], by its word and by its answer.
#[track_caller]
pub fn served_by(answer: Answer) -> u64 {
    let body = answer.expect(200).json();
    let said = body["model_version"].as_str().and_then(|text| text.parse().ok()).expect("a version");
    let label = body["outputs"][0]["data"][0].as_i64().expect("a label");
    let shown = TAKEN_FOR.iter().find(|(_, class)| *class == label).map(|(version, _)| *version);
    assert_eq!(shown, Some(said), "version {said} does not answer {label}");
    said
}

/// Asks `digits` over a connection that is open; gives the version that answered.
#[track_caller]
pub fn ask_digits(connection: &mut Connection, headers: &[(&str, &str)]) -> u64 {
    served_by(connection.ask("POST", &infer_path("digits"), headers, eight().to_string().as_bytes()))
}

/// A call of the control API: a path below `/control/v1/`, `null` for no body.
#[track_caller]
pub fn control(weir: &Weir, method: &str, path: &str, body: &Value) -> Answer {
    conditionally(weir, method, path, &[], body)
}

/// The same with headers.
#[track_caller]
pub fn conditionally(
    weir: &Weir,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    weir.connect().ask(method, &format!("/control/v1/{path}"), headers, &bytes)
}

/// Gives a model this route, whole.
#[track_caller]
pub fn set_route(weir: &Weir, model: &str, route: &Value) -> Value {
    control(weir, "PUT", &format!("models/{model}/route"), route).expect(200).json()
}

pub fn route(weir: &Weir, model: &str) -> Value {
    control(weir, "GET", &format!("models/{model}/route"), &Value::Null).expect(200).json()
}

/// Arms of a route: version and weight.
pub fn arms(arms: &[(u64, f64)]) -> Value {
    let arm = |(version, weight): &(u64, f64)| json!({"version": version, "weight": weight});
    json!({"arms": arms.iter().map(arm).collect::<Vec<_>>()})
}

/// State and reason of each version of a model by the control API.
#[track_caller]
pub fn versions(weir: &Weir, model: &str) -> Vec<(u64, String, String)> {
    let status = control(weir, "GET", &format!("models/{model}"), &Value::Null).expect(200).json();
    let text = |version: &Value, key: &str| version[key].as_str().expect("a text").to_owned();
    let items = status["versions"].as_array().expect("a list").iter();
    items
        .map(|item| (item["version"].as_u64().expect("a number"), text(item, "state"), text(item, "reason")))
        .collect()
}

/// The versions of a model that are ready, ascending; none for a model that is not known.
pub fn ready_versions(weir: &Weir, model: &str) -> Vec<u64> {
    let ready = weir.index().into_iter().filter(|[name, _, state, _]| name == model && state == "READY");
    let mut versions: Vec<u64> = ready.map(|[_, version, ..]| version.parse().expect("a number")).collect();
    versions.sort_unstable();
    versions
}

/// The actions on the record, the oldest first, each with its actor.
#[track_caller]
pub fn record(weir: &Weir) -> Vec<(String, String)> {
    let page = control(weir, "GET", "audit?limit=500", &Value::Null).expect(200).json();
    let text = |record: &Value, key: &str| record[key].as_str().expect("a text").to_owned();
    let records = page["records"].as_array().expect("a list").iter().rev();
    records.map(|record| (text(record, "action"), text(record, "actor"))).collect()
}

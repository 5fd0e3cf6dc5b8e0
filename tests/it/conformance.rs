//! What the Open Inference Protocol, version 2, requires over HTTP. Above each test stands the endpoint and what is
//! required of it, in our words; the standard is kserve/open-inference-protocol, `specification/protocol`.

use serde_json::{Value, json};

use crate::support::http::Answer;
use crate::support::project;
use crate::support::tensors::{fp32, rows_of_four, tensor, with_parameter};
use crate::support::weir::Weir;

fn bundled() -> Weir {
    Weir::start(project("models"), &[])
}

fn fixtures() -> Weir {
    Weir::start(project("tests/models"), &[])
}

/// The members of an object, in order.
#[track_caller]
fn members(object: &Value) -> Vec<&str> {
    let mut members: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

#[track_caller]
fn json_of(answer: Answer) -> Value {
    let answer = answer.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

/// The two inputs of `simple`, as the standard writes a request.
fn addition() -> Value {
    let ones = vec![1; 16];
    let numbers: Vec<i32> = (0..16).collect();
    json!({"inputs": [
        tensor("INPUT0", "INT32", &[1, 16], &json!(numbers)),
        tensor("INPUT1", "INT32", &[1, 16], &json!(ones)),
    ]})
}

// ── Health ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// `GET v2/health/live`: answers 200 with `live` true while the server takes requests.
#[test]
fn a_server_that_takes_requests_is_live() {
    assert_eq!(json_of(bundled().get("/v2/health/live")), json!({"live": true}));
}

/// `GET v2/health/ready`: answers 200 with `ready` true once every model can be asked.
#[test]
fn a_server_whose_models_are_loaded_is_ready() {
    assert_eq!(json_of(bundled().get("/v2/health/ready")), json!({"ready": true}));
}

/// `GET v2/models/${MODEL_NAME}[/versions/${MODEL_VERSION}]/ready`: answers 200 for a model that can be asked, and a
/// status in the four hundreds for one that cannot.
#[test]
fn a_model_that_can_be_asked_is_ready() {
    let weir = bundled();
    weir.get("/v2/models/digits/ready").expect(200);
    weir.get("/v2/models/digits/versions/2/ready").expect(200);
    weir.get("/v2/models/digits/versions/9/ready").error(400);
    weir.get("/v2/models/unknown/ready").error(400);
}

// ── Metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// `GET v2`: answers with the server's `name`, its `version` and the `extensions` that it supports.
#[test]
fn the_server_tells_its_name_version_and_extensions() {
    let metadata = json_of(bundled().get("/v2"));
    assert_eq!(members(&metadata), ["extensions", "name", "version"]);
    assert!(metadata["name"].is_string() && metadata["version"].is_string());
    let extensions = metadata["extensions"].as_array().expect("a list");
    assert!(extensions.iter().all(Value::is_string), "{metadata}");
}

/// `GET v2/models/${MODEL_NAME}[/versions/${MODEL_VERSION}]`: answers with `name`, `versions` as strings, `platform`,
/// `inputs` and `outputs`; each tensor has `name`, `datatype` and `shape`, in which −1 stands for any size.
#[test]
fn a_model_tells_its_versions_and_tensors() {
    let weir = bundled();
    let metadata = json_of(weir.get("/v2/models/digits"));
    let expected = json!({
        "name": "digits",
        "versions": ["1", "2", "3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ],
    });
    assert_eq!(metadata, expected);
    assert_eq!(json_of(weir.get("/v2/models/digits/versions/2"))["versions"], json!(["2"]));
}

/// `GET v2/models/${MODEL_NAME}`: a model that is not known is an error in the four hundreds with `error`.
#[test]
fn a_model_that_is_not_known_has_no_metadata() {
    let weir = bundled();
    assert!(!weir.get("/v2/models/unknown").error(400).is_empty());
    assert!(!weir.get("/v2/models/digits/versions/9").error(404).is_empty());
}

// ── Inference ────────────────────────────────────────────────────────────────────────────────────────────────────

/// `POST v2/models/${MODEL_NAME}[/versions/${MODEL_VERSION}]/infer`: the answer has `model_name`, the
/// `model_version` that served, and `outputs`, each with `name`, `shape`, `datatype` and `data` in row-major order.
#[test]
fn an_answer_has_every_required_member() {
    let answer = json_of(bundled().infer("simple", &addition()));
    let sums: Vec<i32> = (1..17).collect();
    let differences: Vec<i32> = (-1..15).collect();
    let expected = json!({
        "model_name": "simple",
        "model_version": "1",
        "outputs": [
            tensor("OUTPUT0", "INT32", &[1, 16], &json!(sums)),
            tensor("OUTPUT1", "INT32", &[1, 16], &json!(differences)),
        ],
    });
    assert_eq!(answer, expected);
}

/// `POST …/infer`: the version in the path serves; without one the server chooses, and says which it was.
#[test]
fn the_version_that_is_asked_for_serves() {
    let weir = bundled();
    let image = json!({"inputs": [tensor("image", "FP32", &[1, 64], &json!(vec![0.5; 64]))]});
    for version in ["1", "2", "3"] {
        let answer = json_of(weir.post(&format!("/v2/models/digits/versions/{version}/infer"), &image));
        assert_eq!(answer["model_version"], version);
    }
    assert_eq!(json_of(weir.infer("digits", &image))["model_version"], "3");
}

/// `POST …/infer`: an `id` in the request is in the answer, unchanged; without one there is none.
#[test]
fn the_id_of_a_request_comes_back() {
    let weir = bundled();
    for id in ["42", "a \"quoted\" id", "漢字 \u{1f980}", "\\u0000"] {
        let mut body = addition();
        body["id"] = json!(id);
        assert_eq!(json_of(weir.infer("simple", &body))["id"], id);
    }
    assert_eq!(json_of(weir.infer("simple", &addition())).get("id"), None);
}

/// `POST …/infer`: `outputs` names the outputs that the answer is to have; without it the answer has all.
#[test]
fn only_the_outputs_asked_for_are_answered() {
    let weir = bundled();
    for (outputs, expected) in [
        (json!([{"name": "OUTPUT1"}]), &["OUTPUT1"][..]),
        (json!([{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]), &["OUTPUT1", "OUTPUT0"]),
        (json!([]), &["OUTPUT0", "OUTPUT1"]),
    ] {
        let mut body = addition();
        body["outputs"] = outputs;
        let answer = json_of(weir.infer("simple", &body));
        let names: Vec<_> = answer["outputs"].as_array().unwrap().iter().map(|o| o["name"].clone()).collect();
        assert_eq!(names, expected);
    }
    let mut body = addition();
    body["outputs"] = json!([{"name": "OUTPUT9"}]);
    assert!(weir.infer("simple", &body).error(400).contains("OUTPUT9"));
}

/// `POST …/infer`: `data` may be nested as the shape is, or be one flat list; both mean the same tensor.
#[test]
fn data_may_be_nested_or_flat() {
    let weir = fixtures();
    let flat = rows_of_four(2);
    let mut nested = flat.clone();
    nested["inputs"][0]["data"] = json!([[0, 1, 2, 3], [4, 5, 6, 7]]);
    let answers = [flat, nested].map(|body| json_of(weir.infer("identity_fp32", &body)));
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0]["outputs"][0]["data"], json!([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
}

/// `POST …/infer`: parameters, of the request and of a tensor, are an object of texts, numbers and truth values;
/// what the server does not know changes nothing.
#[test]
fn parameters_that_mean_nothing_here_change_nothing() {
    let weir = bundled();
    let unknown = json!({"text": "a", "number": 1, "fraction": 0.5, "truth": true});
    let mut body = addition();
    body["parameters"] = unknown.clone();
    body["inputs"][0]["parameters"] = unknown.clone();
    body["outputs"] = json!([{"name": "OUTPUT0", "parameters": unknown}]);
    let answer = json_of(weir.infer("simple", &body));
    assert_eq!(answer["outputs"][0]["data"][15], 16);
}

/// `POST …/infer`, Tensor Data Types: each type of the standard is carried by JSON as a truth value, a number or a
/// text.
#[test]
fn every_data_type_is_carried() {
    let weir = fixtures();
    for (datatype, data) in [
        ("BOOL", json!([true, false])),
        ("UINT8", json!([0, 255])),
        ("UINT16", json!([0, 65535])),
        ("UINT32", json!([0, 4_294_967_295_u64])),
        ("UINT64", json!([0, 18_446_744_073_709_551_615_u64])),
        ("INT8", json!([-128, 127])),
        ("INT16", json!([-32768, 32767])),
        ("INT32", json!([-2_147_483_648_i64, 2_147_483_647])),
        ("INT64", json!([-9_223_372_036_854_775_808_i64, 9_223_372_036_854_775_807_i64])),
        ("FP16", json!([-65504.0, 0.5])),
        ("BF16", json!([-1.0, 0.5])),
        ("FP32", json!([-0.1, 16777216.0])),
        ("FP64", json!([0.1, -1e300])),
        ("BYTES", json!(["", "漢字 \"a\"\n"])),
    ] {
        let body = json!({"inputs": [tensor("INPUT0", datatype, &[1, 2], &data)]});
        let answer = json_of(weir.infer(&format!("identity_{}", datatype.to_lowercase()), &body));
        assert_eq!(answer["outputs"], json!([tensor("OUTPUT0", datatype, &[1, 2], &data)]), "{datatype}");
    }
}

// ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// `POST …/infer`: a request that fails has a status other than 200 and one member, `error`, that says why.
#[test]
fn a_request_that_is_wrong_is_told_why() {
    let weir = bundled();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = addition();
        change(&mut body);
        body
    };
    for (body, part) in [
        (json!({}), "inputs"),
        (json!([]), "JSON"),
        (json!({"inputs": []}), "INPUT0"),
        (with(&|b| b["inputs"][0]["name"] = json!("INPUT7")), "INPUT7"),
        (with(&|b| b["inputs"][0]["datatype"] = json!("INT33")), "INT33"),
        (with(&|b| b["inputs"][0]["datatype"] = json!("FP32")), "FP32"),
        (with(&|b| b["inputs"][0]["shape"] = json!([1, 15])), "15"),
        (with(&|b| b["inputs"][0]["shape"] = json!([16, 1])), "shape"),
        (with(&|b| b["inputs"][0]["shape"] = json!([-1, 16])), "negative"),
        (with(&|b| b["inputs"][0]["data"] = json!([1, 2])), "elements"),
        (with(&|b| b["inputs"][0]["data"][3] = json!("three")), "INPUT0"),
        (with(&|b| _ = b["inputs"][0].as_object_mut().unwrap().remove("data")), "data"),
        (with(&|b| _ = b["inputs"][0].as_object_mut().unwrap().remove("shape")), "shape"),
        (with(&|b| _ = b["inputs"].as_array_mut().unwrap().pop()), "INPUT1"),
    ] {
        let message = weir.infer("simple", &body).error(400);
        assert!(message.contains(part), "{body}: {message}");
    }
    json_of(weir.infer("simple", &addition()));
}

/// `POST …/infer`: a model that is not known is an error in the four hundreds; so is one of its versions.
#[test]
fn a_model_that_is_not_known_is_not_asked() {
    let weir = bundled();
    assert!(weir.infer("unknown", &addition()).error(400).contains("unknown"));
    assert!(weir.post("/v2/models/simple/versions/9/infer", &addition()).error(404).contains('9'));
}

/// All endpoints: a path that the standard does not have is not found, and a method that an endpoint does not take is
/// not allowed; both are errors as above.
#[test]
fn paths_and_methods_that_are_not_the_standards_are_refused() {
    let weir = bundled();
    for path in ["/", "/v1", "/v2/", "/v2/models", "/v2/health", "/v2/models/simple/infer/now"] {
        weir.get(path).error(404);
    }
    for path in ["/v2", "/v2/health/live", "/v2/models/simple", "/v2/models/simple/ready"] {
        weir.post(path, &json!({})).error(405);
    }
    let answer = weir.get("/v2/models/simple/infer");
    assert_eq!(answer.header("allow"), Some("POST"));
    answer.error(405);
}

/// All endpoints: an error never ends the connection for the requests that follow on it.
#[test]
fn a_connection_goes_on_after_an_error() {
    let weir = fixtures();
    let mut connection = weir.connect();
    let good = fp32(&[1, 1], &[7.0]).to_string();
    let late = with_parameter(fp32(&[1], &[7.0]), "id", "wrong shape").to_string();
    for _ in 0..3 {
        connection.ask("POST", "/v2/models/identity_fp32/infer", &[], late.as_bytes()).error(400);
        connection.ask("GET", "/v2/nowhere", &[], b"").error(404);
        connection.ask("POST", "/v2/models/identity_fp32/infer", &[], good.as_bytes()).expect(200);
    }
}

//! Requests that come again, to models whose config asks that answers be kept.

use serde_json::{Value, json};
use weir::proto::inference as pb;

use crate::support::eventually;
use crate::support::grpc::call;
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, output0, rows_of_four, tensor};
use crate::support::versions::row;
use crate::support::weir::Weir;

const CACHED: &str = "response_cache { enable: true } version_policy { all { } }";

/// A repository of one model `m` with these files of `tests/versions` as versions 1, 2, …
fn versions(files: &[&str], config: &str) -> Repository {
    let repository = Repository::new();
    for (file, version) in files.iter().zip(1..) {
        repository.copy(&format!("tests/versions/{file}.onnx"), &format!("m/{version}/model.onnx"));
    }
    repository.write("m/config.pbtxt", config);
    repository
}

/// A server of one model `m`, which is another one with this config.
fn serving(model: &str, config: &str) -> (Repository, Weir) {
    let repository = Repository::new();
    repository.model("m", &format!("tests/models/{model}"), config);
    let weir = Weir::start(&repository, &[]);
    (repository, weir)
}

/// What the server counts of a version, once it has counted as many requests.
#[track_caller]
fn counted(weir: &Weir, version: u64, requests: u64) -> Value {
    eventually("every request is counted", || {
        let path = format!("/v2/models/m/versions/{version}/stats");
        let totals = weir.get(&path).expect(200).json()["model_stats"][0].clone();
        let count = |key: &str| totals["inference_stats"][key]["count"].as_u64().unwrap();
        (count("success") + count("fail") == requests).then_some(totals)
    })
}

/// Hits and misses of a version, once it has counted as many requests.
#[track_caller]
fn lookups(weir: &Weir, version: u64, requests: u64) -> (u64, u64) {
    let totals = counted(weir, version, requests);
    let count = |key: &str| totals["inference_stats"][key]["count"].as_u64().unwrap();
    (count("cache_hit"), count("cache_miss"))
}

fn ask_version(weir: &Weir, version: u64, body: &Value) -> Vec<f32> {
    output0(weir.post(&format!("/v2/models/m/versions/{version}/infer"), body)).1
}

/// A gRPC request for `m` with one input.
fn grpc_request(datatype: &str, shape: &[i64], data: Vec<u8>) -> pb::ModelInferRequest {
    let input = pb::model_infer_request::InferInputTensor {
        name: "INPUT0".to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..Default::default()
    };
    pb::ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![data.into()],
        ..Default::default()
    }
}

fn le_bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_hit_is_the_same_answer_bit_for_bit_over_both_protocols_and_calls_no_session() {
    let (_repository, weir) = serving("echo_input", "response_cache { enable: true }");
    // Numbers that must not be touched: minus zero, a NaN with a payload, the smallest.
    let odd = [-0.0, f32::from_bits(0x7fc0_1234), f32::from_bits(1), 1.5];
    let request = grpc_request("FP32", &[1, 4], le_bytes(&odd));
    let answers: Vec<pb::ModelInferResponse> =
        (0..3).map(|_| call(weir.grpc, "ModelInfer", &request)).collect();
    assert_eq!(answers[0].raw_output_contents.len(), 2);
    assert_eq!(answers[0].raw_output_contents[1], le_bytes(&odd));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(lookups(&weir, 1, 3), (2, 1));

    // The same request as JSON has the same bytes inside.
    let over_http = [(); 2].map(|()| weir.infer("m", &fp32(&[1, 4], &[1.0, 2.0, 3.0, 4.0])).expect(200).body);
    assert_eq!(over_http[0], over_http[1]);
    call::<pb::ModelInferResponse>(
        weir.grpc,
        "ModelInfer",
        &grpc_request("FP32", &[1, 4], le_bytes(&[1.0, 2.0, 3.0, 4.0])),
    );
    let totals = counted(&weir, 1, 6);
    for (key, count) in [
        ("success", 6),
        ("queue", 6),
        ("cache_hit", 4),
        ("cache_miss", 2),
        ("compute_input", 2),
        ("compute_infer", 2),
        ("compute_output", 2),
    ] {
        assert_eq!(totals["inference_stats"][key]["count"], count, "{key} in {totals}");
    }
    assert_eq!((&totals["inference_count"], &totals["execution_count"]), (&json!(2), &json!(2)));
    let asked = pb::ModelStatisticsRequest { name: "m".to_owned(), version: "1".to_owned() };
    let over_grpc: pb::ModelStatisticsResponse = call(weir.grpc, "ModelStatistics", &asked);
    let durations = over_grpc.model_stats[0].inference_stats.expect("durations");
    for (duration, key) in [(durations.cache_hit, "cache_hit"), (durations.cache_miss, "cache_miss")] {
        let duration = duration.expect("a duration");
        assert_eq!(json!({"count": duration.count, "ns": duration.ns}), totals["inference_stats"][key]);
        assert!(duration.ns > 0, "{key}");
    }
    let page = weir.page();
    assert_eq!(page.sum("weir_response_cache_lookups_total", &[("outcome", "hit")]), 4.0);
    assert_eq!(page.sum("weir_response_cache_lookups_total", &[("outcome", "miss")]), 2.0);
    assert_eq!(page.sum("weir_response_cache_entries", &[]), 2.0);
    assert_eq!(page.sum("weir_requests_total", &[("outcome", "ok")]), 6.0);
    assert_eq!(page.sum("weir_queue_duration_seconds_count", &[]), 2.0);
}

#[test]
fn a_request_that_differs_in_anything_is_asked_of_the_model() {
    let (_repository, weir) = serving("echo_input", "response_cache { enable: true }");
    let numbers = [1.0, 2.0, 3.0, 4.0];
    let (first, second) = (fp32(&[1, 4], &numbers), fp32(&[2, 2], &numbers));
    let asking = |body: &Value, outputs: &[&str]| {
        let mut body = body.clone();
        body["outputs"] = outputs.iter().map(|name| json!({"name": name})).collect();
        body
    };
    let requests = [
        first.clone(),
        fp32(&[1, 4], &[1.0, 2.0, 3.0, 5.0]),
        second,
        asking(&first, &["OUTPUT0"]),
        asking(&first, &["INPUT0"]),
    ];
    let answers: Vec<_> = requests.iter().map(|body| weir.infer("m", body).expect(200).json()).collect();
    assert_eq!(lookups(&weir, 1, 5), (0, 5));
    for (request, answer) in requests.iter().zip(&answers) {
        assert_eq!(weir.infer("m", request).expect(200).json(), *answer);
    }
    // In another order, and all by name: the same outputs are asked for.
    let reversed = weir.infer("m", &asking(&first, &["INPUT0", "OUTPUT0"])).expect(200).json();
    assert_eq!(reversed["outputs"][0]["name"], "INPUT0");
    assert_eq!(reversed["outputs"][0]["data"], json!(numbers));
    assert_eq!(reversed["outputs"][1]["data"], answers[0]["outputs"][0]["data"]);
    assert_eq!(lookups(&weir, 1, 11), (6, 5));
}

#[test]
fn texts_are_told_apart_by_their_elements() {
    let (_repository, weir) = serving("identity_bytes", "response_cache { enable: true }");
    let texts =
        |elements: [&str; 2]| json!({"inputs": [tensor("INPUT0", "BYTES", &[1, 2], &json!(elements))]});
    for _ in 0..2 {
        for elements in [["ab", "c"], ["a", "bc"], ["", "abc"]] {
            let answer = weir.infer("m", &texts(elements)).expect(200).json();
            assert_eq!(answer["outputs"][0]["data"], json!(elements));
        }
    }
    assert_eq!(lookups(&weir, 1, 6), (3, 3));
}

#[test]
fn an_input_that_is_left_out_is_not_one_that_is_there() {
    let config = "max_batch_size: 0 response_cache { enable: true } \
                  input [ { name: \"INPUT0\" data_type: TYPE_FP32 dims: [ -1, 4 ] }, \
                  { name: \"bias\" data_type: TYPE_FP32 dims: 4 optional: true } ] \
                  output { name: \"OUTPUT0\" data_type: TYPE_FP32 dims: [ -1, 4 ] }";
    let (_repository, weir) = serving("optional_input", config);
    let without = fp32(&[1, 4], &[0.0; 4]);
    let mut with = without.clone();
    with["inputs"].as_array_mut().unwrap().push(tensor("bias", "FP32", &[4], &json!([0, 0, 0, 0])));
    for _ in 0..2 {
        assert_eq!(output0(weir.infer("m", &without)).1, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(output0(weir.infer("m", &with)).1, [0.0; 4]);
    }
    assert_eq!(lookups(&weir, 1, 4), (2, 2));
}

#[test]
fn large_requests_and_answers_are_kept_too() {
    let (_repository, weir) = serving("identity_fp32", "response_cache { enable: true }");
    let numbers: Vec<f32> = (0..250_000).map(|i| i as f32).collect();
    let request = grpc_request("FP32", &[1, 250_000], le_bytes(&numbers));
    for _ in 0..2 {
        let answer: pb::ModelInferResponse = call(weir.grpc, "ModelInfer", &request);
        assert_eq!(answer.raw_output_contents, request.raw_input_contents);
    }
    assert_eq!(lookups(&weir, 1, 2), (1, 1));
    assert!(weir.page().sum("weir_response_cache_bytes", &[]) > 1e6);
}

#[test]
fn errors_are_not_kept() {
    let repository = versions(&["fails"], CACHED);
    let weir = Weir::start(&repository, &[]);
    for _ in 0..2 {
        weir.infer("m", &row(1000.0)).error(400);
        weir.infer("m", &fp32(&[1, 5], &[0.0; 5])).error(400);
    }
    // What does not fit the signature is not even looked for.
    assert_eq!(lookups(&weir, 1, 4), (0, 2));
    assert_eq!(weir.page().sum("weir_response_cache_entries", &[]), 0.0);
}

#[test]
fn arms_do_not_answer_with_each_others_answers() {
    let repository = versions(&["same", "double"], CACHED);
    let weir = Weir::start(&repository, &[]);
    let route = json!({"arms": [{"version": 1, "weight": 1}, {"version": 2, "weight": 1}]});
    let put = weir.connect().ask(
        "PUT",
        "/control/v1/models/m/route",
        &[("weir-actor", "tester")],
        route.to_string().as_bytes(),
    );
    put.expect(200);
    let mut connection = weir.connect();
    let mut served = [0; 2];
    for _ in 0..60 {
        let body = row(4.0).to_string();
        let answer = connection.ask("POST", "/v2/models/m/infer", &[], body.as_bytes()).expect(200);
        let version: usize = answer.json()["model_version"].as_str().unwrap().parse().unwrap();
        served[version - 1] += 1;
        let factor = version as f32;
        assert_eq!(output0(answer).1, [3.0, 1.0, 2.0, 4.0].map(|value| factor * value));
    }
    for (version, requests) in (1..).zip(served) {
        assert_eq!(lookups(&weir, version, requests), (requests - 1, 1));
    }
}

#[test]
fn a_version_that_is_loaded_anew_begins_with_nothing() {
    let repository = Repository::new();
    // The model file stays as it is: its weights change, which are beside it.
    repository.copy("tests/models/external_data", "m").write("m/config.pbtxt", CACHED);
    let weir = Weir::start(&repository, &["--control", "explicit", "--load", "m"]);
    let load = || weir.post("/v2/repository/models/m/load", &json!({})).expect(200);
    let before = ask_version(&weir, 1, &rows_of_four(1));
    assert_eq!(ask_version(&weir, 1, &rows_of_four(1)), before);
    assert_eq!(lookups(&weir, 1, 2), (1, 1));
    let weights = std::fs::read(repository.path("m/1/weights.bin")).unwrap();
    repository.write("m/1/weights.bin", vec![0; weights.len()]);
    load();
    assert_eq!(ask_version(&weir, 1, &rows_of_four(1)), [0.0; 4]);
    assert_ne!(before, [0.0; 4]);
    // What the load before left behind goes with it.
    weir.until("one answer is left", |page| page.sum("weir_response_cache_entries", &[]) == 1.0);
    weir.post("/v2/repository/models/m/unload", &json!({})).expect(200);
    weir.until("no answer is left", |page| page.sum("weir_response_cache_bytes", &[]) == 0.0);
}

#[test]
fn shadows_get_copies_of_requests_that_hit() {
    let repository = versions(&["same", "double"], CACHED);
    let weir = Weir::start(&repository, &[]);
    let route =
        json!({"arms": [{"version": 1, "weight": 1}], "shadows": [{"version": 2, "share": 1.0}]}).to_string();
    let actor = [("weir-actor", "tester")];
    weir.connect().ask("PUT", "/control/v1/models/m/route", &actor, route.as_bytes()).expect(200);
    (0..5).for_each(|_| assert_eq!(output0(weir.infer("m", &row(4.0))).1, [3.0, 1.0, 2.0, 4.0]));
    assert_eq!(lookups(&weir, 1, 5), (4, 1));
    let page = weir.until("every copy is compared", |page| {
        page.sum("weir_shadow_requests_total", &[("outcome", "compared")]) == 5.0
    });
    assert_eq!(page.sum("weir_shadow_disagreements_total", &[]), 5.0);
    // A hit's time says nothing of the version.
    assert_eq!(page.sum("weir_shadow_duration_seconds_count", &[("side", "primary")]), 1.0);
}

#[test]
fn predictions_of_hits_are_counted() {
    let repository = versions(&["highest"], CACHED);
    let weir = Weir::start(&repository, &[]);
    (0..4).for_each(|_| _ = weir.infer("m", &row(9.0)).expect(200));
    weir.until("every prediction is counted", |page| {
        page.sum("weir_predictions_total", &[("output", "label"), ("class", "3")]) == 4.0
    });
    assert_eq!(lookups(&weir, 1, 4), (3, 1));
}

#[test]
fn nothing_is_kept_unless_the_config_asks() {
    let repository = versions(&["same"], "response_cache { enable: false }");
    let weir = Weir::start(&repository, &[]);
    (0..2).for_each(|_| assert_eq!(ask_version(&weir, 1, &row(4.0)).len(), 4));
    let totals = counted(&weir, 1, 2);
    assert_eq!(totals["inference_count"], 2);
    assert_eq!(lookups(&weir, 1, 2), (0, 0));
    let page = weir.page();
    assert!(page.names().all(|name| !name.starts_with("weir_response_cache")), "{page:?}");
}

#[test]
fn without_room_for_answers_the_model_is_served_and_the_log_says_so() {
    let repository = versions(&["same"], CACHED);
    let weir = Weir::start(&repository, &["--response-cache-bytes", "0"]);
    (0..2).for_each(|_| assert_eq!(ask_version(&weir, 1, &row(4.0)).len(), 4));
    assert_eq!(lookups(&weir, 1, 2), (0, 0));
    assert!(weir.errors().contains("--response-cache-bytes is 0"), "{}", weir.errors());
    let config = weir.get("/v2/models/m/config").expect(200).json();
    assert_eq!(config["response_cache"]["enable"], true);
}

#[test]
fn the_bound_holds_under_many_requests() {
    let repository = versions(&["same"], CACHED);
    let weir = Weir::start(&repository, &["--response-cache-bytes", "65536"]);
    let mut connection = weir.connect();
    for number in 0..400 {
        let body = row(number as f32).to_string();
        connection.ask("POST", "/v2/models/m/infer", &[], body.as_bytes()).expect(200);
    }
    let page = weir.page();
    assert!(page.sum("weir_response_cache_bytes", &[]) <= 65536.0, "{page:?}");
    let (entries, evicted) =
        (page.sum("weir_response_cache_entries", &[]), page.sum("weir_response_cache_evictions_total", &[]));
    assert!(entries > 50.0 && entries + evicted == 400.0, "{page:?}");
}

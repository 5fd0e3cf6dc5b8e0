//! `weir bench` against a server: what it sends is answered, what it prints is true.

use serde_json::{Value, json};

use crate::support::program::{Outcome, Program};
use crate::support::project;
use crate::support::repository::Repository;
use crate::support::weir::Weir;

/// As short as a measurement can be: nothing here depends on how fast it is.
const SHORT: &str = "--warmup 0 --window 0.2 --windows 3";

fn bench(weir: &Weir, line: &str) -> Outcome {
    let (server, grpc) = (format!("http://{}", weir.http), weir.grpc.to_string());
    let words = ["bench"].into_iter().chain(line.split_whitespace()).chain(SHORT.split_whitespace());
    Program::new(&words.chain(["--server", &server, "--grpc", &grpc]).collect::<Vec<_>>()).run()
}

/// The rows of a report on standard output.
#[track_caller]
fn rows(weir: &Weir, line: &str) -> Vec<Value> {
    let outcome = bench(weir, &format!("{line} --json -"));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let report: Value = serde_json::from_str(&outcome.stdout).expect("it is JSON");
    report["rows"].as_array().expect("rows are a list").clone()
}

/// Why it ended, which is one line.
#[track_caller]
fn refused(outcome: &Outcome) -> &str {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.starts_with("weir: ") && outcome.stderr.lines().count() == 1, "{outcome:?}");
    outcome.stderr.trim_end()
}

#[test]
fn every_protocol_is_measured_under_both_loads() {
    let weir = Weir::start(project("models"), &[]);
    let rows =
        rows(&weir, "digits --protocol grpc,json,binary --concurrency 1,5 --rate 200 --objective 60000");
    let shown: Vec<(&str, &Value, &Value)> = rows
        .iter()
        .map(|row| (row["protocol"].as_str().unwrap(), &row["concurrency"], &row["rate"]))
        .collect();
    let none = Value::Null;
    let (one, five, rate) = (json!(1), json!(5), json!(200.0));
    let expected: Vec<(&str, &Value, &Value)> = ["grpc", "json", "binary"]
        .into_iter()
        .flat_map(|protocol| [(protocol, &one, &none), (protocol, &five, &none), (protocol, &none, &rate)])
        .collect();
    assert_eq!(shown, expected);
    for row in &rows {
        assert!(row["answered"].as_u64().unwrap() > 0, "{row}");
        assert_eq!((&row["errors"], &row["reopened"]), (&json!(0), &json!(0)), "{row}");
        assert!(row["latency_us"]["p50"].as_f64() <= row["latency_us"]["max"].as_f64(), "{row}");
        assert!(row["server"]["session_us"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["server"]["batch_size"].as_f64().unwrap() >= 1.0, "{row}");
    }
    assert!(rows.iter().filter(|row| row["rate"].is_null()).all(|row| row["on_time"] == 1.0), "{rows:?}");
}

#[test]
fn the_server_counts_what_was_sent_as_predictions_of_that_version() {
    let weir = Weir::start(Repository::new().digits(&[1, 2], "all {}"), &[]);
    rows(&weir, "digits --version 1 --protocol grpc,binary --concurrency 3 --batch 4");
    let statistics = |version| {
        let answer = weir.get(&format!("/v2/models/digits/versions/{version}/stats"));
        answer.expect(200).json()["model_stats"][0].clone()
    };
    let one = statistics(1);
    assert_eq!(statistics(2)["inference_count"], 0);
    let requests = one["inference_stats"]["success"]["count"].as_u64().unwrap();
    assert!(requests > 0 && one["inference_count"] == 4 * requests, "{one}");
    assert_eq!(one["inference_stats"]["fail"]["count"], 0);
}

#[test]
fn a_table_is_for_people_and_a_file_for_programs() {
    let weir = Weir::start(project("models"), &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let line = format!("tickets --protocol json --concurrency 2 --json {}", file.display());
    let outcome = bench(&weir, &line);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.starts_with("PROTOCOL") && outcome.stdout.contains("2 at once"), "{outcome:?}");
    assert_eq!(outcome.stderr, "", "nobody watches a bar here");
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((&report["model"], &report["interrupted"]), (&json!("tickets"), &json!(false)));
}

#[test]
fn requests_of_a_file_are_sent_in_turns() {
    let weir = Weir::start(project("tests/models"), &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.json");
    let request =
        |text: &str| json!({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": [text]}]});
    let name = weir.get("/v2/models/identity_bytes").expect(200).json()["inputs"][0]["name"].clone();
    let named = |text: &str| {
        let mut request = request(text);
        request["inputs"][0]["name"] = name.clone();
        request
    };
    std::fs::write(&file, json!([named("a"), named("b")]).to_string()).unwrap();
    let line =
        format!("identity_bytes --protocol grpc,json,binary --concurrency 2 --data {}", file.display());
    for row in rows(&weir, &line) {
        assert!(row["answered"].as_u64() > Some(0) && row["errors"] == 0, "{row}");
    }
    for (contents, part) in [
        ("{".to_owned(), "not JSON"),
        (
            json!([named("a"), request("b")]).to_string().replace("\"x\"", "\"nosuch\""),
            "request 2: the model has no input 'nosuch'",
        ),
        (json!([named("a")]).to_string().replace("BYTES", "FP32"), "request 1: input"),
        (json!({"instances": []}).to_string(), "unknown field `instances`"),
    ] {
        std::fs::write(&file, contents).unwrap();
        let outcome = bench(&weir, &format!("identity_bytes --data {}", file.display()));
        let sentence = refused(&outcome);
        assert!(sentence.contains(part) && sentence.contains("requests.json"), "{sentence}");
    }
    assert!(refused(&bench(&weir, "identity_bytes --data /nosuch.json")).contains("/nosuch.json"));
}

#[test]
fn answers_that_are_no_success_are_counted_with_the_servers_words() {
    let weir = Weir::start(project("models"), &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.json");
    let name = weir.get("/v2/models/digits").expect(200).json()["inputs"][0]["name"].clone();
    let wide = json!({"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]});
    std::fs::write(&file, wide.to_string()).unwrap();
    let line = format!("digits --protocol grpc,json --concurrency 2 --data {}", file.display());
    let outcome = bench(&weir, &line);
    // Nothing succeeded: that is no result to go on with.
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for part in ["x INVALID_ARGUMENT: ", "x 400: ", "unexpected shape for input"] {
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    }
}

#[test]
fn what_cannot_be_measured_is_told_in_one_line() {
    let weir = Weir::start(project("models"), &[]);
    for protocol in ["grpc", "json"] {
        let outcome = bench(&weir, &format!("nosuch --protocol {protocol}"));
        assert!(refused(&outcome).contains("'nosuch' is not found"), "{outcome:?}");
        let outcome = bench(&weir, &format!("digits --version 9 --protocol {protocol}"));
        assert!(refused(&outcome).contains("version 9"), "{outcome:?}");
    }
    assert!(refused(&bench(&weir, "digits --shape nosuch:3")).contains("has no input 'nosuch'"));
    let outcome = bench(&weir, "digits --server-pid 4000000000");
    assert!(refused(&outcome).contains("is there a process"), "{outcome:?}");
    for (protocol, url) in
        [("grpc", "127.0.0.1:9"), ("json", "127.0.0.1:9"), ("json", "no.such.host.invalid:1")]
    {
        let outcome = Program::new(&["bench", "digits", "--protocol", protocol, "--url", url]).run();
        assert!(refused(&outcome).contains(url) && outcome.stderr.contains("running"), "{outcome:?}");
    }
    // One protocol at the other's port.
    for (protocol, address) in [("grpc", weir.metrics), ("json", weir.metrics)] {
        let outcome =
            Program::new(&["bench", "digits", "--protocol", protocol, "--url", &address.to_string()]).run();
        refused(&outcome);
    }
}

#[test]
fn the_highest_rate_on_time_is_searched() {
    let weir = Weir::start(project("models"), &[]);
    // A minute is always on time, so only the search's own limit ends it.
    let line = "digits --objective 60000 --find-rate --arrivals constant --windows 1 --json -";
    let (server, grpc) = (format!("http://{}", weir.http), weir.grpc.to_string());
    let words = ["bench"].into_iter().chain(line.split_whitespace());
    let words = words.chain("--warmup 0 --window 0.05 --server".split_whitespace());
    let outcome = Program::new(&words.chain([&*server, "--grpc", &grpc]).collect::<Vec<_>>()).run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["found"][0]["protocol"], "grpc");
    assert!(report["rows"].as_array().unwrap().len() > 2, "{report}");
}

#[test]
fn an_interrupt_prints_what_there_is() {
    let weir = Weir::start(project("models"), &[]);
    let grpc = weir.grpc.to_string();
    let words =
        ["bench", "digits", "--grpc", &grpc, "--concurrency", "1,2", "--window", "600", "--warmup", "0"];
    let process = Program::new(&words).spawn();
    weir.until("a request was answered", |page| page.sum("weir_requests_total", &[("outcome", "ok")]) > 0.0);
    let interrupt = format!("kill -INT {}", process.id());
    assert!(std::process::Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let output = process.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout.contains("1 at once") && !stdout.contains("2 at once"), "{stdout}");
    assert!(stdout.contains("Ended before its time."), "{stdout}");
}

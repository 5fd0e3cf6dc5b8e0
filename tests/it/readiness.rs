//! What the server says of its readiness and of its models', by every way to ask.

use std::sync::mpsc::channel;

use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use weir::proto::inference as pb;

use crate::support::grpc;
use crate::support::http::Connection;
use crate::support::repository::Repository;
use crate::support::weir::Weir;
use crate::support::{PATIENCE, eventually};

/// Two models that are served and two that are not.
fn half_broken() -> Repository {
    let repository = Repository::new();
    for good in ["a", "b"] {
        repository.copy("tests/models/identity_fp32", good);
    }
    for broken in ["c", "d"] {
        repository.write(&format!("{broken}/1/model.onnx"), "no model");
    }
    repository
}

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

/// 1 is serving, 2 is not, 3 is not known, by the standard.
fn status(weir: &Weir, service: &str) -> i32 {
    grpc::call_at::<HealthCheckResponse>(weir.grpc, CHECK, &of(service)).status
}

/// Holds that the server is ready, or not for that reason, whoever asks.
#[track_caller]
fn says(weir: &Weir, reason: Option<&str>) {
    // Probes may ask the port for metrics too.
    for port in [weir.http, weir.metrics] {
        let answer = Connection::open(port).ask("GET", "/v2/health/ready", &[], b"");
        match reason {
            None => _ = answer.expect(200),
            Some(reason) => assert_eq!(answer.error(503), reason),
        }
        Connection::open(port).ask("GET", "/v2/health/live", &[], b"").expect(200);
    }
    let ready =
        grpc::call::<pb::ServerReadyResponse>(weir.grpc, "ServerReady", &pb::ServerReadyRequest {}).ready;
    assert_eq!(ready, reason.is_none());
    assert_eq!(status(weir, ""), if ready { 1 } else { 2 });
}

#[test]
fn the_server_is_ready_when_it_is_told_to_be() {
    let repository = half_broken();
    let missing = "2 of 4 models are unavailable: c, d";
    for (when, reason) in [
        ("tried", None),
        ("all", Some(format!("not ready: {missing}"))),
        ("quorum", Some(format!("not ready: {missing}"))),
        ("models:a,b", None),
        ("models:a,c", Some("not ready: 1 of 2 required models are unavailable: c".to_owned())),
        ("models:nosuch", Some("not ready: 1 of 1 required models are unavailable: nosuch".to_owned())),
    ] {
        let weir = Weir::start(&repository, &["--ready-when", when]);
        says(&weir, reason.as_deref());
    }
    repository.remove("d");
    says(&Weir::start(&repository, &["--ready-when", "quorum"]), None);
}

#[test]
fn a_model_that_goes_or_comes_back_later_counts() {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32", "a").copy("tests/models/identity_fp32", "b");
    let flags = ["--control", "watch", "--settle-seconds", "0", "--ready-when", "models:a,b"];
    let weir = Weir::start(&repository, &flags);
    says(&weir, None);
    let (tell, told) = channel();
    let address = weir.grpc;
    std::thread::spawn(move || {
        grpc::stream::<HealthCheckResponse>(address, WATCH, &of(""), 3, |answer| {
            _ = tell.send(answer.status)
        });
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok(1));
    repository.remove("b");
    assert_eq!(told.recv_timeout(PATIENCE), Ok(2));
    says(&weir, Some("not ready: 1 of 2 required models are unavailable: b"));
    repository.copy("tests/models/identity_fp32", "b");
    assert_eq!(told.recv_timeout(PATIENCE), Ok(1));
    eventually("it is ready again", || (weir.get("/v2/health/ready").status == 200).then_some(()));
}

#[test]
fn a_model_that_is_not_ready_says_why() {
    let repository = half_broken();
    repository.write("a/2/model.onnx", "no model").write("a/config.pbtxt", "version_policy { all { } }");
    let weir = Weir::start(&repository, &[]);
    let ready = |name: &str, version: &str| {
        let request = pb::ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        grpc::call::<pb::ModelReadyResponse>(weir.grpc, "ModelReady", &request).ready
    };
    weir.get("/v2/models/b/ready").expect(200);
    assert!(ready("b", "") && ready("a", "1") && !ready("a", "2") && !ready("c", "") && !ready("nosuch", ""));
    for (path, part) in [
        ("c/ready", "model 'c' is not ready: version 1: "),
        ("c/versions/1/ready", "not an ONNX model"),
        ("a/versions/2/ready", "model 'a' is not ready: version 2: "),
        ("a/versions/7/ready", "there is no version 7"),
    ] {
        let reason = weir.get(&format!("/v2/models/{path}")).error(400);
        assert!(reason.contains(part), "{path}: {reason}");
    }
    assert_eq!((status(&weir, "b"), status(&weir, "c")), (1, 2));
}

#[test]
fn what_nobody_asked_for_does_not_count() {
    let flags = ["--control", "explicit", "--ready-when", "all", "--load", "a"];
    let repository = half_broken();
    let weir = Weir::start(&repository, &flags);
    says(&weir, None);
    let refusal = weir.post("/v2/repository/models/c/load", &serde_json::json!({}));
    refusal.error(400);
    says(&weir, Some("not ready: 1 of 2 models are unavailable: c"));
}

#[test]
fn a_server_that_drains_is_not_ready() {
    let repository = half_broken();
    let mut weir = Weir::start(&repository, &["--ready-when", "models:a", "--drain-delay-seconds", "3"]);
    let mut asking = weir.connect();
    says(&weir, None);
    weir.signal("TERM");
    eventually("it drains", || {
        let answer = asking.ask("GET", "/v2/health/ready", &[], b"");
        (answer.status == 503 && answer.text().contains("draining")).then_some(())
    });
    assert_eq!(weir.exit_code(PATIENCE), Some(0));
}

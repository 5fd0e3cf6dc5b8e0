//! Real clients in Python: each file of `tests/clients` is one test.

use std::collections::BTreeSet;

use crate::support::{project, python::pytest};

macro_rules! files {
    ($($test:ident: $file:literal,)*) => {
        $(
            #[test]
            fn $test() {
                pytest($file);
            }
        )*
        const FILES: &[&str] = &[$($file),*];
    };
}

files! {
    tritons_http_client_is_served: "test_triton_http.py",
    tritons_grpc_client_is_served: "test_triton_grpc.py",
    tritons_asyncio_clients_are_served: "test_triton_aio.py",
    kserves_clients_are_served: "test_kserve.py",
    what_is_live_is_changed_by_real_clients: "test_control.py",
    a_plain_grpc_client_is_served: "test_grpc_plain.py",
    a_plain_http_client_is_served: "test_http_plain.py",
    numbers_keep_their_bits: "test_numbers.py",
    drawn_requests_are_answered_as_by_onnx_runtime: "test_generated.py",
    many_clients_get_their_own_answers: "test_concurrency.py",
    prometheus_client_reads_the_metrics: "test_metrics.py",
    hostile_requests_are_answered_or_refused: "test_hostile_requests.py",
    hostile_models_are_refused_or_harmless: "test_hostile_models.py",
    tls_is_spoken_and_renewed: "test_tls.py",
    balancers_lose_no_request: "test_balancers.py",
    what_is_in_deploy_is_valid: "test_deploy.py",
    what_perf_analyzer_asks_is_answered: "test_perf_analyzer.py",
    onnx_conformance_models_are_served_or_refused: "onnx_conformance.py",
}

#[test]
fn every_file_of_clients_has_its_test() {
    let files = std::fs::read_dir(project("tests/clients")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let tests: BTreeSet<String> =
        names.filter(|name| name.starts_with("test_") && name.ends_with(".py")).collect();
    assert!(!tests.is_empty());
    let missing: Vec<_> = tests.iter().filter(|name| !FILES.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

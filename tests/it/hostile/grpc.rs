//! gRPC messages by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use std::io::Write;
use tokio::net::TcpStream;
use weir::proto::inference as pb;

use super::{IN_TIME, impatient, still_well};
use crate::support::weir::Weir;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";

/// Codes of gRPC.
const OK: &str = "0";
const INVALID_ARGUMENT: &str = "3";
const RESOURCE_EXHAUSTED: &str = "8";
const OUT_OF_RANGE: &str = "11";
const UNIMPLEMENTED: &str = "12";

/// A call: its path, metadata, and the parts of its body with whether it ends after them.
struct Call<'a> {
    path: &'a str,
    metadata: &'a [(&'a str, &'a str)],
    body: Vec<Bytes>,
    ends: bool,
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self { path: INFER, metadata: &[], body: vec![], ends: true }
    }
}

/// The status and its message that a call ends with.
#[track_caller]
fn end(address: SocketAddr, call: Call<'_>) -> (String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ended = tokio::time::timeout(IN_TIME, exchange(address, call)).await;
        ended.expect("the call ends in time").expect("the connection stands")
    })
}

async fn exchange(address: SocketAddr, call: Call<'_>) -> Result<(String, String), h2::Error> {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 24);
    let (mut client, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}{}", call.path));
    for (name, value) in
        [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(call.metadata)
    {
        request = request.header(*name, *value);
    }
    let (response, mut sender) = client.send_request(request.body(()).expect("a request"), false)?;
    let sending = tokio::spawn(async move {
        for part in call.body {
            if sender.send_data(part, false).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        match call.ends {
            true => _ = sender.send_data(Bytes::new(), true),
            false => std::future::pending().await,
        }
    });
    let (head, mut body) = response.await?.into_parts();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    sending.abort();
    driver.abort();
    let text =
        |name| trailers.get(name).map_or("", |value: &http::HeaderValue| value.to_str().unwrap()).to_owned();
    Ok((text("grpc-status"), text("grpc-message").replace("%20", " ")))
}

/// A message after its prefix.
fn framed(flag: u8, message: &[u8]) -> Bytes {
    [&[flag], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat().into()
}

fn good() -> pb::ModelInferRequest {
    let input = |name: &str| pb::model_infer_request::InferInputTensor {
        name: name.into(),
        datatype: "INT32".into(),
        shape: vec![1, 16],
        ..Default::default()
    };
    pb::ModelInferRequest {
        model_name: "simple".into(),
        inputs: vec![input("INPUT0"), input("INPUT1")],
        raw_input_contents: vec![vec![1; 64].into(), vec![2; 64].into()],
        ..Default::default()
    }
}

fn good_message() -> Vec<u8> {
    good().encode_to_vec()
}

#[track_caller]
fn check(weir: &Weir, what: &str, call: Call<'_>, codes: &[&str], words: &str) {
    let (code, message) = end(weir.grpc, call);
    assert!(codes.contains(&code.as_str()), "{what}: {code} {message}");
    assert!(message.contains(words), "{what}: {message}");
    assert_eq!(
        end(weir.grpc, Call { body: vec![framed(0, &good_message())], ..Call::default() }).0,
        OK,
        "{what}"
    );
}

#[test]
fn messages_that_are_framed_wrongly_are_refused() {
    let weir = impatient(&[]);
    let body = |body: Vec<Bytes>| Call { body, ..Call::default() };
    let whole = framed(0, &good_message());
    for (what, parts, words) in [
        ("no message", vec![], "ended before"),
        ("half a prefix", vec![Bytes::from_static(&[0, 0])], "ended before"),
        ("less than it says", vec![whole.slice(..30)], "ended before"),
        ("more than may be", vec![Bytes::from_static(&[0, 255, 255, 255, 255, 1])], "the limit is"),
        ("compressed, it says", vec![framed(1, &good_message())], "compressed"),
        ("a flag of seven", vec![framed(7, &good_message())], "not with 7"),
        ("two messages", vec![whole.clone(), whole.clone()], "one message"),
        ("nonsense", vec![framed(0, &[0xff; 100])], "no ModelInferRequest"),
        ("groups in groups", vec![framed(0, &[0x7b; 10_000])], "no ModelInferRequest"),
        ("text that is not UTF-8", vec![framed(0, &[0x0a, 2, 0xc0, 0xae])], "no ModelInferRequest"),
    ] {
        check(&weir, what, body(parts), &[INVALID_ARGUMENT], words);
    }
    let by_bytes = whole.chunks(1).map(Bytes::copy_from_slice).collect();
    check(&weir, "a byte at a time", body(by_bytes), &[OK], "");
}

#[test]
fn messages_that_would_grow_when_decoded_are_refused_before() {
    let weir = impatient(&["--max-bytes-in-flight", "268435456"]);
    let before = weir.resident_bytes();
    let of = |bytes: Vec<u8>| Call {
        body: framed(0, &bytes).chunks(1 << 20).map(Bytes::copy_from_slice).collect(),
        ..Call::default()
    };
    check(
        &weir,
        "inputs of nothing",
        of([0x2a, 0].repeat(4 << 20)),
        &[INVALID_ARGUMENT],
        "more than 256 inputs",
    );
    check(
        &weir,
        "outputs of nothing",
        of([0x32, 0].repeat(4 << 20)),
        &[INVALID_ARGUMENT],
        "more than 256 outputs",
    );
    check(
        &weir,
        "tensors of nothing",
        of([0x3a, 0].repeat(4 << 20)),
        &[INVALID_ARGUMENT],
        "more than 256 raw",
    );
    let parameters = (0..300u32).map(|i| (i.to_string(), pb::InferParameter::default())).collect();
    let message = pb::ModelInferRequest { parameters, ..good() };
    check(&weir, "parameters", of(message.encode_to_vec()), &[INVALID_ARGUMENT], "more than 256 parameters");
    let mut message = good();
    message.inputs[0].shape = vec![1; 33];
    check(&weir, "dimensions", of(message.encode_to_vec()), &[INVALID_ARGUMENT], "more than 32 dimensions");
    message.inputs[0].shape = vec![i64::MAX, i64::MAX];
    check(&weir, "elements", of(message.encode_to_vec()), &[INVALID_ARGUMENT], "");
    // Eight million empty strings in sixteen megabytes.
    let strings =
        pb::InferTensorContents { bytes_contents: vec![Bytes::new(); 8 << 20], ..Default::default() };
    let mut message = good();
    message.raw_input_contents.clear();
    message.inputs[0].contents = Some(strings);
    check(&weir, "strings", of(message.encode_to_vec()), &[RESOURCE_EXHAUSTED], "bytes in flight");
    let mut message = good();
    message.inputs[0].datatype = "BYTES".into();
    message.raw_input_contents[0] = vec![0xff; 64].into();
    check(&weir, "a string of 4 GiB", of(message.encode_to_vec()), &[INVALID_ARGUMENT], "");
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 300 << 20, "{} MB", grown >> 20);
}

#[test]
fn compressed_messages_are_bounded_by_size_and_ratio() {
    let weir = impatient(&["--max-decompression-ratio", "50"]);
    let packed = |bytes: &[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let of = |path, message: &[u8]| Call {
        path,
        metadata: &[("grpc-encoding", "gzip")],
        body: vec![framed(1, message)],
        ..Call::default()
    };
    check(&weir, "a good one", of(INFER, &packed(&good_message())), &[OK], "");
    check(&weir, "a good one in a stream", of(STREAM, &packed(&good_message())), &[OK], "");
    for path in [INFER, STREAM] {
        let bomb = packed(&vec![0; 32 << 20]);
        check(&weir, "a bomb", of(path, &bomb), &[INVALID_ARGUMENT], "too tightly");
        check(&weir, "not packed at all", of(path, &good_message()), &[INVALID_ARGUMENT], "gzip");
        let encoding = [("grpc-encoding", "br")];
        let unknown = Call { metadata: &encoding, ..of(path, b"x") };
        check(&weir, "an unknown coding", unknown, &[UNIMPLEMENTED], "");
    }
}

#[test]
fn strange_calls_are_refused() {
    let weir = impatient(&["--max-headers", "20"]);
    fn call<'a>(path: &'a str, metadata: &'a [(&'a str, &'a str)]) -> Call<'a> {
        Call { path, metadata, body: vec![framed(0, &good_message())], ends: true }
    }
    for path in [
        "/",
        "//",
        "/x",
        "/inference.GRPCInferenceService/Nothing",
        "/../etc/passwd",
        "/weir.control.v1.Control/X",
    ] {
        check(&weir, path, call(path, &[]), &[UNIMPLEMENTED], "");
    }
    for garbage in ["", "1", "x", "-1S", "999999999S", "1S1S", "1e3m", "\u{e9}m"] {
        check(&weir, garbage, call(INFER, &[("grpc-timeout", garbage)]), &[OK], "");
    }
    let many: Vec<(&str, &str)> = vec![("x", "y"); 30];
    check(&weir, "many headers", call(INFER, &many), &[INVALID_ARGUMENT], "more than 20 headers");
    let long = Call { path: LIVE, body: vec![framed(0, &[0; 1 << 20])], ..Call::default() };
    check(&weir, "a long question", long, &[INVALID_ARGUMENT, RESOURCE_EXHAUSTED, OUT_OF_RANGE], "");
}

#[test]
fn bodies_that_do_not_come_end_their_calls() {
    let weir = impatient(&[]);
    let half = || vec![framed(0, &good_message()).slice(..30)];
    for (path, body) in [
        (INFER, vec![]),
        (INFER, half()),
        (STREAM, half()),
        (LIVE, vec![]),
        (LIVE, vec![Bytes::from_static(&[0])]),
    ] {
        let call = Call { path, body, ends: false, ..Call::default() };
        check(&weir, path, call, &[INVALID_ARGUMENT], "too slowly");
    }
}

#[test]
fn a_stream_may_rest_between_its_messages() {
    let weir = impatient(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(weir.grpc).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::post(format!("http://weir{STREAM}")).header("content-type", "application/grpc");
        let (response, mut sender) = client.send_request(request.body(()).unwrap(), false).unwrap();
        sender.send_data(framed(0, &good_message()), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(!body.data().await.unwrap().unwrap().is_empty());
        // Longer than a body, a head or an unanswered ping may take.
        tokio::time::sleep(Duration::from_secs(4)).await;
        sender.send_data(framed(0, &good_message()), true).unwrap();
        let second = tokio::time::timeout(IN_TIME, body.data()).await.unwrap().unwrap().unwrap();
        assert!(!second.is_empty());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], OK);
    });
}

#[test]
fn a_stream_whose_answers_are_not_taken_is_not_listened_to_and_ends() {
    let weir = impatient(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(weir.grpc).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (mut client, connection) =
            builder.initial_window_size(10).handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::post(format!("http://weir{STREAM}")).header("content-type", "application/grpc");
        let (response, mut sender) = client.send_request(request.body(()).unwrap(), false).unwrap();
        for _ in 0..2000 {
            if sender.send_data(framed(0, &good_message()), false).is_err() {
                break;
            }
        }
        let body = response.await.unwrap().into_body();
        let ended =
            tokio::time::timeout(IN_TIME, std::future::poll_fn(|context| sender.poll_reset(context))).await;
        assert!(ended.is_ok(), "the server waits for ever");
        drop(body);
    });
    weir.until("few were answered", |page| page.sum("weir_requests_in_flight", &[]) == 0.0);
    let answered = weir.page().sum("weir_requests_total", &[]);
    assert!(answered < 200.0, "{answered} were answered");
    still_well(&weir);
}

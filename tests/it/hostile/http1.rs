//! HTTP/1 by hand.

use super::{impatient, show, still_well, told};
use crate::support::http::Connection;
use crate::support::tensors::simple;
use crate::support::weir::{Weir, infer_path};

/// The statuses of all answers in what a server said.
fn statuses(told: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(told);
    let heads = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    heads.collect()
}

/// Sends a request as it is and holds that it is answered with one of these statuses, or hung up on for 0, and that
/// whoever is refused is told why.
#[track_caller]
fn check(weir: &Weir, request: &[u8], expected: &[u16]) {
    let reason = |so_far: &[u8]| String::from_utf8_lossy(so_far).contains("\r\n\r\n{\"error\":\"");
    let refused = |so_far: &[u8]| statuses(so_far).first().is_some_and(|status| *status >= 400);
    let answer =
        told(weir.http, request, |so_far| !statuses(so_far).is_empty() && refused(so_far) == reason(so_far));
    assert_eq!(refused(&answer), reason(&answer), "{} for {}", show(&answer), show(request));
    let status = statuses(&answer).first().copied().unwrap_or(0);
    assert!(expected.contains(&status), "{status} for {}: {}", show(request), show(&answer));
    still_well(weir);
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: weir\r\n\r\n").into_bytes()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    let path = infer_path("simple");
    format!("POST {path} HTTP/1.1\r\nhost: weir\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn strange_targets_name_nothing() {
    let weir = impatient(&[]);
    for target in [
        "/v2/models/../../etc/passwd",
        "/v2/models/%2e%2e/infer",
        "/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v2/models/a%00b",
        "/v2/models/%c0%ae%c0%ae/ready",
        "/v2/models/%ff",
        "/v2//models/simple",
        "//v2",
        "/%76%32",
        "/v2/",
        "/v2/models/simple/versions/18446744073709551616",
        "/v2/models/simple/versions/-1",
        "/v2/models/simple/versions/1e3",
        "/v2/models/%0d%0aset-cookie:%20a=b",
        "/metrics",
        "*",
        "http://169.254.169.254/latest/meta-data",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/x/register",
        "/v2/trace/setting",
        "/v2/logging",
    ] {
        check(&weir, &get(target), &[400, 404, 405]);
    }
    check(&weir, &get(&format!("/{}", "a".repeat(100_000))), &[414, 431]);
    check(&weir, &get("/v2 /x"), &[400]);
    // An absolute target names what its path names.
    check(&weir, &get("http://weir/v2"), &[200]);
}

#[test]
fn strange_methods_and_first_lines_are_refused() {
    let weir = impatient(&[]);
    for (request, expected) in [
        (&b"CONNECT weir:443 HTTP/1.1\r\nhost: weir\r\n\r\n"[..], &[400, 404, 405][..]),
        (b"TRACE /v2 HTTP/1.1\r\nhost: weir\r\n\r\n", &[405]),
        (b"BREW /v2 HTTP/1.1\r\nhost: weir\r\n\r\n", &[405]),
        (b"OPTIONS * HTTP/1.1\r\nhost: weir\r\n\r\n", &[404, 405]),
        (b"get /v2 HTTP/1.1\r\nhost: weir\r\n\r\n", &[405]),
        (b"G\0T /v2 HTTP/1.1\r\n\r\n", &[400]),
        (b"GET /v2 HTTP/3.0\r\n\r\n", &[400]),
        (b"GET /v2\r\n\r\n", &[400]),
        (b"GET /v2 HTTP/1.1\r\nbad header: x\r\n\r\n", &[400]),
        (b"GET /v2 HTTP/1.1\r\nhost: weir\r\n folded: x\r\n\r\n", &[400]),
        (b"GET /v2 HTTP/1.1\r\nx: a\0b\r\n\r\n", &[400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400, 408]),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &[400]),
        (b"GET /v2 HTTP/1.0\r\n\r\n", &[200]),
        (b"GET /v2 HTTP/1.1\nhost: weir\n\n", &[200, 400]),
        (b"GET /v2 HTTP/1.1\r\nhost: weir\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", &[200]),
        (b"GET /v2 HTTP/1.1\r\nhost: weir\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n", &[200]),
    ] {
        check(&weir, request, expected);
    }
}

#[test]
fn bodies_that_are_framed_wrongly_are_refused() {
    let weir = impatient(&[]);
    let chunked = "transfer-encoding: chunked\r\n";
    let extension = format!("1;{}\r\n{{\r\n", "a".repeat(40_000));
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(20_000));
    for (headers, body, expected) in [
        ("content-length: 5\r\ncontent-length: 6\r\n", "{}", &[400][..]),
        ("content-length: -1\r\n", "{}", &[400]),
        ("content-length: 1e3\r\n", "{}", &[400]),
        ("content-length: 99999999999999999999999\r\n", "{}", &[400, 413]),
        ("content-length: 18446744073709551615\r\n", "{}", &[400, 413, 431]),
        ("content-length: 300000000\r\n", "{}", &[413]),
        ("content-length: 2\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding: gzip\r\n", "{}", &[400]),
        ("transfer-encoding: chunked, identity\r\n", "{}", &[400]),
        (chunked, "zz\r\n", &[400, 499]),
        (chunked, "ffffffffffffffff1\r\n", &[400]),
        (chunked, "-1\r\n", &[400]),
        (chunked, &extension, &[400]),
        (chunked, &trailers, &[400, 431]),
        (chunked, "1\r\n{x\r\n", &[400]),
        (chunked, "ffffffffffffff\r\n{", &[408, 413]),
        ("content-length: 2\r\ncontent-encoding: br\r\n", "{}", &[415]),
        ("content-length: 2\r\ncontent-encoding: gzip\r\ncontent-encoding: gzip\r\n", "{}", &[415]),
        ("content-length: 2\r\ncontent-encoding: gzip, gzip\r\n", "{}", &[415]),
        ("content-length: 2\r\ncontent-encoding: gzip\r\n", "{}", &[400]),
        ("content-length: 2\r\ninference-header-content-length: 3\r\n", "{}", &[400]),
        ("content-length: 2\r\ninference-header-content-length: -1\r\n", "{}", &[400]),
        ("content-length: 2\r\ninference-header-content-length: 99999999999999999999\r\n", "{}", &[400]),
        ("", "", &[400]),
    ] {
        check(&weir, &post(headers, body), expected);
    }
}

#[test]
fn heads_that_are_too_long_or_have_too_many_lines_are_refused() {
    let weir = impatient(&["--max-header-bytes", "4096", "--max-headers", "20"]);
    let with = |headers: String| format!("GET /v2 HTTP/1.1\r\nhost: weir\r\n{headers}\r\n").into_bytes();
    check(&weir, &with("x: y\r\n".repeat(19)), &[200]);
    check(&weir, &with("x: y\r\n".repeat(20)), &[431]);
    check(&weir, &with(format!("x: {}\r\n", "y".repeat(3900))), &[200]);
    check(&weir, &with(format!("x: {}\r\n", "y".repeat(4100))), &[431]);
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let weir = impatient(&[]);
    let body = simple(1).to_string();
    let one = post(&format!("content-length: {}\r\n", body.len()), &body);
    let all = [one.repeat(20), get("/v2/models/%ff"), one].concat();
    let answers = told(weir.http, &all, |so_far| statuses(so_far).len() == 22 && so_far.ends_with(b"}"));
    let mut expected = vec![200; 20];
    expected.extend([404, 200]);
    assert_eq!(statuses(&answers), expected, "{}", show(&answers));
}

#[test]
fn who_expects_to_be_asked_for_the_body_is_asked() {
    let weir = impatient(&[]);
    let body = simple(1).to_string();
    let mut connection = Connection::open(weir.http);
    let length = body.len().to_string();
    let headers = [("content-length", length.as_str()), ("expect", "100-continue")];
    connection.head("POST", &infer_path("simple"), &headers);
    assert_eq!(connection.receive().unwrap().status, 100);
    connection.write(body.as_bytes());
    connection.receive().unwrap().expect(200);
    // One that would be refused anyway is refused without its body.
    let headers = [("content-length", "999999999"), ("expect", "100-continue")];
    let mut connection = Connection::open(weir.http);
    connection.head("POST", &infer_path("simple"), &headers);
    connection.receive().unwrap().error(413);
}

#[test]
fn slow_heads_and_bodies_are_refused_and_do_not_hold_others_up() {
    let weir = impatient(&[]);
    check(&weir, b"GET /v2 HTTP/1.1\r\nhost: we", &[408]);
    check(&weir, b"P", &[408]);
    check(&weir, b"", &[0]);
    // The second head of a connection, too.
    let mut connection = Connection::open(weir.http);
    connection.ask("GET", "/v2", &[], b"").expect(200);
    connection.write(b"GET /v2 HT");
    let message = connection.receive().unwrap().error(408);
    assert!(message.contains("the head of the request did not come"), "{message}");
    connection.closed().unwrap();
    check(&weir, &post("content-length: 1000\r\n", "{\"inputs\":"), &[408]);
    check(&weir, &post("transfer-encoding: chunked\r\n", "5\r\n{\"inp"), &[408]);
    check(&weir, &post("content-length: 1000\r\n", ""), &[408]);
}

#[test]
fn a_body_that_drips_is_refused() {
    let weir = impatient(&[]);
    let mut connection = Connection::open(weir.http);
    connection.head("POST", &infer_path("simple"), &[("content-length", "100000")]);
    let begun = std::time::Instant::now();
    let dripped = (0..100).take_while(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        begun.elapsed() < super::IN_TIME && connection.try_write(b" ").is_ok()
    });
    let drops = dripped.count();
    assert!(drops < 90, "{drops} drops were taken");
    still_well(&weir);
}

#[test]
fn a_head_that_drips_is_refused() {
    let weir = impatient(&[]);
    let mut connection = Connection::open(weir.http);
    connection.write(b"GET /v2 HTTP/1.1\r\n");
    let dripped = (0..100).take_while(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        connection.try_write(b"x: y\r\n").is_ok()
    });
    let drops = dripped.count();
    assert!(drops < 90, "{drops} drops were taken");
    still_well(&weir);
}

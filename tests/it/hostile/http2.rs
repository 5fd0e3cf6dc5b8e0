//! HTTP/2 frames by hand, to both ports.

use super::{IN_TIME, impatient, still_well};
use crate::support::http2::{End, Raw, flags, kind};
use crate::support::project;
use crate::support::weir::Weir;

/// Both ports that speak HTTP/2.
fn ports(weir: &Weir) -> [std::net::SocketAddr; 2] {
    [weir.http, weir.grpc]
}

/// A request that waits for its body.
fn open(stream: u32) -> Vec<u8> {
    let head = Raw::head("POST", "/v2/models/simple/infer", &[]);
    Raw::frame(kind::HEADERS, flags::END_HEADERS, stream, &head)
}

/// How a connection may stand after frames.
#[derive(Clone, Copy)]
enum Fate {
    Ends,
    LivesOn,
    Either,
}

/// Sends frames after the greeting and holds that the connection ends as it may, and well before any time-out of ours.
#[track_caller]
fn check(weir: &Weir, what: &str, frames: &[u8], fate: Fate) {
    for port in ports(weir) {
        let end = Raw::open(port).end_after(frames, IN_TIME);
        // With a code that is no good word; or without one, if the client did not stop to listen.
        let bad_end = matches!(end, End::Closed(code) if code != Some(0));
        let well = match fate {
            Fate::Ends => bad_end,
            Fate::LivesOn => matches!(end, End::Alive),
            Fate::Either => bad_end || matches!(end, End::Alive),
        };
        assert!(well, "{what} on {port}: {end:?}");
        still_well(weir);
    }
}

#[test]
fn frames_that_break_the_rules_end_the_connection() {
    let weir = impatient(&[]);
    let frame = Raw::frame;
    let head = Raw::head("GET", "/v2", &[]);
    for (what, frames, fate) in [
        ("a window that overflows", frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Fate::Ends),
        ("a window that grows by nothing", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), Fate::Ends),
        ("settings of five bytes", frame(kind::SETTINGS, 0, 0, &[0; 5]), Fate::Ends),
        ("settings of a stream", frame(kind::SETTINGS, 0, 1, &[]), Fate::Ends),
        (
            "a window setting above the largest",
            frame(kind::SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
            Fate::Ends,
        ),
        ("a ping of seven bytes", frame(kind::PING, 0, 0, &[0; 7]), Fate::Ends),
        ("data before a head", frame(kind::DATA, 0, 1, b"x"), Fate::Ends),
        ("data of no stream", frame(kind::DATA, 0, 0, b"x"), Fate::Ends),
        ("a continuation of nothing", frame(kind::CONTINUATION, flags::END_HEADERS, 1, b""), Fate::Ends),
        ("a stream of the server's", frame(kind::HEADERS, flags::END_HEADERS, 2, &head), Fate::Ends),
        ("a promise", frame(kind::PUSH_PROMISE, flags::END_HEADERS, 1, &[0, 0, 0, 2]), Fate::Ends),
        ("a reset of an idle stream", frame(kind::RST_STREAM, 0, 1, &[0; 4]), Fate::Ends),
        ("padding longer than its frame", frame(kind::DATA, 8, 1, &[200, 1]), Fate::Ends),
        ("a head of nonsense", frame(kind::HEADERS, flags::END_HEADERS, 1, &[0xff; 40]), Fate::Ends),
        ("a frame larger than was allowed", frame(kind::DATA, 0, 1, &[0; 20_000]), Fate::Ends),
        ("frames of no known kind", frame(0xee, 0xff, 7, b"what is this").repeat(1000), Fate::LivesOn),
    ] {
        check(&weir, what, &frames, fate);
    }
}

#[test]
fn floods_end_the_connection_or_are_borne() {
    let weir = impatient(&[]);
    let before = weir.resident_bytes();
    let frame = Raw::frame;
    let streams =
        |make: &dyn Fn(u32) -> Vec<u8>| (0..20_000u32).flat_map(|i| make(2 * i + 1)).collect::<Vec<u8>>();
    let half_head = frame(kind::HEADERS, 0, 1, &Raw::head("GET", "/v2", &[]));
    let more_head = |n: usize| frame(kind::CONTINUATION, 0, 1, &Raw::fields(&[("x", &"y".repeat(n))]));
    let bomb = [&[0x40, 1, b'x'][..], &Raw::length(3000, 7), &b"y".repeat(3000), &[0xbe; 5000]].concat();
    let bomb = [Raw::head("GET", "/v2", &[]), bomb].concat();
    for (what, frames, fate) in [
        ("settings", frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(50_000), Fate::Either),
        ("pings", frame(kind::PING, 0, 0, &[7; 8]).repeat(50_000), Fate::Either),
        ("windows", frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(50_000), Fate::Either),
        (
            "resets",
            streams(&|id| [open(id), frame(kind::RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()),
            Fate::Either,
        ),
        ("streams", streams(&open), Fate::Either),
        ("empty data", [open(1), frame(kind::DATA, 0, 1, b"").repeat(20_000)].concat(), Fate::Ends),
        (
            "one byte at a time",
            [open(1), frame(kind::DATA, 0, 1, b"x").repeat(50_000)].concat(),
            Fate::Either,
        ),
        ("continuations", [half_head.clone(), more_head(16_000).repeat(100)].concat(), Fate::Ends),
        (
            "continuations of nothing",
            [half_head, frame(kind::CONTINUATION, 0, 1, b"").repeat(20_000)].concat(),
            Fate::Ends,
        ),
        ("a head that unpacks to megabytes", frame(kind::HEADERS, 5, 1, &bomb), Fate::Either),
    ] {
        check(&weir, what, &frames, fate);
    }
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MB", grown >> 20);
}

#[test]
fn a_client_that_never_reads_is_hung_up_on() {
    let weir = impatient(&[]);
    for port in ports(&weir) {
        let ping = Raw::frame(kind::PING, 0, 0, &[7; 8]);
        // Answers pile up until the server gives the client up, and with it what the client still has to say.
        assert!(Raw::open(port).write_until_refused(&ping.repeat(10_000), IN_TIME), "{port}");
        still_well(&weir);
    }
}

#[test]
fn who_says_hello_too_slowly_or_half_a_head_is_hung_up_on() {
    let weir = impatient(&[]);
    for port in ports(&weir) {
        for bytes in [&b"PRI * HTTP/2.0\r\n"[..], b"P"] {
            assert!(Raw::silent(port).sends_and_is_closed(bytes, IN_TIME), "{port} {bytes:?}");
        }
        let half = Raw::frame(kind::HEADERS, 0, 1, &Raw::head("GET", "/v2", &[]));
        // It does not answer pings: within a head it may not.
        assert!(Raw::open(port).sends_and_is_closed(&half, IN_TIME), "{port}");
        // Nor does one that has gone.
        assert!(Raw::open(port).sends_and_is_closed(b"", IN_TIME), "{port}");
        still_well(&weir);
    }
}

#[test]
fn a_frame_that_does_not_end_has_the_time_of_a_head() {
    // Pings are a minute apart: it is not they that tell.
    let weir = Weir::start(project("models"), &["--header-seconds", "1"]);
    let whole = open(1);
    let half_head = Raw::frame(kind::HEADERS, 0, 1, &Raw::head("GET", "/v2", &[]));
    let data = Raw::frame(kind::DATA, 0, 3, &[0; 1000]);
    for port in ports(&weir) {
        for (what, frames) in [
            ("half a frame's head", whole[..5].to_vec()),
            ("half a frame", whole[..20].to_vec()),
            ("headers that go on", half_head.clone()),
            ("headers that went on", [half_head.clone(), Raw::frame(kind::CONTINUATION, 0, 1, b"")].concat()),
            ("settings", Raw::frame(kind::SETTINGS, 0, 0, &[0; 6])[..12].to_vec()),
            ("a body of nobody", data[..500].to_vec()),
        ] {
            assert!(Raw::open(port).sends_and_is_closed(&frames, IN_TIME), "{what} on {port}");
        }
        still_well(&weir);
    }
}

#[test]
fn an_idle_client_that_answers_pings_stays() {
    let weir = impatient(&[]);
    for port in ports(&weir) {
        let end = Raw::open(port).end_after(b"", std::time::Duration::from_secs(5));
        assert!(matches!(end, End::Alive), "{port} {end:?}");
    }
}

#[test]
fn the_http_port_answers_over_http2_as_over_http1() {
    let weir = impatient(&["--max-headers", "10"]);
    let get = |path: &str| Raw::frame(kind::HEADERS, 5, 1, &Raw::head("GET", path, &[]));
    // The static table's numbers of the statuses (RFC 7541, appendix A).
    for (frames, status) in [(get("/v2"), 8), (get("/v2/nothing"), 13), (get("/v2/models/%ff"), 13)] {
        assert_eq!(Raw::open(weir.http).status_index(&frames), Some(status));
    }
    let many: Vec<(&str, &str)> = vec![("x", "y"); 20];
    let head = Raw::frame(kind::HEADERS, 5, 1, &Raw::head("GET", "/v2", &many));
    // 431 has no number of its own.
    assert_eq!(Raw::open(weir.http).status_index(&head), None);
    let head = Raw::frame(kind::HEADERS, 5, 1, &Raw::head("HEAD", "/v2", &[]));
    assert_eq!(Raw::open(weir.http).status_index(&head), Some(8));
}

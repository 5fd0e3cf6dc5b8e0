use super::*;
use crate::api::limits::BodyPace;

const HEAD: Duration = Duration::from_secs(4);
const WRITE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(900);
const PING: Duration = Duration::from_secs(60);

fn times() -> Times {
    let body = BodyPace { gap: HEAD, bytes_per_second: 1 };
    Times { head: HEAD, body, write: WRITE, idle: IDLE, age: None, ping: PING }
}

/// A connection looked at after so many seconds each, with the counts of then; the last finding counts.
#[track_caller]
fn check(protocol: Protocol, looks: &[(u64, Counts)], expected: Finding) {
    let begin = Instant::now();
    let mut watch = Watch::new(times(), protocol, begin);
    let (last, before) = looks.split_last().expect("there is a last look");
    for (seconds, counts) in before {
        let finding = watch.look(begin + Duration::from_secs(*seconds), *counts);
        assert!(matches!(finding, Finding::Well | Finding::Ping), "{finding:?} after {seconds} s");
    }
    assert_eq!(watch.look(begin + Duration::from_secs(last.0), last.1), expected, "{looks:?}");
}

/// A connection at rest after `n` requests.
fn after(n: u32) -> Counts {
    Counts { reads: n, claimed: n, begun: n, ended: n, written: 100 * u64::from(n), ..Counts::default() }
}

fn open(counts: Counts) -> Counts {
    Counts { open: true, ..counts }
}

#[test]
fn a_head_that_does_not_come_ends_a_connection_and_a_rest_does_not() {
    let nothing = Counts::default();
    check(Protocol::Http1, &[(3, nothing)], Finding::Well);
    check(Protocol::Http1, &[(4, nothing)], Finding::SlowHead);
    check(Protocol::Http2, &[(4, nothing)], Finding::SlowHead);
    check(Protocol::Http2, &[(3, open(nothing)), (10, open(nothing))], Finding::Well);
    check(Protocol::Http1, &[(3, after(1)), (800, after(1))], Finding::Well);
    // Bytes of a second head, one after the other.
    let bytes = |reads| Counts { reads, ..after(1) };
    check(Protocol::Http1, &[(3, after(1)), (100, bytes(2)), (103, bytes(5))], Finding::Well);
    check(Protocol::Http1, &[(3, after(1)), (100, bytes(2)), (104, bytes(6))], Finding::SlowHead);
    // A frame of HTTP/2, or headers over several.
    let partly = |frames: u32| Counts { frames: frames << 2 | PARTIAL, ..open(after(1)) };
    check(Protocol::Http2, &[(3, open(after(1))), (50, partly(7)), (53, partly(7))], Finding::Well);
    check(Protocol::Http2, &[(3, open(after(1))), (50, partly(7)), (54, partly(7))], Finding::SlowHead);
    check(Protocol::Http2, &[(3, open(after(1))), (50, partly(7)), (54, partly(8))], Finding::Well);
    // A body of a request, whose pace is looked after elsewhere, and one of none.
    let body = Counts { frames: 7 << 2 | IN_BODY, ..open(after(1)) };
    check(Protocol::Http2, &[(3, body), (7, body)], Finding::SlowHead);
    let asked = Counts { ended: 0, ..body };
    check(Protocol::Http2, &[(3, asked), (7, asked)], Finding::Well);
    // The next one begins anew.
    check(Protocol::Http1, &[(3, bytes(2)), (6, Counts { reads: 9, ..after(2) })], Finding::Well);
}

#[test]
fn a_request_in_flight_may_take_its_time() {
    let busy = Counts { ended: 0, ..after(1) };
    check(Protocol::Http1, &[(3, busy), (5000, busy)], Finding::Well);
}

#[test]
fn who_takes_next_to_nothing_of_what_waits_is_lost() {
    let owing = |written| Counts { waiting: true, ended: 0, written, ..after(1) };
    check(Protocol::Http1, &[(1, owing(0)), (30, owing(4095))], Finding::Well);
    check(Protocol::Http1, &[(1, owing(0)), (31, owing(4095))], Finding::Lost);
    check(Protocol::Http1, &[(1, owing(0)), (30, owing(4096)), (59, owing(4096))], Finding::Well);
    let unsent = |written| Counts { unsent: 1, written, ..open(after(1)) };
    check(Protocol::Http2, &[(1, unsent(9)), (31, unsent(99))], Finding::Lost);
}

#[test]
fn idle_connections_end_and_so_do_old_ones() {
    check(Protocol::Http1, &[(2, after(1)), (901, after(1))], Finding::Well);
    check(Protocol::Http1, &[(2, after(1)), (902, after(1))], Finding::ShutDown);
    let begin = Instant::now();
    let aged = Times { age: Some(Duration::from_secs(100)), ..times() };
    let mut watch = Watch::new(aged, Protocol::Http1, begin);
    let busy = Counts { ended: 0, ..after(1) };
    assert_eq!(watch.look(begin + Duration::from_secs(89), busy), Finding::Well);
    let over = begin + Duration::from_secs(111);
    assert_eq!(watch.look(over, busy), Finding::ShutDown);
    watch.shut_down(over);
    // What is in flight ends it, and what has nothing to say then is not waited for.
    assert_eq!(watch.look(over + PING, busy), Finding::Well);
    assert_eq!(watch.look(over + PING + GOODBYE, after(1)), Finding::Well);
    assert_eq!(watch.look(over + PING + 2 * GOODBYE, after(1)), Finding::Lost);
}

#[test]
fn a_ping_that_is_not_answered_tells_a_client_that_has_gone() {
    let quiet = open(after(1));
    let answered = Counts { pongs: 1, reads: 2, ..quiet };
    check(Protocol::Http2, &[(2, quiet), (60, quiet)], Finding::Ping);
    check(Protocol::Http2, &[(60, quiet), (80, quiet)], Finding::Lost);
    check(Protocol::Http2, &[(60, quiet), (61, answered), (120, answered)], Finding::Well);
    check(Protocol::Http2, &[(60, quiet), (61, answered), (121, answered)], Finding::Ping);
    // A client that dribbles half a head answers no ping, and its bytes are no answer.
    check(Protocol::Http2, &[(60, quiet), (80, Counts { reads: 9, ..quiet })], Finding::Lost);
    // One that sends a long body does, later.
    let busy = |reads| Counts { reads, ended: 0, ..quiet };
    check(Protocol::Http2, &[(60, busy(1)), (80, busy(9))], Finding::Well);
    check(Protocol::Http2, &[(60, busy(1)), (80, busy(1))], Finding::Lost);
    check(Protocol::Http1, &[(60, after(1)), (300, after(1))], Finding::Well);
}

#[test]
fn a_connection_that_rests_is_rarely_looked_at() {
    let begin = Instant::now();
    let mut watch = Watch::new(times(), Protocol::Http2, begin);
    assert_eq!(watch.pause(begin), LOOK_MAX);
    watch.look(begin + LOOK_MAX, open(after(1)));
    assert_eq!(watch.pause(begin + LOOK_MAX), PING - LOOK_MAX);
}

#[test]
fn a_client_that_sends_no_more_is_waited_for_as_long_as_its_answer_may_take_it() {
    let asked = Counts { reads: 2, begun: 1, silent: true, ..Counts::default() };
    check(Protocol::Http1, &[(1, asked)], Finding::Well);
    check(Protocol::Http1, &[(1, asked), (2, asked)], Finding::Lost);
    let taking = Counts { waiting: true, ..asked };
    check(Protocol::Http1, &[(1, taking), (2, taking)], Finding::Well);
}

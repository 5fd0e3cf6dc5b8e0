"""Thousands of hostile requests on every port: each is answered or its connection closed, none is a fault of the
server's, and good requests are answered all the while.

The cases are those of the package `hostile`. A failure lists the cases; `hostile` makes the same bytes again.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

import metrics
from hostile import binary_bodies, changes, grpc_frames, http1, http1_bytes, http2, http2_frames, json_bodies, values
from server import StartedWeir

ROOT = Path(__file__).resolve().parents[2]

AT_ONCE = 32
# Changes of one model wait for each other.
CHANGES_AT_ONCE = 4
# After so many hostile requests a good one is asked.
GROUP = 40
SHOWN = 25
# The whole server, after bombs of 300 MiB and tens of thousands of frames.
RESIDENT_BYTES_MAX = 1500 << 20
# A client that has begun and sends nothing more is let go of within this; servers wait for some seconds at least.
STALLED_SECONDS_MAX = 40

# Loads give way to whatever else runs, and those of one model take turns.
CHANGE_SECONDS_MAX = 30


@pytest.fixture(scope="module")
def attacked():
    """Serves the bundled models to hostile clients alone."""
    # A client that stops in the middle of a frame is found out by a ping.
    with StartedWeir(ROOT / "models", "--log", "error", "--ping-seconds", "10") as weir:
        yield weir


@pytest.fixture(scope="module")
def attacked_fixtures():
    """Serves the tests' models, one of each data type."""
    with StartedWeir(ROOT / "tests" / "models", "--log", "error") as weir:
        yield weir


@pytest.fixture(scope="module")
def attacked_explicit(tmp_path_factory):
    """Serves a copy of the bundled models, and lets clients load."""
    copy = tmp_path_factory.mktemp("hostile") / "repository" / "models"
    shutil.copytree(ROOT / "models", copy)
    with StartedWeir(copy, "--log", "error", "--control", "explicit", "--load", "*") as weir:
        yield weir


# ── Sending, and judging what comes back ─────────────────────────────────────────────────────────────────────────────


def over_http(address, seconds=http1.ANSWER_SECONDS_MAX):
    return functools.partial(_http1, address, seconds)


def _http1(address, seconds, case):
    return http1.exchange(address, case.data, seconds)


def over_http2(address, seconds=http1.ANSWER_SECONDS_MAX):
    return functools.partial(_http2, address, seconds)


def _http2(address, seconds, case):
    return http2.talk(address, case.data, case.streams, seconds=seconds)


def ask_good(weir, model="simple"):
    """A good request over HTTP and one over gRPC are answered."""
    data = http1.GOOD if model == "simple" else GOOD_IDENTITY
    over = http1.exchange(weir.http, data)
    assert over.statuses == [200], f"a good request: {over}; {weir.last_words}"
    call = grpc_frames.GOOD if model == "simple" else GOOD_IDENTITY_CALL
    talk = http2.talk(weir.grpc, call)
    assert talk.codes == [0], f"a good call: {talk}; {weir.last_words}"


_ROW = b'{"inputs":[{"name":"INPUT0","datatype":"INT32","shape":[1,1],"data":[7]}]}'
GOOD_IDENTITY = http1.request(path="/v2/models/identity_int32/infer", body=_ROW)
_TENSOR = grpc_frames.input_tensor("INPUT0", "INT32", (1, 1))
GOOD_IDENTITY_CALL = grpc_frames.call(grpc_frames.message(grpc_frames.ask("identity_int32", (_TENSOR,), (bytes(4),))))


def attack(weir, cases: Iterable, send: Callable, model="simple", at_once=AT_ONCE):
    """Sends all cases, many at once, with good requests between; fails with a list of those that end badly."""
    lost, sent = [], 0
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for case, verdict in pool.map(lambda case: (case, send(case)), cases):
            if why := verdict.lost(case):
                lost.append(f"{case.name[:100]}: {why}; {verdict}")
            assert weir.running, f"the server ended at or after {case.name[:100]}: {weir.last_words}"
            sent += 1
            if sent % GROUP == 0:
                ask_good(weir, model)
    ask_good(weir, model)
    assert not lost, f"{len(lost)} of {sent} cases:\n" + "\n".join(line[:400] for line in lost[:SHOWN])


def infer_cases(bodies):
    """JSON bodies as requests; a `timeout` that passes is 504, as README.md says."""
    for name, model, body in bodies:
        promised = (504,) if "timeout" in name else ()
        yield http1.Case(name, http1.request(path=f"/v2/models/{model}/infer", body=body), promised)


# ── HTTP/1 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bytes_on_the_http_port_are_answered_or_refused(attacked):
    attack(attacked, http1_bytes.cases(), over_http(attacked.http))


def test_json_bodies_are_answered_or_refused(attacked):
    attack(attacked, infer_cases(json_bodies.bodies()), over_http(attacked.http))


def test_binary_and_packed_bodies_are_answered_or_refused(attacked):
    attack(attacked, binary_bodies.cases(), over_http(attacked.http))


def test_values_are_answered_or_refused_by_bundled_models(attacked):
    attack(attacked, values.bundled_cases(), over_http(attacked.http))


def test_values_are_answered_or_refused_by_every_data_type(attacked_fixtures):
    attack(attacked_fixtures, values.fixture_cases(), over_http(attacked_fixtures.http), "identity_int32")


# ── gRPC and HTTP/2 ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_are_answered_or_refused(attacked):
    attack(attacked, grpc_frames.cases(), over_http2(attacked.grpc))


def test_frames_on_the_http_port_end_in_an_answer_or_a_close(attacked):
    attack(attacked, http2_frames.cases(), over_http2(attacked.http))


def test_frames_on_the_grpc_port_end_in_an_answer_or_a_close(attacked):
    body = grpc_frames.message(grpc_frames.ask())
    attack(attacked, http2_frames.cases(grpc_frames.head(), body), over_http2(attacked.grpc))


# ── Ports that were meant for something else ─────────────────────────────────────────────────────────────────────────


def test_the_metrics_port_bears_both_kinds_of_http(attacked):
    page = (*http2.GET[:2], (":path", "/metrics"), http2.GET[3])
    attack(attacked, _some(http2_frames.cases(page), 5), over_http2(attacked.metrics))
    attack(attacked, _some(http1_bytes.cases(), 9), over_http(attacked.metrics))


def test_http1_on_the_grpc_port_is_closed(attacked):
    cases = (http2.Case(case.name, case.data, ()) for case in _some(http1_bytes.cases(), 7))
    attack(attacked, cases, over_http2(attacked.grpc))


def test_calls_on_the_http_port_are_refused(attacked):
    cases = (dataclasses.replace(case, streams=()) for case in _some(grpc_frames.cases(), 9))
    attack(attacked, cases, over_http2(attacked.http))


def _some(cases, each):
    """Every so-manieth case: another port answers in the same way."""
    return itertools.islice(cases, 0, None, each)


# ── Changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_changes_over_http_are_made_or_refused(attacked_explicit):
    attack(attacked_explicit, changes.http_cases(), over_http(attacked_explicit.http, CHANGE_SECONDS_MAX), at_once=CHANGES_AT_ONCE)
    assert_nothing_was_written_outside(attacked_explicit)


def test_changes_over_grpc_are_made_or_refused(attacked_explicit):
    attack(attacked_explicit, changes.grpc_cases(), over_http2(attacked_explicit.grpc, CHANGE_SECONDS_MAX), at_once=CHANGES_AT_ONCE)
    assert_nothing_was_written_outside(attacked_explicit)


def assert_nothing_was_written_outside(weir):
    """Files that clients send stay in the server's own folder: the repository and its surroundings are as they were."""
    here = sorted(str(path.relative_to(ROOT / "models")) for path in (ROOT / "models").rglob("*"))
    served = sorted(str(path.relative_to(weir.models)) for path in weir.models.rglob("*"))
    assert [path for path in served if path not in here] == []
    assert [path.name for path in weir.models.parent.iterdir()] == ["models"]
    assert not Path("/tmp/weir_hostile_x").exists()


# ── Clients that stop midway ─────────────────────────────────────────────────────────────────────────────────────────

HEAD = b"POST /v2/models/simple/infer HTTP/1.1\r\nHost: weir\r\n"
STALLED_HTTP = {
    "part of a line": b"GET /v2 HT",
    "part of the headers": b"GET /v2 HTTP/1.1\r\nHost: we",
    "part of a body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "no body": HEAD + b"Content-Length: 100\r\n\r\n",
    "part of a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "no last chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    "part of a preface": http2.PREFACE[:10],
}
STALLED_GRPC = {
    "part of a preface": http2.PREFACE[:10],
    "part of a frame": http2.HELLO + http2.frame(http2.HEADERS, 4, 1, bytes(40))[:20],
    "part of a message": http2.HELLO
    + http2.headers(1, *grpc_frames.head())
    + http2.frame(http2.DATA, 0, 1, grpc_frames.message(grpc_frames.ask())[:30]),
    "headers that never end": http2.HELLO + http2.frame(http2.HEADERS, 0, 1, http2.block(*grpc_frames.head())),
}


def test_a_client_that_stops_midway_is_let_go_of(attacked):
    """All at once; a stream that is answered counts, though its connection stays open for more."""
    stalls = [("HTTP " + name, attacked.http, data) for name, data in STALLED_HTTP.items()]
    stalls += [("gRPC " + name, attacked.grpc, data) for name, data in STALLED_GRPC.items()]
    still, threads = [], []
    for name, address, data in stalls:
        threads.append(threading.Thread(target=_stall, args=(name, address, data, still), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()
    ask_good(attacked)
    assert not still, f"after {STALLED_SECONDS_MAX} s: {still}"


def _stall(name, address, data, still):
    """Sends the bytes, then reads until the connection ends or something is said about the request."""
    deadline = time.monotonic() + STALLED_SECONDS_MAX
    talks_http2 = data.startswith(http2.PREFACE)
    with http1.connect(address) as stream:
        stream.sendall(data)
        heard, decoder, buffer = http2.Talk(), http2.hpack.Decoder(), b""
        while (left := deadline - time.monotonic()) > 0:
            stream.settimeout(left)
            try:
                piece = stream.recv(1 << 16)
            except ConnectionResetError:
                return
            except TimeoutError:
                break
            if not piece:
                return
            if talks_http2:
                buffer, _ = http2.read_frames(buffer + piece, decoder, heard)
                if heard.finished:
                    return
    still.append(name)


def test_a_client_that_shuts_its_side_is_answered(attacked):
    """Whole requests of all kinds, after which the client says at once that it sends no more."""
    cases = [case for case in _some(http1_bytes.cases(), 23) if http1.is_whole(case.data)]
    attack(attacked, cases, functools.partial(_shut, attacked.http))


def _shut(address, case):
    begun, received, ended = time.monotonic(), b"", "hangs"
    with http1.connect(address) as stream:
        try:
            stream.sendall(case.data)
            try:
                stream.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has hung up already; what it said can be read
            while piece := stream.recv(1 << 16):
                received += piece
            ended = "closed"
        except TimeoutError:
            pass
        except OSError:
            ended = "reset"
    statuses, body, _ = http1.answers_of(received)
    return http1.Verdict(statuses, body, ended, time.monotonic() - begun)


def test_a_deadline_ends_a_call_whose_message_never_comes(attacked):
    started = http2.HELLO + http2.headers(1, *grpc_frames.head(grpc_frames.INFER, ("grpc-timeout", "500m")))
    verdict = http2.talk(attacked.grpc, started + http2.frame(http2.DATA, 0, 1, bytes(5)[:3]), patience=4)
    assert verdict.ended in ("answered", "closed"), verdict
    assert verdict.codes in ([4], []), verdict


def test_many_idle_connections_keep_nobody_out(attacked):
    idle = [http1.connect(address) for address in (attacked.http, attacked.grpc, attacked.metrics) for _ in range(150)]
    try:
        ask_good(attacked)
    finally:
        for stream in idle:
            stream.close()


def test_a_client_that_reads_nothing_keeps_nobody_out(attacked):
    """A hundred answers wait for each of twenty clients that read none of them."""
    asked = http1.GOOD.replace(b"Connection: close\r\n", b"") * 100
    deaf = []
    for _ in range(20):
        stream = http1.connect(attacked.http)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.append(stream)
        stream.sendall(asked)
    try:
        ask_good(attacked)
    finally:
        for stream in deaf:
            stream.close()


# ── What remains ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("server", ["attacked", "attacked_fixtures", "attacked_explicit"])
def test_each_request_that_was_received_has_one_outcome(server, request):
    weir = request.getfixturevalue(server)

    def account():
        page = metrics.page(weir)
        names = ("weir_requests_received_total", "weir_requests_total")
        return [metrics.total(page, name) for name in names]

    def balanced():
        received, ended = account()
        return received == ended > 0

    assert metrics.eventually(balanced), account()


@pytest.mark.parametrize("server", ["attacked", "attacked_fixtures", "attacked_explicit"])
def test_the_server_lives_small_and_ends_when_told(server, request):
    weir = request.getfixturevalue(server)
    assert weir.running
    assert psutil.Process(weir.pid).memory_info().rss < RESIDENT_BYTES_MAX
    assert weir.stop() == 0, weir.last_words

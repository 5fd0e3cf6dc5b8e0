"""Two replicas behind real balancers with the files of `deploy/`: what restarts, falls over or is not ready costs
clients nothing, or only what was under way.

HAProxy and nginx come from the system, Envoy from requirements.txt. One that is not there is skipped, unless
WEIR_REQUIRE_BALANCERS is set.
"""

import collections
import contextlib
import os
import queue
import shutil
import signal
import threading
import time
from http.client import HTTPException
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

import metrics
import wire
import wire_grpc
from balancers import BALANCERS, NotHere, free_port
from server import StartedWeir
from stubs import Stub

ROOT = Path(__file__).resolve().parents[2]
# More than the checks of deploy/haproxy and deploy/envoy need to notice a drain (2 s), with room for a busy machine.
DRAIN_DELAY_SECONDS = 5
# For a replica to be back in use: nginx looks again after fail_timeout, 10 s.
IN_USE_SECONDS_MAX = 60
# Two of each kind over HTTP, four over gRPC.
CLIENTS = ["json", "json", "binary", "binary", "grpc", "grpc", "grpc", "grpc"]
PROTOCOLS = ("http", "grpc")


@pytest.fixture(params=BALANCERS)
def balancer(request):
    """The class of a balancer that is installed."""
    chosen = BALANCERS[request.param]
    try:
        chosen._program()
    except NotHere as missing:
        if os.environ.get("WEIR_REQUIRE_BALANCERS"):
            raise
        pytest.skip(str(missing))
    return chosen


@pytest.fixture
def models(tmp_path):
    """`slow`, which takes 30 ms for a call, so that there is always something under way; and one for large tensors."""
    folder = tmp_path / "models"
    for model in ("slow", "identity_fp32"):
        shutil.copytree(ROOT / "tests" / "models" / model, folder / model)
    return folder


class Replica:
    """A Weir that keeps its addresses when it is started anew."""

    def __init__(self, models, until_ready=True):
        self._models = models
        self.http, self.grpc, self.metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
        # What earlier lives answered, by protocol.
        self._before = collections.Counter()
        self.start(until_ready)

    def start(self, until_ready=True):
        addresses = (self.http, self.grpc, self.metrics)
        drain = ("--drain-delay-seconds", str(DRAIN_DELAY_SECONDS))
        self._weir = StartedWeir(self._models, *drain, at=addresses, until_ready=until_ready)

    def received(self):
        """Requests that this life was sent, by protocol."""
        page = metrics.page(self)
        return collections.Counter(
            {p: int(metrics.total(page, "weir_requests_received_total", protocol=p)) for p in PROTOCOLS}
        )

    def received_in_all(self):
        return self._before + self.received()

    def ask_to_end(self):
        os.kill(self._weir.pid, signal.SIGTERM)

    def until_ended(self):
        """Waits for the end after `ask_to_end`; gives the exit code."""
        last = collections.Counter()
        while self._weir.running:
            try:
                last = self.received()
            except (OSError, AssertionError):
                # The ports are closed: nothing can come any more.
                break
            time.sleep(0.05)
        self._before += last
        return self._weir.until_ended()

    def kill(self):
        """SIGKILL; back once nothing of it is left."""
        os.kill(self._weir.pid, signal.SIGKILL)
        self._weir.until_ended()

    def stop(self):
        if self._weir.running:
            self.kill()


@pytest.fixture
def replicas(models):
    started = []
    try:
        for _ in range(2):
            started.append(Replica(models))
        yield started
    finally:
        for replica in started:
            replica.stop()


Failure = collections.namedtuple("Failure", "way began ended error")


class OneGrpc(wire_grpc.Grpc):
    """A client with a connection of its own, which asks once: what a balancer loses is not made good in silence."""

    def __init__(self, weir):
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(weir.grpc, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)


WAYS = {"json": wire.JsonHttp, "binary": wire.BinaryHttp, "grpc": OneGrpc}


class Load:
    """Clients that each ask for one prediction after another, and check that it is their own, until the end of a `with`."""

    def __init__(self, server, ways=CLIENTS):
        self.answered = collections.Counter()
        self.failures = []
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._client, args=(server, way, number))
            for number, way in enumerate(ways)
        ]

    def _client(self, server, way, number):
        asked, n = WAYS[way](server), 0
        while not self._ended.is_set():
            n += 1
            feed = {"INPUT0": np.array([[number, n, -n, n / 2]], np.float32)}
            began = time.monotonic()
            try:
                answer = asked.infer("slow", feed)
                assert answer.keys() == {"OUTPUT0"} and np.array_equal(answer["OUTPUT0"], feed["INPUT0"]), answer
            except Exception as error:
                with self._lock:
                    self.failures.append(Failure(way, began, time.monotonic(), repr(error)))
                # What comes after it must not be taken for the answer to another request.
                asked.close()
                asked = WAYS[way](server)
                time.sleep(0.01)
            else:
                with self._lock:
                    self.answered["grpc" if way == "grpc" else "http"] += 1
        asked.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join(wire.SECONDS_MAX)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"


def until_in_use(started, replica):
    """Waits until a replica is sent requests over both protocols."""
    before = replica.received()

    def used():
        now = replica.received()
        return all(now[protocol] > before[protocol] for protocol in PROTOCOLS)

    assert metrics.eventually(used, IN_USE_SECONDS_MAX), f"{replica.received()}\n{started.last_words()}"


def until_known_ready(started, ready=(True, True)):
    """Waits until the balancer's checks say so of each replica."""
    reached = metrics.eventually(
        lambda: all(started.ready(i) is expected for i, expected in enumerate(ready)), IN_USE_SECONDS_MAX
    )
    assert reached, started.last_words()


def test_a_rolling_restart_fails_no_request(balancer, replicas):
    with balancer(replicas) as started:
        until_known_ready(started)
        with Load(started) as load:
            for replica in replicas:
                until_in_use(started, replica)
                replica.ask_to_end()
                assert replica.until_ended() == 0
                replica.start()
                until_in_use(started, replica)
            until_known_ready(started)
        # A balancer that does not ask sends gRPC calls to a replica that loads still; see deploy/nginx/nginx.conf.
        loading = [f for f in load.failures if f.way == "grpc" and "is not at ready state" in f.error]
        failures = [f for f in load.failures if balancer.asks or f not in loading]
        assert failures == [], started.last_words()
        assert all(load.answered[protocol] > 100 for protocol in PROTOCOLS), load.answered
        if balancer.asks:
            # Every request reached one replica, once. What nginx sent last to a replica that ends, nobody has read.
            assert replicas[0].received_in_all() + replicas[1].received_in_all() == load.answered


def test_a_draining_replica_is_sent_nothing_once_it_is_noticed(balancer, replicas):
    if not balancer.asks:
        pytest.skip("it has no active checks")
    with balancer(replicas) as started:
        until_known_ready(started)
        with Load(started) as load:
            until_in_use(started, replicas[0])
            replicas[0].ask_to_end()
            until_known_ready(started, (False, True))
            # What was on its way then has arrived.
            time.sleep(0.5)
            before = replicas[0].received()
            time.sleep(1)
            assert replicas[0].received() == before
            assert replicas[0].until_ended() == 0
        assert load.failures == [], started.last_words()


def test_a_replica_that_is_killed_fails_only_what_was_under_way(balancer, replicas):
    with balancer(replicas) as started:
        until_known_ready(started)
        with Load(started) as load:
            until_in_use(started, replicas[0])
            replicas[0].kill()
            # Its connections are closed; the balancer has had a moment to read so.
            gone = time.monotonic() + 1
            if balancer.asks:
                until_known_ready(started, (False, True))
            time.sleep(2)
            replicas[0].start()
            until_in_use(started, replicas[0])
        late = [failure for failure in load.failures if failure.began > gone]
        assert late == [], started.last_words()
        # A client has one request under way.
        assert len(load.failures) <= len(CLIENTS), load.failures


def test_a_replica_that_is_not_ready_is_not_used(balancer, models):
    loading = models.parent / "loading"
    shutil.copytree(models, loading)
    # 30 ms for each: the second replica loads for minutes, with its ports open, and is killed then.
    with open(loading / "slow" / "config.pbtxt", "a") as config:
        config.write(
            'model_warmup [ { name: "long" batch_size: 1 count: 10000 '
            'inputs { key: "INPUT0" value { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true } } } ]\n'
        )
    with contextlib.ExitStack() as stack:
        first = Replica(models)
        stack.callback(first.stop)
        second = Replica(loading, until_ready=False)
        stack.callback(second.stop)
        assert metrics.eventually(lambda: readiness(second) == 503, IN_USE_SECONDS_MAX)
        started = stack.enter_context(balancer([first, second]))
        if balancer.asks:
            until_known_ready(started, (True, False))
        # nginx reads no gRPC status: deploy/nginx/nginx.conf says so.
        ways = CLIENTS if balancer.asks else ["json", "binary"]
        with Load(started, ways) as load:
            time.sleep(3)
        assert load.failures == [], started.last_words()
        assert load.answered["http"] > 10
        assert readiness(second) == 503
        if balancer.asks:
            assert second.received().total() == 0


def readiness(replica):
    """The status that tells it, or None if nobody answers."""
    try:
        with wire.Http(replica.http) as http:
            return http.get("/v2/health/ready").status
    except OSError:
        return None


def one_after_another(server, way, requests):
    """The errors of so many requests, each None if it was answered."""
    asked, errors = WAYS[way](server), []
    for n in range(requests):
        feed = {"INPUT0": np.array([[n, 0, 0, 0]], np.float32)}
        try:
            assert np.array_equal(asked.infer("slow", feed)["OUTPUT0"], feed["INPUT0"])
            errors.append(None)
        except wire.Refused as refused:
            errors.append(refused)
        except (ValueError, AssertionError, OSError, HTTPException) as error:
            # A balancer says so in its own way: no JSON, or the end of the connection.
            errors.append(error)
            asked.close()
            asked = WAYS[way](server)
    asked.close()
    return errors


@pytest.mark.parametrize("way", ["json", "binary", "grpc"])
def test_what_a_replica_refuses_before_it_begins_goes_to_the_other(balancer, replicas, way):
    if way == "grpc" and not balancer.reads_grpc_status:
        pytest.skip("it reads no gRPC status")
    with Stub(hangs_up=False) as stub, balancer([stub, replicas[0]]) as started:
        until_known_ready(started)
        assert one_after_another(started, way, 20) == [None] * 20
        assert stub.asked["grpc" if way == "grpc" else "http"] > 0


def test_what_a_replica_may_have_begun_is_not_asked_again(balancer, replicas):
    if not balancer.asks:
        pytest.skip("predictions are asked again: deploy/nginx/nginx.conf says why")
    with Stub(hangs_up=True) as stub, balancer([stub, replicas[0]]) as started:
        until_known_ready(started)
        errors = one_after_another(started, "json", 20)
        failed = sum(error is not None for error in errors)
        assert failed == stub.asked["http"] > 0
        assert replicas[0].received()["http"] == len(errors) - failed


def test_weir_keeps_an_unused_connection_longer_than_balancers_do(replicas):
    # nginx and Envoy close theirs after 20 s; a request must not meet a connection that the replica is closing.
    with wire.Http(replicas[0].http) as http:
        assert http.get("/v2/health/live").status == 200
        unused = http._connection.sock
        unused.settimeout(22)
        with pytest.raises(TimeoutError):
            unused.recv(1)
        assert http.get("/v2/health/live").status == 200


@pytest.mark.parametrize("path", ["/control/v1/models", "/Control/v1/models"])
def test_the_control_api_is_not_reached_through_a_balancer(balancer, replicas, path):
    with balancer(replicas) as started:
        until_known_ready(started)
        with wire.Http(started.http) as http:
            assert http.get(path).status == 404
            assert http.get("/v2/health/ready").status == 200
        with wire_grpc.channel_to(started) as channel:
            call = channel.unary_unary("/weir.control.v1.Control/ListModels")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=wire.SECONDS_MAX)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("way", ["json", "binary", "grpc"])
def test_a_request_far_above_every_buffer_passes_both_ways(balancer, replicas, way):
    feed = {"INPUT0": np.arange(2 << 20, dtype=np.float32).reshape(1, -1)}
    with balancer(replicas) as started:
        until_known_ready(started)
        asked = wire_grpc.WAYS[way](started)
        try:
            assert np.array_equal(asked.infer("identity_fp32", feed)["OUTPUT0"], feed["INPUT0"])
        finally:
            asked.close()


def test_a_stream_of_requests_is_answered_message_by_message(balancer, replicas):
    feed = {"INPUT0": np.array([[1, 2, 3, 4]], np.float32)}
    with balancer(replicas) as started:
        until_known_ready(started)
        with wire_grpc.channel_to(started) as channel:
            sent = queue.Queue()
            answers = wire_grpc.stub_on(channel).ModelStreamInfer(iter(sent.get, None), timeout=wire.SECONDS_MAX)
            # The next request is sent when the one before is answered: nothing may wait for the end of the stream.
            for n in range(3):
                sent.put(wire_grpc.request_of("slow", feed, id=str(n)))
                answer = next(answers)
                assert not answer.error_message and answer.infer_response.id == str(n)
            sent.put(None)
            assert list(answers) == []


def test_a_body_above_the_limit_is_refused_and_one_below_it_passes(balancer, replicas):
    # A length alone: nobody sends a quarter of a gigabyte here.
    with balancer(replicas) as started:
        until_known_ready(started)
        for length, statuses in ((268435456 + 1, {413}), (64, {400})):
            with wire.Http(started.http) as http:
                connection = http._connection
                connection.putrequest("POST", "/v2/models/slow/infer")
                connection.putheader("Content-Length", str(length))
                connection.endheaders(b" " * 64)
                assert connection.getresponse().status in statuses

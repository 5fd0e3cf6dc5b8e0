"""TLS on the ports: real clients over it, certificates that are renewed, and clients that do not speak it well."""

import concurrent.futures
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

import metrics
import samples
import wire
import wire_grpc
from certificates import Authority
from reference import assert_same
from server import NotStarted, StartedWeir, binary
from triton import TritonGrpc, TritonHttp
from wire import SECONDS_MAX

MODELS = Path(__file__).resolve().parents[2] / "models"
FIXTURES = Path(__file__).resolve().parents[1] / "models"
SIMPLE = "/v2/models/simple/infer"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def shown(authority):
    """The files of the server's certificate and key."""
    return authority.sign("server")


@pytest.fixture(scope="module")
def secure(shown):
    """Serves the bundled models over TLS."""
    with StartedWeir(MODELS, *behind(*shown), "--header-seconds", "1") as weir:
        yield weir


def behind(certificate, key, *more):
    """Flags for TLS."""
    return "--tls-certificate", str(certificate), "--tls-key", str(key), *more


def trusting(authority, own=None, protocols=(), version=None):
    """What a client trusts, and the certificate of its own that it shows."""
    context = ssl.create_default_context(cafile=authority.file)
    if own:
        context.load_cert_chain(*own)
    if protocols:
        context.set_alpn_protocols(protocols)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def connected(address, context):
    host, port = address.split(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), SECONDS_MAX), server_hostname=host)


def https(weir, context):
    return http.client.HTTPSConnection(weir.http, timeout=SECONDS_MAX, context=context)


def ask(connection, method="GET", path="/v2/health/ready", body=None):
    connection.request(method, path, body)
    return wire.Answer(connection.getresponse())


def good(weir, authority, own=None):
    """Holds that a good request on a new connection is answered."""
    connection = https(weir, trusting(authority, own))
    feed = samples.simple(1)
    answer = ask(connection, "POST", SIMPLE, json.dumps(wire.json_request(feed)))
    assert answer.status == 200, answer.body
    assert_same(wire.read_infer(answer)[1]["OUTPUT0"], feed["INPUT0"] + feed["INPUT1"])
    connection.close()


def shown_by(address, authority):
    """The serial number of the certificate that the server shows now."""
    with connected(address, trusting(authority)) as stream:
        return stream.getpeercert()["serialNumber"]


def grpc_channel(weir, authority, own=None):
    certificate, key = (path.read_bytes() for path in own) if own else (None, None)
    trust = grpc.ssl_channel_credentials(authority.file.read_bytes(), key, certificate)
    return grpc.secure_channel(weir.grpc, trust)


# ── Real clients ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_http_client_is_answered_on_one_connection_as_often_as_it_asks(secure, authority, version):
    connection = https(secure, trusting(authority, version=version))
    for seed in range(20):
        feed = samples.simple(3, seed=seed)
        answer = ask(connection, "POST", SIMPLE, json.dumps(wire.json_request(feed)))
        assert_same(wire.read_infer(answer)[1]["OUTPUT1"], feed["INPUT0"] - feed["INPUT1"])
    connection.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_older_versions_of_tls_are_not_spoken(secure, authority):
    context = trusting(authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        connected(secure.http, context)
    good(secure, authority)


@pytest.mark.parametrize(
    "port, offered, chosen",
    [
        ("http", ["h2", "http/1.1"], "h2"),
        ("http", ["http/1.1"], "http/1.1"),
        ("http", [], None),
        ("grpc", ["h2"], "h2"),
        ("grpc", [], None),
    ],
)
def test_the_protocol_is_agreed_on(secure, authority, port, offered, chosen):
    with connected(getattr(secure, port), trusting(authority, protocols=offered)) as stream:
        assert stream.selected_alpn_protocol() == chosen


def test_a_protocol_that_a_port_does_not_speak_is_refused(secure, authority):
    for port, protocol in [("http", "http/3"), ("grpc", "http/1.1")]:
        with pytest.raises(ssl.SSLError):
            connected(getattr(secure, port), trusting(authority, protocols=[protocol]))


def test_a_grpc_client_is_answered(secure, authority):
    with grpc_channel(secure, authority) as channel:
        stub, feed = wire_grpc.stub_on(channel), samples.simple(5)
        outputs = wire_grpc.read_infer(stub.ModelInfer(wire_grpc.request_of("simple", feed), timeout=SECONDS_MAX))
        assert_same(outputs["OUTPUT0"], feed["INPUT0"] + feed["INPUT1"])
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS_MAX)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("adapter", [TritonHttp, TritonGrpc])
def test_tritons_clients_are_answered(secure, authority, adapter):
    options = {
        TritonHttp: {"ssl": True, "ssl_options": {"ca_certs": str(authority.file)}},
        TritonGrpc: {"ssl": True, "root_certificates": str(authority.file)},
    }[adapter]
    client, feed = adapter(secure, **options), samples.simple(4)
    try:
        assert_same(client.infer("simple", feed).as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])
        with pytest.raises(InferenceServerException):
            client.infer("nowhere", feed)
    finally:
        client.close()


def test_large_tensors_go_both_ways(shown, authority):
    with StartedWeir(FIXTURES, *behind(*shown)) as weir:
        feed = {"INPUT0": samples.numbers("FP32", (8, 1 << 18))}
        connection = https(weir, trusting(authority))
        body, headers = wire.binary_request(feed)
        connection.request("POST", "/v2/models/identity_fp32/infer", body, headers)
        _, outputs = wire.read_infer(wire.Answer(connection.getresponse()))
        assert_same(outputs["OUTPUT0"], feed["INPUT0"])
        connection.close()


def test_the_metrics_stay_in_the_clear_and_tell_when_the_certificate_ends(secure):
    name = "weir_tls_certificate_expiry_timestamp_seconds"
    left = metrics.total(metrics.page(secure), name) - time.time()
    assert 89 * 86400 < left < 91 * 86400


def test_a_control_port_of_its_own_is_behind_tls_too(shown, authority):
    with StartedWeir(MODELS, *behind(*shown), "--control", "127.0.0.1:0") as weir:
        connection = http.client.HTTPSConnection(weir.control, timeout=SECONDS_MAX, context=trusting(authority))
        assert ask(connection, path="/control/v1/models").status == 200
        connection.close()


# ── Certificates of clients ──────────────────────────────────────────────────────────────────────────────────────────


def test_clients_must_show_a_certificate_where_that_is_asked(shown, authority, tmp_path):
    stranger = Authority(tmp_path, "stranger").sign("client")
    own = authority.sign("client")
    with StartedWeir(MODELS, *behind(*shown, "--tls-client-ca", str(authority.file))) as weir:
        for wrong in (None, stranger):
            with pytest.raises((ssl.SSLError, OSError, http.client.RemoteDisconnected)):
                ask(https(weir, trusting(authority, wrong)))
            with grpc_channel(weir, authority, wrong) as channel, pytest.raises(grpc.RpcError) as refused:
                wire_grpc.stub_on(channel).ModelInfer(wire_grpc.request_of("simple", samples.simple(1)), timeout=5)
            assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            good(weir, authority, own)
        with grpc_channel(weir, authority, own) as channel:
            request = wire_grpc.request_of("simple", samples.simple(1))
            wire_grpc.stub_on(channel).ModelInfer(request, timeout=SECONDS_MAX)


# ── Renewal ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def hang_up(weir, words):
    """Sends SIGHUP and waits until the log says so."""
    before = weir.log.count(words)
    os.kill(weir.pid, signal.SIGHUP)
    assert metrics.eventually(lambda: weir.log.count(words) > before), weir.last_words


def test_a_signal_renews_the_certificate_and_open_connections_go_on(authority, tmp_path):
    files = [tmp_path / "c.pem", tmp_path / "k.pem"]

    def place(name, days=90):
        for source, target in zip(authority.sign(name, days), files):
            shutil.copy(source, target)

    place("first")
    with StartedWeir(MODELS, *behind(*files)) as weir:
        connection = https(weir, trusting(authority))
        assert ask(connection).status == 200
        with grpc_channel(weir, authority) as channel:
            stub = wire_grpc.stub_on(channel)
            stub.ServerLive(wire_grpc.service_pb2.ServerLiveRequest(), timeout=SECONDS_MAX)
            first = shown_by(weir.http, authority)
            assert shown_by(weir.grpc, authority) == first

            # The same files: nothing new.
            hang_up(weir, "read the settings again")
            assert shown_by(weir.http, authority) == first and "and the TLS files" not in weir.log

            place("second", days=3)
            assert shown_by(weir.http, authority) == first
            hang_up(weir, "and the TLS files")
            second = shown_by(weir.http, authority)
            assert second != first and shown_by(weir.grpc, authority) == second
            assert "c.pem ends in 7" in weir.log
            left = metrics.total(metrics.page(weir), "weir_tls_certificate_expiry_timestamp_seconds") - time.time()
            assert 2 * 86400 < left < 4 * 86400

            # A key that is another certificate's, then no certificate at all: what is in force stays.
            shutil.copy(authority.sign("third")[0], files[0])
            hang_up(weir, "the settings stay as they are: tls_key = ")
            files[0].write_text("nothing")
            hang_up(weir, "holds no certificate in PEM")
            files[0].unlink()
            hang_up(weir, "cannot be read")
            assert shown_by(weir.http, authority) == second

            # Whoever was connected all the while noticed nothing.
            assert ask(connection).status == 200
            stub.ServerLive(wire_grpc.service_pb2.ServerLiveRequest(), timeout=SECONDS_MAX)
        connection.close()
        assert "BEGIN" not in weir.log


def test_a_signal_reads_the_settings_again(authority, tmp_path):
    one, other = authority.sign("one"), authority.sign("other")
    config = tmp_path / "weir.toml"

    def configure(files, **more):
        keys = {"tls_certificate": str(files[0]), "tls_key": str(files[1]), **more}
        config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))

    configure(one)
    with StartedWeir(MODELS, "--config", str(config)) as weir:
        first = shown_by(weir.http, authority)
        configure(other, log="debug", drain_seconds=7, max_streams=9)
        hang_up(weir, "read the settings again")
        assert shown_by(weir.http, authority) != first
        assert "drain_seconds, log, tls_certificate, tls_key changed, and the TLS files" in weir.log
        assert "these take effect when the server is started again: max_streams" in weir.log

        # The log tells of more now.
        with socket.create_connection(weir.http.split(":")) as stream:
            stream.sendall(b"nonsense")
        assert metrics.eventually(lambda: "DEBUG" in weir.log), weir.last_words

        # Nothing of settings that are wrong takes effect.
        configure(one, log="info=loud")
        hang_up(weir, "the settings stay as they are: log = ")
        config.write_text("nonsense")
        hang_up(weir, "the settings stay as they are: the config file")
        config.write_text("")
        hang_up(weir, "started again: tls_certificate, tls_key")
        good(weir, authority)
        assert shown_by(weir.http, authority) != first


# ── Clients that do not speak it, or not well ────────────────────────────────────────────────────────────────────────


def test_a_request_in_the_clear_is_told_so(secure, authority):
    for port in (secure.http, secure.grpc):
        with wire.Http(port) as client:
            answer = client.get("/v2/health/ready")
        assert (answer.status, answer.error) == (400, "this port speaks TLS alone: use https, or grpcs")
    with grpc.insecure_channel(secure.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        wire_grpc.stub_on(channel).ServerLive(wire_grpc.service_pb2.ServerLiveRequest(), timeout=5)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    good(secure, authority)


def client_hello(authority):
    """What a client sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    begun = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        begun.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("port", ["http", "grpc"])
@pytest.mark.parametrize(
    "beginning",
    ["nothing", "record", "half", "huge", "garbage", "alert", "version", "split", "twice"],
)
def test_a_handshake_that_does_not_come_or_makes_no_sense_ends(secure, authority, port, beginning):
    hello = client_hello(authority)
    sent = {
        "nothing": b"",
        "record": hello[:5],
        "half": hello[: len(hello) // 2],
        # A record that is longer than any may be, and a message that is longer than any is taken.
        "huge": b"\x16\x03\x01\xff\xff" + bytes(0xFFFF),
        "garbage": b"\x16\x03\x01\x00\x80" + bytes(range(128)),
        "alert": b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + b"\x15\x03\x03\x00\x02\x02\x28",
        "version": b"\x16\x00\x00" + hello[3:],
        "split": b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(5, 40)),
        "twice": hello + hello,
    }[beginning]
    began = time.monotonic()
    with socket.create_connection(getattr(secure, port).split(":"), SECONDS_MAX) as stream:
        try:
            stream.sendall(sent)
            # Its side of the handshake, an alert, or nothing; then the end.
            while stream.recv(65536):
                pass
        except ConnectionError:
            pass
    assert time.monotonic() - began < 5
    good(secure, authority)


def test_records_without_end_that_make_no_sense_harm_nobody(secure, authority):
    # On an open connection: empty ones, alerts and changes of cipher in the clear.
    for record in (b"\x17\x03\x03\x00\x00", b"\x15\x03\x03\x00\x02\x01\x00", b"\x14\x03\x03\x00\x01\x01"):
        stream = connected(secure.http, trusting(authority))
        raw = socket.socket(fileno=stream.detach())
        raw.settimeout(SECONDS_MAX)
        try:
            raw.sendall(record * 10_000)
            while raw.recv(65536):
                pass
        except ConnectionError:
            pass
        raw.close()
        good(secure, authority)


def open_connections(weir, port):
    return metrics.total(metrics.page(weir), "weir_connections", port=port)


def test_clients_that_take_no_answer_are_hung_up_on(shown, authority):
    """What lies between must not hide that nobody takes what was written."""
    limits = ("--write-seconds", "1", "--idle-seconds", "300")
    with StartedWeir(FIXTURES, *behind(*shown, *limits)) as weir:
        feed = {"INPUT0": samples.numbers("FP32", (8, 1 << 16))}
        body, headers = wire.binary_request(feed)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /v2/models/identity_fp32/infer HTTP/1.1\r\nhost: w\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        stream = connected(weir.http, trusting(authority))
        stream.settimeout(SECONDS_MAX)

        def push():
            try:
                for _ in range(40):
                    stream.sendall(head.encode() + body)
            except OSError:
                pass

        pushing = threading.Thread(target=push)
        pushing.start()
        assert metrics.eventually(lambda: open_connections(weir, "http") == 1)
        assert metrics.eventually(lambda: open_connections(weir, "http") == 0, 20)
        stream.close()
        pushing.join()


def test_a_drain_loses_no_request_and_ends_the_handshakes_that_never_come(shown, authority):
    with StartedWeir(FIXTURES, *behind(*shown)) as weir:
        silent = [socket.create_connection(weir.http.split(":")) for _ in range(5)]
        silent[0].sendall(client_hello(authority)[:20])
        # Round trips of the session ticket and all: these are open before the signal.
        connections = [https(weir, trusting(authority)) for _ in range(8)]
        for connection in connections:
            assert ask(connection).status == 200
        body = json.dumps(wire.json_request(samples.rows_of_four(1)))

        def slow(connection):
            return ask(connection, "POST", "/v2/models/slow/infer", body).status

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(slow, connection) for connection in connections]
            inside = lambda: metrics.total(metrics.page(weir), "weir_requests_in_flight") == 8
            metrics.eventually(inside, 1)
            began = time.monotonic()
            assert weir.stop() == 0
            assert time.monotonic() - began < 15
            assert [answer.result() for answer in answers] == [200] * 8
        for stream in silent:
            stream.close()


# ── What is wrong at the start, and the command line's own client ────────────────────────────────────────────────────


def test_files_that_cannot_be_used_are_named_at_the_start(shown, authority, tmp_path):
    certificate, key = shown
    other_key = authority.sign("other")[1]
    empty, locked = tmp_path / "empty", tmp_path / "locked.key"
    empty.touch()
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    os.mkfifo(pipe := tmp_path / "pipe")
    missing = tmp_path / "missing"
    for flags, words in [
        (("--tls-certificate", certificate), "needs its private key: set tls_key too"),
        (("--tls-key", key), "set tls_certificate too"),
        (("--tls-client-ca", certificate), "goes with TLS"),
        (behind(missing, key), f"tls_certificate = '{missing}' cannot be read"),
        (behind(empty, key), f"tls_certificate = '{empty}' holds no certificate in PEM"),
        (behind(pipe, key), f"tls_certificate = '{pipe}' is no file"),
        (behind(tmp_path, key), f"tls_certificate = '{tmp_path}' is no file"),
        (behind(certificate, certificate), f"tls_key = '{certificate}' holds no private key"),
        (behind(certificate, locked), f"tls_key = '{locked}' holds no private key in PEM without a password"),
        (behind(certificate, other_key), f"tls_key = '{other_key}' does not go with tls_certificate"),
        (behind(certificate, key, "--tls-client-ca", empty), f"tls_client_ca = '{empty}' holds no certificate"),
    ]:
        with pytest.raises(NotStarted, match="exit code 1") as failed:
            StartedWeir(MODELS, *map(str, flags))
        assert words in str(failed.value), failed.value
        checked = subprocess.run(
            [binary(), "check-config", "--models", str(MODELS), *map(str, flags)], capture_output=True, text=True
        )
        assert checked.returncode == 1 and words in checked.stderr, checked
    with StartedWeir(MODELS, *behind(*authority.sign("ended", days=-1))) as weir:
        assert "has ended: clients will not trust it" in weir.log


def weir_cli(*arguments):
    ended = subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS_MAX)
    return ended.returncode, ended.stdout, ended.stderr


def test_the_command_line_asks_servers_behind_tls(shown, authority, tmp_path):
    own = authority.sign("client")
    with StartedWeir(MODELS, *behind(*shown, "--tls-client-ca", str(authority.file))) as weir:
        url = f"https://{weir.http}"
        shows = ("--client-certificate", own[0], "--client-key", own[1])
        code, out, errors = weir_cli("status", "--server", url, "--ca", authority.file, *shows)
        assert code == 0 and "digits" in out, errors
        for flags, words in [
            ((), "there is no TLS with"),
            (("--ca", Authority(tmp_path).file, *shows), "there is no TLS with"),
            (("--ca", authority.file), "CertificateRequired"),
            (("--ca", authority.file, *shows[:2]), "--client-certificate and --client-key go together"),
            (("--ca", tmp_path / "missing"), "missing"),
        ]:
            code, _, errors = weir_cli("status", "--server", url, *flags)
            assert code == 1 and words in errors, (flags, errors)
        code, _, errors = weir_cli("status", "--server", f"http://{weir.http}")
        assert code == 1 and "this port speaks TLS alone" in errors
        code, _, errors = weir_cli("status", "--server", f"https://{weir.metrics}", "--ca", authority.file)
        assert code == 1 and "there is no TLS with" in errors
        code, _, errors = weir_cli("bench", "simple", "--server", url)
        assert code == 1 and "in the clear" in errors

"""Hundreds of hostile model folders: each is unavailable with a reason or served and harmless, whatever they hold, and
a good model beside them is answered all the while.

The folders are those of the package `hostile`, written here before the server starts. A failure lists the folders.
"""

import concurrent.futures
import functools
import http.client
import itertools
import json
import re
import resource
import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest

import metrics
import wire
from hostile import configs, damaged, edges, external, growing, hazards, operators, places
from server import StartedWeir

ROOT = Path(__file__).resolve().parents[2]
GOOD = "a_good_one"
GOOD_FEED = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
MIB = 1 << 20

# Small limits, so that what runs into them does so soon.
LIMITS = (
    f"--load-threads 4 --load-seconds-max 2 --load-memory-bytes {512 * MIB} --worker-memory-bytes {1024 * MIB}"
    f" --max-model-bytes {1024 * MIB} --session-seconds-max 2"
).split()
# What the server itself may take, workers apart: models are held to less.
RESIDENT_BYTES_MAX = 1500 * MIB
# Far above what a good server asks for, reserved addresses included.
ADDRESSES_MAX = 16 << 30
# An answer of the model's, and one of the good model's while the processors are busy with others.
ANSWER_SECONDS_MAX = 10
LOAD_SECONDS_MAX = 120
REASON_CHARACTERS_MAX = 2000
AT_ONCE = 4
SHOWN = 25
# Every so-manieth folder is also loaded by a client: the code is that of the start, apart from who asks.
EXPLICIT_EACH = 5

KINDS = {
    "damaged": functools.partial(damaged.models, (ROOT / "models" / "digits" / "2" / "model.onnx").read_bytes()),
    "growing": growing.models,
    "hazards": hazards.models,
    "operators": operators.models,
    "edges": edges.models,
    "external": external.models,
    "configs": configs.models,
    "places": places.models,
}

# What a path of this machine begins with; a model's own file names have no such beginning.
_PATH = re.compile(r"(?<![\w.])/(?:tmp|root|home|proc|dev|etc|usr|var|opt|mnt|run|srv)\b[\w./-]*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module", autouse=True)
def bounded():
    """Servers started here inherit a limit, so that one that fails a test takes no other process along."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    soft = ADDRESSES_MAX if before[1] == resource.RLIM_INFINITY else min(ADDRESSES_MAX, before[1])
    resource.setrlimit(resource.RLIMIT_AS, (soft, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def written(models, repository):
    """A repository of these folders and a good model; gives them by name."""
    repository.mkdir()
    shutil.copytree(ROOT / "tests" / "models_broken" / "ok", repository / GOOD)
    named = {}
    for model in models:
        assert model.name not in named, f"{model.name} twice"
        model.write(repository)
        named[model.name] = model
    return named


def faults_of_reason(reason, model):
    """What is wrong with a reason that a client is given, or nothing. A path that the model's own files say is none of
    this machine's: it may be quoted."""
    if not reason.strip():
        yield "no reason"
    own = (model.onnx or b"") + (model.config or b"")
    for match in _PATH.finditer(reason):
        if match[0].encode() not in own:
            yield f"a path in the reason: {reason[max(0, match.start() - 40) : match.end() + 60]!r}"
    if _CONTROL.search(reason):
        yield f"control characters in the reason: {reason[:160]!r}"
    if len(reason) > REASON_CHARACTERS_MAX:
        yield f"a reason of {len(reason)} characters"


class Asked:
    """An answer to one request, or what came instead."""

    def __init__(self, weir, method, path, body, seconds=ANSWER_SECONDS_MAX):
        self.status, self.body = None, b""
        connection = http.client.HTTPConnection(weir.http, timeout=seconds)
        try:
            connection.request(method, path, json.dumps(body))
            answer = connection.getresponse()
            self.status, self.body = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.body = repr(error).encode()
        finally:
            connection.close()

    def fault(self, model):
        """Why this is no end for a request to this hostile model, or None."""
        if self.status is None:
            return f"not answered: {self.body.decode()}"
        if self.status >= 500:
            return f"{self.status}: {self.body[:200]!r}"
        if self.status >= 400:
            return next(faults_of_reason(json.loads(self.body)["error"], model), None)
        return None


def ask_model(weir, name, body):
    return Asked(weir, "POST", wire.model_path(name, last="infer"), body)


def assert_good(weir):
    answer = ask_model(weir, GOOD, GOOD_FEED)
    assert answer.status == 200, f"the good model: {answer.status} {answer.body[:200]!r}; {weir.last_words}"
    assert json.loads(answer.body)["outputs"][0]["data"] == [1, 2, 3, 4]


def faults_of_answers(weir, models):
    """Asks each model what it should be asked, some at once; gives a line for each bad end."""
    asks = [(model, body) for model in models for body in model.asks]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda ask: ask_model(weir, ask[0].name, ask[1]), asks)
        for (model, body), answer in zip(asks, answers, strict=True):
            assert weir.running, f"the server ended at or after {model.name}: {weir.last_words}"
            if fault := answer.fault(model):
                yield f"{model.name}: {fault} to {json.dumps(body)[:160]}"


def index_of(weir):
    with wire.Http(weir.http) as connection:
        return connection.post("/v2/repository/index").json()


def assert_lives_small(weir):
    """The server's own peak, and the account of all requests."""
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{weir.pid}/status").read_text())[1]) << 10
    assert peak < RESIDENT_BYTES_MAX, f"{peak >> 20} MiB at the most"

    def balanced():
        page = metrics.page(weir)
        return metrics.total(page, "weir_requests_received_total") == metrics.total(page, "weir_requests_total")

    assert metrics.eventually(balanced)


def assert_none(faults):
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(fault[:500] for fault in faults[:SHOWN])


# ── All at the start ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_of_hostile_models_is_served(kind, tmp_path):
    models = written(KINDS[kind](), tmp_path / "repository")
    with StartedWeir(tmp_path / "repository", "--log", "error", *LIMITS) as weir:
        assert_good(weir)
        faults, ready = [], []
        for row in index_of(weir):
            if row["name"] not in models:
                continue
            if row["state"] == "READY":
                ready.append(models[row["name"]])
            else:
                faults += [f"{row['name']}: {fault}" for fault in faults_of_reason(row["reason"], models[row["name"]])]
        assert len(ready) < len(models), "none was refused"
        faults += faults_of_answers(weir, ready)
        assert_good(weir)
        assert_none(faults)
        assert_lives_small(weir)
        children = psutil.Process(weir.pid).children()
        assert weir.stop() == 0, weir.last_words
        assert not psutil.wait_procs(children, 10)[1], "workers outlive the server"


def test_what_should_be_served_is_served(tmp_path):
    """The generator's own check: its good folders are good, so the bad ones are bad for the reason that they name."""
    wanted = {
        "data_good",
        "config_good",
        "run_ml_trees_good",
        "run_ml_classifier_good",
        "run_ml_linear_good",
        "run_ml_machine_good",
        "run_gather",
        "run_div_int32",
        "run_loop_count_of_request",
        "functions_chain_of_100",
        "branches_10_deep",
        "run_grams_good",
        "run_ms_mat_mul_4_bits_good",
        "data_dots",
        "loop_negative_times",
    }
    models = written((m for kind in KINDS.values() for m in kind() if m.name in wanted), tmp_path / "repository")
    assert set(models) == wanted
    with StartedWeir(tmp_path / "repository", "--log", "error", *LIMITS) as weir:
        refused = [f"{row['name']}: {row['reason']}" for row in index_of(weir) if row["state"] != "READY"]
        assert_none(refused)


# ── One by one, by a client ──────────────────────────────────────────────────────────────────────────────────────────


def test_hostile_models_are_loaded_or_refused_one_by_one(tmp_path):
    every = itertools.chain.from_iterable(kind() for kind in KINDS.values())
    models = written(itertools.islice(every, 2, None, EXPLICIT_EACH), tmp_path / "repository")
    arguments = ["--log", "error", "--control", "explicit", "--load", GOOD, *LIMITS]
    with StartedWeir(tmp_path / "repository", *arguments) as weir, GoodAsker(weir) as asker:
        faults = []
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(functools.partial(_faults_of_one, weir), models.values()):
                faults += found
                assert weir.running, f"the server ended: {weir.last_words}"
        assert_none(faults)
        assert asker.faults == []
        assert_lives_small(weir)


def _faults_of_one(weir, model):
    """Loads a model, asks it, and unloads it."""
    path = f"/v2/repository/models/{model.name}"
    loaded = Asked(weir, "POST", f"{path}/load", {}, LOAD_SECONDS_MAX)
    if fault := loaded.fault(model):
        return [f"{model.name}, load: {fault}"]
    if loaded.status != 200:
        return []
    answers = [ask_model(weir, model.name, body) for body in model.asks]
    faults = [f"{model.name}: {fault}" for answer in answers if (fault := answer.fault(model))]
    if (unloaded := Asked(weir, "POST", f"{path}/unload", {}, LOAD_SECONDS_MAX)).status != 200:
        faults.append(f"{model.name}, unload: {unloaded.status} {unloaded.body[:200]!r}")
    return faults


class GoodAsker:
    """Asks the good model all the time, and keeps what went wrong."""

    PAUSE_SECONDS = 0.1

    def __init__(self, weir):
        self.faults, self._weir, self._done = [], weir, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        while not self._done.is_set():
            begun = time.monotonic()
            answer = ask_model(self._weir, GOOD, GOOD_FEED)
            if answer.status != 200:
                self.faults.append(f"{answer.status} {answer.body[:200]!r} after {time.monotonic() - begun:.1f} s")
            self._done.wait(self.PAUSE_SECONDS)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

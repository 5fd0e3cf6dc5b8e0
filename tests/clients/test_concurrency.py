"""Many clients at once get what one client alone would have got, and batches are formed where they may be."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import samples
import wire
from metrics import histogram, page
from reference import FLOATS, assert_same, datatype

CLIENTS = 32


def at_once(weir, way, requests):
    """Sends each (model, feed, version) from a client of its own, all released together; gives their outputs."""
    barrier = threading.Barrier(len(requests))

    def one(request):
        asked = way(weir)
        try:
            barrier.wait()
            return asked.infer(*request)
        finally:
            asked.close()

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(one, requests))


def assert_close(got, expected, name):
    """Equal, but for what another batch size may do to the last digits of a float."""
    if datatype(expected) in FLOATS:
        assert got.shape == expected.shape and got.dtype == expected.dtype, name
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7, err_msg=name)
    else:
        assert_same(got, expected, name)


@pytest.mark.parametrize("model", samples.BUNDLED)
def test_each_of_many_clients_gets_its_own_answer(weir, way, model):
    with wire.Http(weir.http) as http:
        metadata = http.get(wire.model_path(model)).json()
    rows = [1 + i % 4 for i in range(CLIENTS)]
    feeds = [samples.BUNDLED[model](n, i) for i, n in enumerate(rows)]
    answers = at_once(weir, way, [(model, feed) for feed in feeds])
    for feed, answer in zip(feeds, answers):
        expected = samples.as_served(samples.direct(weir, model, feed), metadata)
        assert answer.keys() == expected.keys()
        for name, array in expected.items():
            assert_close(answer[name], array, name)


def test_versions_are_not_mixed_within_a_batch(weir, way):
    versions = [1 + i % 3 for i in range(CLIENTS)]
    feeds = [samples.digits(1, seed=i) for i in range(CLIENTS)]
    answers = at_once(weir, way, [("digits", feed, v) for feed, v in zip(feeds, versions)])
    for feed, version, answer in zip(feeds, versions, answers):
        expected = samples.direct(weir, "digits", feed, version)["probabilities"]
        assert_close(answer["probabilities"], expected, f"version {version}")


@pytest.mark.parametrize("model", ["cumsum_batch", "mean_batch"])
def test_a_model_whose_rows_depend_on_each_other_is_not_batched(weir_fixtures, way, model):
    feeds = [samples.rows_of_four(1 + i % 3, seed=i) for i in range(CLIENTS)]
    answers = at_once(weir_fixtures, way, [(model, feed) for feed in feeds])
    for feed, answer in zip(feeds, answers):
        assert_same(answer["OUTPUT0"], samples.direct(weir_fixtures, model, feed)["OUTPUT0"])


def test_a_slow_model_is_batched_and_both_statistics_and_metrics_say_so(weir_fixtures, way):
    def batches():
        with wire.Http(weir_fixtures.http) as http:
            (item,) = http.get("/v2/models/slow/stats").json()["model_stats"]
        return {b["batch_size"]: b["compute_infer"]["count"] for b in item["batch_stats"]}

    # One request alone first: so that the model has a line in either place.
    feeds = [samples.rows_of_four(1, seed=i) for i in range(CLIENTS)]
    at_once(weir_fixtures, way, [("slow", feeds[0])])
    batches_before, page_before = batches(), page(weir_fixtures)
    answers = at_once(weir_fixtures, way, [("slow", feed) for feed in feeds])
    batches_after, page_after = batches(), page(weir_fixtures)

    for feed, answer in zip(feeds, answers):
        assert_close(answer["OUTPUT0"], samples.direct(weir_fixtures, "slow", feed)["OUTPUT0"], "OUTPUT0")
    formed = {size: n - batches_before.get(size, 0) for size, n in batches_after.items()}
    assert sum(size * n for size, n in formed.items()) == CLIENTS
    # One instance of 30 ms and 32 clients: most must have shared a run, and none may have had more than 8 rows.
    assert sum(formed.values()) < CLIENTS / 2 and max(formed) <= 8
    # With one row in each request, rows and requests are as many.
    for name in ("weir_batch_rows", "weir_batch_requests"):
        runs_before, size_before = histogram(page_before, name, model="slow")
        runs_after, size_after = histogram(page_after, name, model="slow")
        assert (runs_after - runs_before, size_after - size_before) == (sum(formed.values()), CLIENTS), name


def test_one_mistake_in_a_batch_fails_alone(weir_fixtures, way):
    good = samples.rows_of_four(1)
    bad = {"INPUT0": np.zeros((1, 5), np.float32)}
    barrier = threading.Barrier(16)

    def one(i):
        asked = way(weir_fixtures)
        try:
            barrier.wait()
            return asked.infer("slow", bad if i == 5 else good)
        except wire.Refused as refusal:
            return refusal
        finally:
            asked.close()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(16)))
    for i, answer in enumerate(answers):
        if i == 5:
            assert answer.message.startswith("unexpected shape for input 'INPUT0' for model 'slow'")
        else:
            assert_close(answer["OUTPUT0"], good["INPUT0"], "OUTPUT0")

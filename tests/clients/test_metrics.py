"""The metrics page: it parses, and its counts are what was sent."""

import collections

import grpc
import numpy as np
import pytest

import samples
import wire
import wire_grpc
from metrics import eventually, page, samples_of, total
from wire_grpc import WAYS

RECEIVED, ENDED, PREDICTIONS = "weir_requests_received_total", "weir_requests_total", "weir_predictions_total"


def grown(before, after, name, **labels):
    return total(after, name, **labels) - total(before, name, **labels)


def test_page_parses_and_every_family_is_described(weir):
    families = page(weir)
    assert families
    for name, family in families.items():
        assert family.documentation, f"{name} has no HELP"
        assert family.type in ("counter", "gauge", "histogram", "summary", "info"), f"{name} is {family.type}"


def test_no_series_stands_twice(weir):
    for family in page(weir).values():
        series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(series) == len(set(series)), family.name


def test_histograms_are_cumulative_and_end_at_infinity(weir, http):
    http.post("/v2/models/digits/infer", wire.json_request(samples.digits(1)))
    for name, family in page(weir).items():
        if family.type != "histogram":
            continue
        buckets = collections.defaultdict(list)
        for sample in samples_of({name: family}, f"{name}_bucket"):
            labels = dict(sample.labels)
            bound = float(labels.pop("le"))
            buckets[tuple(sorted(labels.items()))].append((bound, sample.value))
        for labels, steps in buckets.items():
            steps.sort()
            counts = [count for _, count in steps]
            assert steps[-1][0] == np.inf and counts == sorted(counts), f"{name} {labels}"
            assert counts[-1] == total({name: family}, f"{name}_count", **dict(labels))


@pytest.mark.parametrize("way_name", WAYS)
def test_outcomes_sum_to_the_requests_received(weir, way_name):
    ask = WAYS[way_name](weir)
    good = samples.digits(1)
    before = page(weir)
    sent = collections.Counter()
    for model, feed, version in [
        ("digits", good, None),
        ("digits", good, 2),
        ("digits", good, 9),
        ("digits", {"image": good["image"][:, :3]}, None),
        ("digits", {"nosuch": good["image"]}, None),
        ("digits", {"image": good["image"].astype(np.int32)}, None),
        ("nosuch", good, None),
        ("simple", samples.simple(9), None),
        ("simple", samples.simple(8), None),
    ]:
        try:
            ask.infer(model, feed, version)
            sent["ok"] += 1
        except wire.Refused:
            sent["failed"] += 1
    ask.close()
    assert sent == {"ok": 3, "failed": 6}

    def settled():
        after = page(weir)
        return after if grown(before, after, ENDED) >= sum(sent.values()) else None

    after = eventually(settled)
    assert after, f"{grown(before, page(weir), ENDED)} of {sum(sent.values())} requests were counted"
    assert grown(before, after, RECEIVED) == sum(sent.values())
    assert grown(before, after, ENDED) == sum(sent.values())
    assert grown(before, after, ENDED, outcome="ok") == sent["ok"]
    assert total(after, RECEIVED) == total(after, ENDED)


def test_requests_that_are_no_inference_are_not_counted_as_such(weir, http):
    before = page(weir)
    for path in ("/v2", "/v2/health/ready", "/v2/models/digits", "/v2/models/nosuch", "/nowhere"):
        http.get(path)
    assert grown(before, page(weir), RECEIVED) == 0


def test_a_body_that_is_no_json_is_counted_as_a_failure(weir, http):
    before = page(weir)
    assert http.post("/v2/models/digits/infer", b"{").status == 400
    assert eventually(lambda: grown(before, page(weir), ENDED) == 1)
    assert grown(before, page(weir), ENDED, outcome="ok") == 0


def test_a_deadline_that_passes_is_counted_as_such(weir_fixtures):
    before = page(weir_fixtures)
    request = wire_grpc.request_of("slow", samples.rows_of_four(1))
    with wire_grpc.channel_to(weir_fixtures) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        with pytest.raises(grpc.RpcError):
            wire_grpc.stub_on(channel).ModelInfer(request, timeout=0.01)
    # The server may learn of the deadline or of the client's leaving first; either is not a success.
    assert eventually(lambda: grown(before, page(weir_fixtures), ENDED) == 1)
    after = page(weir_fixtures)
    ended = ("deadline_exceeded", "cancelled")
    assert sum(grown(before, after, ENDED, outcome=outcome) for outcome in ended) == 1


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("way_name", WAYS)
def test_predictions_are_counted_by_class(weir, way_name, version):
    feed = samples.digits(40, seed=version)
    labels = (weir.models / "digits" / "digits_labels.txt").read_text().split()
    predicted = samples.direct(weir, "digits", feed, version)["label"]
    expected = collections.Counter(int(label) for label in predicted)

    def by_class():
        counts = collections.Counter()
        for sample in samples_of(page(weir), PREDICTIONS, model="digits", version=str(version)):
            text = sample.labels["class"]
            counts[labels.index(text) if text in labels else int(text)] += int(sample.value)
        return counts

    before = by_class()
    ask = WAYS[way_name](weir)
    ask.infer("digits", feed, version)
    ask.close()
    assert eventually(lambda: by_class() - before == expected), (by_class() - before, expected)


def test_clients_cannot_make_new_series(weir, http):
    def series():
        return {(s.name, *sorted(s.labels.items())) for family in page(weir).values() for s in family.samples}

    http.post("/v2/models/nosuch/infer", wire.json_request(samples.digits(1)))
    before = series()
    for name in ("nosuch2", 'quote"', "line%0Abreak"):
        http.post(f"/v2/models/{name}/infer", wire.json_request(samples.digits(1)))
        http.post("/v2/models/digits/infer", wire.json_request(samples.digits(1), id=name))
    new = {s for s in series() - before if any("nosuch2" in str(part) or "quote" in str(part) for part in s)}
    assert not new

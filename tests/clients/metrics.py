"""Reads the metrics page as Prometheus does."""

import time

from prometheus_client.parser import text_string_to_metric_families

import wire

SETTLE_SECONDS_MAX = 5


def page(weir):
    """Every metric family by name."""
    with wire.Http(weir.metrics) as http:
        answer = http.get("/metrics")
    assert answer.status == 200
    assert answer.headers.get_content_type() in ("text/plain", "application/openmetrics-text")
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


def samples_of(families, name, **labels):
    """The samples of that exact name whose labels include these."""
    for family in families.values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample


def total(families, name, **labels):
    """The sum over all such samples."""
    return sum(sample.value for sample in samples_of(families, name, **labels))


def histogram(families, name, **labels):
    """How many observations a histogram holds, and their sum."""
    return tuple(total(families, f"{name}_{side}", **labels) for side in ("count", "sum"))


def eventually(check, seconds_max=SETTLE_SECONDS_MAX):
    """Calls until it gives something true: what is counted after an answer is sent may be read before."""
    deadline = time.monotonic() + seconds_max
    while not (result := check()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return result

"""Requests drawn at random are answered as ONNX Runtime answers them, whichever way they are asked and in whatever company.

The draws are the same on every run; a failure names the seed that brings its request back.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import samples
import wire
from reference import DTYPE, assert_same

SEEDS = range(60)

# Requests that are under way at once, so that they share batches.
AT_ONCE = 6

# What a word of a drawn text is made of: letters, what is not a letter, and what is not one byte.
LETTERS = list("abcXYZ 0189'\"\\\t\n-_.,;ßéÅπ漢🐟")


def drawn_text(rng):
    return "".join(rng.choice(LETTERS, rng.integers(0, 40))).encode()


def drawn_bundled(rng):
    """A bundled model, a version or none, and inputs with values from mild to extreme."""
    name = str(rng.choice(list(samples.BUNDLED)))
    rows = int(rng.integers(1, 9))
    feed = samples.BUNDLED[name](rows, seed=int(rng.integers(1 << 30)))
    for port, array in feed.items():
        if array.dtype == object:
            feed[port] = np.array([drawn_text(rng) for _ in range(array.size)], object).reshape(array.shape)
        elif array.dtype == np.float32 and rng.random() < 0.5:
            scale = np.float32(10.0 ** rng.integers(-30, 30))
            feed[port] = (rng.standard_normal(array.shape) * scale).astype(np.float32)
        elif array.dtype == np.int32 and rng.random() < 0.5:
            # Sums of two of them do not overflow.
            feed[port] = rng.integers(-(2**30), 2**30, array.shape, dtype=np.int32)
    version = int(rng.integers(1, 4)) if name == "digits" and rng.random() < 0.5 else None
    return name, version, feed


def drawn_identity(rng):
    """A model that gives back what it gets, with any bits in any shape."""
    datatype = str(rng.choice([name for name in DTYPE]))
    shape = (int(rng.integers(1, 5)), int(rng.integers(0, 33)))
    array = samples.numbers(datatype, shape, seed=int(rng.integers(1 << 30)))
    if datatype == "BYTES":
        array = np.array([drawn_text(rng) for _ in range(array.size)], object).reshape(shape)
    return f"identity_{datatype.lower()}", None, {"INPUT0": array}


def check(way, weir, seed, draw):
    model, version, feed = draw(np.random.default_rng(seed))
    with wire.Http(weir.http) as http:
        metadata = http.get(wire.model_path(model)).json()
    expected = samples.as_served(samples.direct(weir, model, feed, version), metadata)
    asked = way(weir)
    try:
        got = asked.infer(model, feed, version)
    finally:
        asked.close()
    assert got.keys() == expected.keys(), f"seed {seed}"
    for name, array in expected.items():
        assert_same(got[name], array, f"seed {seed}, {model}, {name}")


def in_company(way, weir, draw):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda seed: check(way, weir, seed, draw), SEEDS))


def test_drawn_requests_to_bundled_models(way, weir):
    in_company(way, weir, drawn_bundled)


def test_drawn_tensors_come_back_as_they_were(way, weir_fixtures):
    in_company(way, weir_fixtures, drawn_identity)

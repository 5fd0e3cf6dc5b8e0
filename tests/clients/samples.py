"""Inputs for the models under test, and the answers that ONNX Runtime gives to them."""

import functools

import numpy as np

from reference import DTYPE, Model

TICKETS = [
    "I was charged twice this month",
    "the app crashes when I open a photo",
    "cannot sign in after the update",
    "thank you, this is wonderful",
    "my parcel has not arrived – überfällig 📦",
]


def numbers(name, shape, seed=1):
    """Finite values from the whole range of a data type, the same for the same seed."""
    rng = np.random.default_rng(seed)
    dtype, size = DTYPE[name], int(np.prod(shape, dtype=np.int64))
    if name == "BYTES":
        return np.array([f"text {i} ü".encode() for i in range(size)], dtype=object).reshape(shape)
    if name == "BOOL":
        return rng.integers(0, 2, size).astype(bool).reshape(shape)
    raw = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype=dtype)
    if dtype.kind not in "iu":
        with np.errstate(invalid="ignore"):
            raw = np.where(np.isfinite(raw.astype(np.float64)), raw, dtype.type(1.5)).astype(dtype)
    return raw.reshape(shape)


def digits(rows, seed=1):
    """Pictures of 8 × 8 pixels from 0 to 16, as the digits data set has them."""
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 17, (rows, 64)).astype(np.float32)}


def simple(rows, seed=1):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-1000, 1000, (rows, 16), dtype=np.int32) for name in ("INPUT0", "INPUT1")}


def tickets(rows, seed=1):
    texts = [TICKETS[(seed + i) % len(TICKETS)].encode() for i in range(rows)]
    return {"text": np.array(texts, dtype=object).reshape(rows, 1)}


def breast_cancer(rows, seed=1):
    rng = np.random.default_rng(seed)
    return {"features": rng.uniform(0, 100, (rows, 30)).astype(np.float32)}


def rows_of_four(rows, seed=1):
    rng = np.random.default_rng(seed)
    return {"INPUT0": rng.standard_normal((rows, 4)).astype(np.float32)}


BUNDLED = {"digits": digits, "simple": simple, "tickets": tickets, "breast_cancer": breast_cancer}
LATEST = {"digits": 3, "simple": 1, "tickets": 1, "breast_cancer": 1}


@functools.cache
def direct_model(models, name, version):
    return Model(models / name / str(version) / "model.onnx")


def direct(weir, name, feed, version=None):
    """ONNX Runtime's own answer, in the shapes that the file has: a config's reshape is not applied."""
    model = direct_model(weir.models, name, version or LATEST.get(name, 1))
    # An optional input is not among the session's inputs: the file has a value for it.
    ranks = {port.name: len(port.shape) for port in model.inputs}
    return model.run({n: a.reshape(a.shape[: ranks.get(n, a.ndim)]) for n, a in feed.items()})


def as_served(outputs, metadata):
    """The same tensors in the shapes that the server's metadata declares: `[N]` may be served as `[N,1]`."""
    shaped = {}
    for port in metadata["outputs"]:
        array, declared = outputs[port["name"]], [int(d) for d in port["shape"]]
        rows = array.shape[:1] if declared[:1] == [-1] else ()
        extra = len(declared) - array.ndim
        shaped[port["name"]] = array.reshape(rows + tuple(declared[len(rows) :])) if extra else array
    return shaped

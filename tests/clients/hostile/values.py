"""Well-formed requests whose values are hostile to a model: not finite, extreme, none at all, out of its range, no
text."""

import itertools
import json
import struct

from .binary_bodies import LENGTH, text
from .http1 import Case, request

FLOATS = {
    "NaN": float("nan"),
    "signalling NaN": b"\x01\0\xa0\x7f",
    "infinite": float("inf"),
    "minus infinite": float("-inf"),
    "largest": 3.4028234663852886e38,
    "smallest": -3.4028234663852886e38,
    "denormal": 1e-45,
    "minus zero": -0.0,
    "half a step": 1.17549435e-38,
}
INTEGERS = {8: "b", 16: "h", 32: "i", 64: "q"}
ROWS = (1, 3, 7)
TEXTS = [
    b"",
    b"\0",
    b"a\0b",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\xef\xbf\xbf",
    b"\xef\xbb\xbfa",
    "é".encode(),
    "💩".encode() * 99,
    "\u202eabc".encode(),
    b"\r\n\t\x0b\x0c",
    b"\x1b[2J",
    b"%s%n",
    b" " * 999,
    b"word " * 50_000,
    b"a" * 300_000,
    "\u0301".encode() * 10_000,
    b"\x80" * 100,
    "ẞßıİﬁ".encode() * 50,
    "\ufffd".encode(),
    "𝒳".encode(),
    b"refund" + b"\xff" + b"card",
    "אבג".encode(),
    "\u2028\u2029\u0085".encode(),
]


def infer(name, model, inputs):
    """`inputs` is (name, datatype, shape, bytes)."""
    head = json.dumps(
        {
            "inputs": [
                {"name": n, "datatype": t, "shape": s, "parameters": {"binary_data_size": len(b)}}
                for n, t, s, b in inputs
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    body = head + b"".join(b for *_, b in inputs)
    return Case(
        f"{model}: {name}", request(path=f"/v2/models/{model}/infer", body=body, headers=[(LENGTH, str(len(head)))])
    )


def _float(value):
    return value if isinstance(value, bytes) else struct.pack("<f", value)


def bundled_cases():
    """For the bundled models."""
    for (model, name, width), (kind, value), rows in itertools.product(
        (("digits", "image", 64), ("breast_cancer", "features", 30)), FLOATS.items(), ROWS
    ):
        yield infer(f"{kind}, {rows} rows", model, [(name, "FP32", [rows, width], _float(value) * width * rows)])
        yield infer(
            f"{kind} once, {rows} rows",
            model,
            [(name, "FP32", [rows, width], _float(value) + bytes(4 * (width * rows - 1)))],
        )
    for model, name, width in (("digits", "image", 64), ("breast_cancer", "features", 30)):
        yield infer("no rows", model, [(name, "FP32", [0, width], b"")])
        yield infer("no columns", model, [(name, "FP32", [1, 0], b"")])
        for value in ("null", "NaN", "Infinity", "-Infinity", "1e39", "-1e39", "1e-50", "0.1e1", "-0.0", "1E+2"):
            data = "[" + ",".join([value] * width) + "]"
            body = f'{{"inputs":[{{"name":"{name}","datatype":"FP32","shape":[1,{width}],"data":{data}}}]}}'
            yield Case(f"{model}: {value} in JSON", request(path=f"/v2/models/{model}/infer", body=body.encode()))
    for version in (1, 2, 3):
        head = {
            "inputs": [
                {"name": "image", "datatype": "FP32", "shape": [1, 64], "parameters": {"binary_data_size": 256}}
            ],
            "outputs": [{"name": "probabilities", "parameters": {"classification": 3}}],
        }
        packed = json.dumps(head).encode()
        for kind, value in FLOATS.items():
            yield Case(
                f"digits {version}: classes of {kind}",
                request(
                    path=f"/v2/models/digits/versions/{version}/infer",
                    body=packed + _float(value) * 64,
                    headers=[(LENGTH, str(len(packed)))],
                ),
            )
    for a, b in itertools.product((0, 1, -1, (1 << 31) - 1, -(1 << 31)), repeat=2):
        inputs = [(n, "INT32", [2, 16], struct.pack("<i", v) * 32) for n, v in (("INPUT0", a), ("INPUT1", b))]
        yield infer(f"{a} and {b}", "simple", inputs)
    yield infer("no rows", "simple", [(n, "INT32", [0, 16], b"") for n in ("INPUT0", "INPUT1")])
    yield infer(
        "rows of different numbers",
        "simple",
        [("INPUT0", "INT32", [1, 16], bytes(64)), ("INPUT1", "INT32", [2, 16], bytes(128))],
    )
    for i, value in enumerate(TEXTS):
        yield infer(f"text {i}", "tickets", [("text", "BYTES", [1, 1], text(value))])
        yield infer(
            f"text {i} among good ones",
            "tickets",
            [("text", "BYTES", [3, 1], text(b"charged twice", value, b"cannot sign in"))],
        )
    yield infer("no rows", "tickets", [("text", "BYTES", [0, 1], b"")])


def fixture_cases():
    """For the models of tests/models."""
    for bits, letter in INTEGERS.items():
        for signed in (True, False):
            datatype = f"{'' if signed else 'U'}INT{bits}"
            for value in (-(1 << bits - 1), (1 << bits - 1) - 1, -1, 0) if signed else ((1 << bits) - 1, 0):
                packed = struct.pack("<" + (letter if signed else letter.upper()), value)
                yield infer(f"{value}", f"identity_{datatype.lower()}", [("INPUT0", datatype, [2, 3], packed * 6)])
            yield infer("no rows", f"identity_{datatype.lower()}", [("INPUT0", datatype, [0, 3], b"")])
            yield infer("no columns", f"identity_{datatype.lower()}", [("INPUT0", datatype, [3, 0], b"")])
            wide = ",".join([str(v) for v in ((1 << bits), -(1 << bits), 10**30)])
            body = f'{{"inputs":[{{"name":"INPUT0","datatype":"{datatype}","shape":[1,3],"data":[{wide}]}}]}}'
            yield Case(
                f"identity of {datatype}: beyond its range, in JSON",
                request(path=f"/v2/models/identity_{datatype.lower()}/infer", body=body.encode()),
            )
    for datatype, size in (("FP16", 2), ("BF16", 2), ("FP32", 4), ("FP64", 8), ("BOOL", 1)):
        for pattern in (b"\xff", b"\x7f", b"\x80", b"\x00", b"\x01", b"\x02", b"\xaa"):
            yield infer(
                f"bytes {pattern.hex()}",
                f"identity_{datatype.lower()}",
                [("INPUT0", datatype, [2, 3], pattern * size * 6)],
            )
        for number in ("1e400", "-1e400", "NaN", "null", "70000", "true", "2", "1e-400", '"1"'):
            body = f'{{"inputs":[{{"name":"INPUT0","datatype":"{datatype}","shape":[1,1],"data":[{number}]}}]}}'
            yield Case(
                f"identity of {datatype}: {number} in JSON",
                request(path=f"/v2/models/identity_{datatype.lower()}/infer", body=body.encode()),
            )
    for i, value in enumerate(TEXTS):
        yield infer(f"text {i}", "identity_bytes", [("INPUT0", "BYTES", [1, 2], text(value, b"x"))])
        body = json.dumps(
            {"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "data": [value.decode("latin-1")]}]}
        ).encode()
        yield Case(f"identity of BYTES: text {i} in JSON", request(path="/v2/models/identity_bytes/infer", body=body))
        # Asked as JSON, a text that is not UTF-8 cannot be answered.
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "INPUT0",
                        "datatype": "BYTES",
                        "shape": [1, 1],
                        "parameters": {"binary_data_size": len(value) + 4},
                    }
                ]
            }
        ).encode()
        yield Case(
            f"identity of BYTES: text {i}, answered in JSON",
            request(
                path="/v2/models/identity_bytes/infer", body=head + text(value), headers=[(LENGTH, str(len(head)))]
            ),
        )
    for kind, value in FLOATS.items():
        for model in ("slow", "cumsum_batch", "mean_batch", "external_data", "optional_input"):
            for rows in (0, 1, 5):
                yield infer(f"{kind}, {rows} rows", model, [("INPUT0", "FP32", [rows, 4], _float(value) * 4 * rows)])
        yield infer(kind, "scalar_fp32", [("INPUT0", "FP32", [], _float(value))])
        yield infer(kind, "reshape_scalar", [("INPUT0", "FP32", [2, 1], _float(value) * 2)])
        yield infer(kind, "echo_input", [("INPUT0", "FP32", [1, 2], _float(value) * 2)])
    # 64 words, two segments; what is beyond must be refused, not read.
    for word, mask, segment in itertools.product(
        (63, 64, -1, -64, -65, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)),
        (1, 0, -1, (1 << 63) - 1),
        (0, 1, 2, -3, 1 << 40),
    ):
        for length in (1, 5):
            inputs = [
                (n, "INT64", [1, length], struct.pack("<q", v) * length)
                for n, v in (("input_ids", word), ("attention_mask", mask), ("token_type_ids", segment))
            ]
            yield infer(f"word {word}, mask {mask}, segment {segment}, {length} long", "text", inputs)
    for shape in ([0, 3], [1, 0], [0, 0], [16, 0], [16, 300], [17, 1], [1, 2_000]):
        size = shape[0] * shape[1]
        yield infer(
            f"zeros of {shape}",
            "text",
            [(n, "INT64", shape, bytes(8 * size)) for n in ("input_ids", "attention_mask", "token_type_ids")],
        )

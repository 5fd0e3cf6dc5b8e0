"""Hostile gRPC: messages that lie about their length, are no protobuf, or ask for what no model takes; calls that do
not exist."""

import gzip
import random
import struct

from . import http2
from .http2 import DATA, END_HEADERS, END_STREAM, HELLO, Case, frame, headers
from .protobuf import GROUP, blob, each, f64, nested, num, packed, tag, varint

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
CALLS = [
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "CudaSharedMemoryStatus",
    "TraceSetting",
    "LogSettings",
]
# Under static control clients may not load, which is UNAVAILABLE by README.md's table.
NOT_ALLOWED = ["RepositoryModelLoad", "RepositoryModelUnload"]
OTHERS = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
CONTROL = [
    "ListModels",
    "GetModel",
    "GetRoute",
    "SetRoute",
    "DeleteRoute",
    "Rollback",
    "StartRollout",
    "ListRollouts",
    "Feedback",
    "ListAudit",
    "LoadVersion",
]


def head(path=INFER, *more, kind="application/grpc", te="trailers", method="POST"):
    made = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "weir")]
    made += [("content-type", kind)] if kind is not None else []
    made += [("te", te)] if te is not None else []
    return (*made, *more)


def message(data, length=None, compressed=0):
    """A message with its five bytes before it, which may lie."""
    return bytes([compressed]) + struct.pack(">I", len(data) if length is None else length) + data


def call(data, path=INFER, *more, **head_more):
    """A whole call: headers, then the data in frames of 16 KiB, within the window that every server gives at first."""
    pieces = [data[at : at + 16_384] for at in range(0, len(data), 16_384)] or [b""]
    frames = [frame(DATA, END_STREAM if i == len(pieces) - 1 else 0, 1, piece) for i, piece in enumerate(pieces)]
    window = b"".join(frames)
    return HELLO + headers(1, *head(path, *more, **head_more)) + window


def input_tensor(name="INPUT0", datatype="INT32", shape=(1, 16), contents=b"", more=b""):
    return blob(1, name) + blob(2, datatype) + packed(3, shape) + (blob(5, contents) if contents else b"") + more


RAW = struct.pack("<16i", *range(16))
INPUTS = (input_tensor("INPUT0"), input_tensor("INPUT1"))


def ask(model="simple", inputs=INPUTS, raw=(RAW, RAW), more=b""):
    return blob(1, model) + each(5, inputs) + each(7, raw) + more


GOOD = call(message(ask()))


def cases(seed=5):
    drawn = random.Random(seed)
    yield from _messages()
    yield from _requests()
    yield from _calls(drawn)
    yield from _metadata()
    yield from _streams()
    yield from _noise(drawn)


def _messages():
    good = ask()
    for name, data in {
        "good": message(good),
        "nothing": b"",
        "prefix cut": b"\0\0\0",
        "prefix alone": message(b""),
        "length short": message(good, 5),
        "length long": message(good, len(good) + 1),
        "length 1 GiB": message(good, 1 << 30),
        "length 4 GiB": message(good, 0xFFFFFFFF),
        "length over the most": message(good, 300 << 20),
        "two for one": message(good) * 2,
        "1 000 for one": message(b"") * 1000,
        "garbage behind": message(good) + b"xyz",
        "flag 2": message(good, compressed=2),
        "flag 255": message(good, compressed=255),
        "compressed and not said": message(gzip.compress(good), compressed=1),
        "a text": b"POST / HTTP/1.1\r\n\r\n",
        "JSON": message(b'{"model_name":"simple"}'),
        "NULs": bytes(1000),
        "ones": b"\xff" * 1000,
    }.items():
        for path in (INFER, SERVICE + "ServerLive", SERVICE + "ModelMetadata", SERVICE + "ModelStreamInfer", OTHERS[0]):
            yield Case(f"message {name} to {path.rsplit('/')[-1]}", call(data, path))
    for at in range(0, len(good), 5):
        yield Case(f"message cut at {at}", call(message(good[:at])))
        yield Case(f"stream cut at {at}", call(message(good)[:at]))
    for coding in ("gzip", "identity", "deflate", "zstd", "snappy", "", "\xff", "gzip, gzip", "a" * 5000):
        for flag in (0, 1):
            for name, data in (
                ("packed", gzip.compress(good)),
                ("plain", good),
                ("cut", gzip.compress(good)[:20]),
                ("empty", b""),
            ):
                yield Case(
                    f"coding {coding[:9]!r} {flag} {name}",
                    call(message(data, compressed=flag), INFER, ("grpc-encoding", coding)),
                )
    bomb = gzip.compress(bytes(300 << 20), 1)
    yield Case("bomb of 300 MiB", call(message(bomb, compressed=1)[:60_000], INFER, ("grpc-encoding", "gzip")))
    small = gzip.compress(bytes(50 << 20), 9)
    yield Case("bomb of 50 MiB", call(message(small, compressed=1), INFER, ("grpc-encoding", "gzip")))
    for name, data in {
        "groups 10 000 deep": tag(90, GROUP) * 10_000,
        "parameters 10 000 deep": blob(4, nested(2, 10_000)),
        "length huge": tag(5, 2) + varint((1 << 63) - 1),
        "length negative": tag(5, 2) + varint(-1),
        "varint without end": b"\x28" + b"\x80" * 100,
        "field zero": b"\0\0",
        "wire type 7": b"\x0f",
        "wire type 6": b"\x0e",
        "end of a group": b"\x0c",
        "field beyond": varint((1 << 32) << 3),
        "unknown fields": b"".join(num(50 + i, i) for i in range(5000)),
        "unknown field of 1 MiB": blob(99, bytes(60_000)),
    }.items():
        yield Case(f"protobuf {name}", call(message(data)))
        yield Case(f"protobuf good and {name}", call(message(good + data)))
        yield Case(f"protobuf {name}, to ModelMetadata", call(message(data), SERVICE + "ModelMetadata"))
    for field in range(1, 9):
        for name, data in (
            ("varint", num(field, 5)),
            ("fixed64", f64(field, 1.0)),
            ("text", blob(field, "x")),
            ("not UTF-8", blob(field, b"\xff\xfe")),
            ("NUL", blob(field, b"a\0b")),
            ("empty", blob(field, b"")),
            ("long", blob(field, b"a" * 60_000)),
            ("5 000 times", blob(field, b"") * 5000),
        ):
            yield Case(f"field {field} {name}", call(message(good + data)))
            yield Case(f"field {field} {name} alone", call(message(data)))


I64_MAX, I64_MIN = (1 << 63) - 1, -(1 << 63)


def _requests():
    def one(name, first, raw=(RAW, RAW), **more):
        return Case(name, call(message(ask(inputs=(first, INPUTS[1]), raw=raw, **more))))

    for name in ("", "INPUT1", "nosuch", "a" * 10_000, "a\0b", "\n"):
        yield one(f"input named {name[:9]!r}", input_tensor(name))
    for datatype in ("", "FP32", "int32", "BYTES", "X" * 10_000, "INT32\0", "BOOL", "FP16", "BF16"):
        yield one(f"datatype {datatype[:9]!r}", input_tensor(datatype=datatype))
    for shape in (
        (),
        (0, 16),
        (-1, 16),
        (1, -16),
        (-1, -16),
        (16,),
        (16, 1),
        (1, 16, 1),
        (1 << 31, 16),
        (1 << 60, 16),
        (1 << 62, 4),
        (I64_MAX, I64_MAX),
        (I64_MIN, 16),
        (0, I64_MAX),
        (1,) * 1000,
        (1,) * 10_000,
        (2, 16),
        (65, 16),
    ):
        for raw in ((RAW, RAW), (b"", RAW), (RAW * 2, RAW), (RAW[:63], RAW)):
            yield one(f"shape {str(shape)[:30]} of {len(raw[0])} bytes", input_tensor(shape=shape), raw)
    for count in (0, 1, 3, 5000):
        yield Case(f"{count} raw contents", call(message(ask(raw=(RAW[:8],) * count))))
        yield Case(f"{count} inputs", call(message(ask(inputs=INPUTS[:1] * count, raw=()))))
        yield Case(f"{count} outputs", call(message(ask(more=each(6, [blob(1, "OUTPUT0")] * count)))))
        yield Case(
            f"{count} outputs of other names",
            call(message(ask(more=each(6, [blob(1, f"O{i}") for i in range(count)])))),
        )
        yield Case(
            f"{count} parameters",
            call(message(ask(more=each(4, [blob(1, f"p{i}") + blob(2, num(2, i)) for i in range(count)])))),
        )
    contents = {
        1: packed(1, [1] * 16),
        2: packed(2, range(16)),
        3: packed(3, range(16)),
        4: packed(4, range(16)),
        5: packed(5, range(16)),
        6: blob(6, bytes(64)),
        7: blob(7, bytes(128)),
        8: each(8, [b"a"] * 16),
    }
    for field, data in contents.items():
        both = (input_tensor("INPUT0", contents=data), input_tensor("INPUT1", contents=contents[2]))
        yield Case(f"contents {field}", call(message(ask(inputs=both, raw=()))))
        yield Case(f"contents {field} and raw", call(message(ask(inputs=both))))
        for datatype in ("BOOL", "INT8", "UINT8", "INT64", "UINT64", "FP32", "FP64", "FP16", "BF16", "BYTES"):
            mixed = (input_tensor("INPUT0", datatype, contents=data), both[1])
            yield Case(f"contents {field} as {datatype}", call(message(ask(inputs=mixed, raw=()))))
    for numbers in ([], [1], range(17), range(5000), [I64_MAX] * 16, [I64_MIN] * 16, [1 << 31] * 16):
        both = (input_tensor("INPUT0", contents=packed(2, numbers)), input_tensor("INPUT1", contents=contents[2]))
        yield Case(f"{len(numbers)} numbers, {list(numbers)[:1]}", call(message(ask(inputs=both, raw=()))))
    every = (input_tensor("INPUT0", contents=b"".join(contents.values())), INPUTS[1])
    yield Case("contents of all kinds", call(message(ask(inputs=every, raw=()))))
    yield Case(
        "packed floats of 3 bytes",
        call(message(ask(inputs=(input_tensor("INPUT0", "FP32", contents=blob(6, b"abc")), INPUTS[1]), raw=()))),
    )
    values = {
        "bool": num(1, 1),
        "bool of 7": num(1, 7),
        "int max": num(2, I64_MAX),
        "int min": num(2, I64_MIN),
        "text": blob(3, "x"),
        "not UTF-8": blob(3, b"\xff"),
        "long": blob(3, "a" * 50_000),
        "nan": f64(4, float("nan")),
        "infinite": f64(4, float("inf")),
        "uint max": num(5, -1),
        "nothing": b"",
        "two": num(2, 1) + blob(3, "x"),
        "negative": num(2, -1),
        "zero": num(2, 0),
    }
    for key in (
        "priority",
        "timeout",
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "label",
        "binary_data_output",
        "headers",
        "triton_x",
        "",
        "a\0",
        "classification",
    ):
        for name, value in values.items():
            parameter = blob(1, key) + blob(2, value)
            yield Case(f"parameter {key!r} {name}", call(message(ask(more=blob(4, parameter)))))
    for key in (
        "classification",
        "shared_memory_region",
        "shared_memory_byte_size",
        "binary_data",
        "binary_data_size",
        "x",
    ):
        for name, value in values.items():
            parameter = blob(1, key) + blob(2, value)
            yield Case(
                f"output parameter {key} {name}",
                call(message(ask(more=blob(6, blob(1, "OUTPUT0") + blob(2, parameter))))),
            )
            yield one(f"input parameter {key} {name}", input_tensor(more=blob(4, parameter)))
    yield Case("an output twice", call(message(ask(more=each(6, [blob(1, "OUTPUT0")] * 2)))))
    for text in ("\n", "\0", "\x1b[2J", "i" * 50_000, "💩", b"\xff"):
        yield Case(f"id {text[:9]!r}", call(message(ask(more=blob(3, text)))))
    for model in (
        "",
        "nosuch",
        "..",
        "../simple",
        "simple/1",
        "a" * 50_000,
        "a\0",
        "\n",
        b"\xff",
        "%73imple",
        ".train",
        "SIMPLE",
    ):
        yield Case(f"model {model[:9]!r}", call(message(ask(model))))
    for version in ("0", "-1", "1.0", "01", "9" * 18, "9" * 400, "stable", "\0", "", "+1", " 1", "1\n", "٣", b"\xff"):
        yield Case(f"version {version[:9]!r}", call(message(ask(more=blob(2, version)))))
    tickets = [
        ("good", b"hello"),
        ("not UTF-8", b"\xff"),
        ("surrogate", b"\xed\xa0\x80"),
        ("NUL", b"\0"),
        ("empty", b""),
        ("long", b"word " * 10_000),
    ]
    for name, text in tickets:
        asked = input_tensor("text", "BYTES", (1, 1))
        yield Case(f"text {name}, raw", call(message(ask("tickets", (asked,), (struct.pack("<I", len(text)) + text,)))))
        yield Case(
            f"text {name}, in contents",
            call(message(ask("tickets", (input_tensor("text", "BYTES", (1, 1), blob(8, text)),), ()))),
        )
    for name, raw in {
        "prefix beyond": struct.pack("<I", 6) + b"hello",
        "prefix huge": b"\xff" * 4 + b"hello",
        "prefix cut": b"\x05",
        "left over": struct.pack("<I", 1) + b"ab",
        "two": (struct.pack("<I", 1) + b"a") * 2,
        "none": b"",
    }.items():
        yield Case(f"text {name}", call(message(ask("tickets", (input_tensor("text", "BYTES", (1, 1)),), (raw,)))))


def _calls(drawn):
    for name in CALLS:
        for kind, data in {
            "nothing": b"",
            "empty": message(b""),
            "garbage": message(b"\xff" * 40),
            "wrong types": message(num(1, 5) + num(2, 5) + num(3, 5)),
            "names": message(blob(1, "simple") + blob(2, "1") + blob(3, "x")),
            "unknown model": message(blob(1, "../x") + blob(2, "y")),
            "not UTF-8": message(blob(1, b"\xff")),
            "NUL": message(blob(1, b"a\0") + blob(2, b"\0")),
            "huge": message(blob(1, b"a" * 50_000)),
            "cut": message(b"\x0a\x50abc"),
            "random": message(drawn.randbytes(60)),
        }.items():
            promised = (14,) if name in NOT_ALLOWED else ()
            yield Case(f"{name} of {kind}", call(data, SERVICE + name), promised=promised)
    for path in OTHERS:
        for kind, data in {
            "empty": message(b""),
            "garbage": message(b"\xff" * 40),
            "names": message(blob(1, "nosuch")),
            "symbol": message(blob(4, "inference.GRPCInferenceService")),
            "file": message(blob(3, "../../etc/passwd")),
            "list": message(blob(7, "*")),
            "extension": message(blob(5, blob(1, "x") + num(2, -1))),
        }.items():
            yield Case(f"{path} of {kind}", call(data, path), () if path.endswith("Watch") else (1,))
    for name in CONTROL:
        for kind, data in {
            "empty": message(b""),
            "garbage": message(b"\xff" * 40),
            "names": message(blob(1, "simple")),
            "numbers": message(num(1, I64_MIN) + num(2, -1) + num(3, 1 << 40)),
            "traversal": message(blob(1, "../../etc")),
        }.items():
            yield Case(f"control {name} of {kind}", call(data, f"/weir.control.v1.Control/{name}"))
    for path in (
        "/",
        "",
        "/inference.GRPCInferenceService",
        "/inference.GRPCInferenceService/",
        "/inference.GRPCInferenceService/Nothing",
        "/nothing.Service/Call",
        "/INFERENCE.GRPCINFERENCESERVICE/ModelInfer",
        "//ModelInfer",
        "/inference.GRPCInferenceService/ModelInfer/",
        "/inference.GRPCInferenceService/ModelInfer?x=1",
        "/inference.GRPCInferenceService/%4dodelInfer",
        "/" + "a" * 8000,
        "/../inference.GRPCInferenceService/ModelInfer",
        "/v2/models/simple/infer",
        "/v2",
        "*",
        "/\0",
        "/\xff",
        "http://x/y",
        "/inference.GRPCInferenceService/ModelInfer\r\n",
        "/inference.GRPCInferenceService/ModelInfer#",
    ):
        yield Case(f"path {path[:60]!r}", call(message(ask()), path))


def _metadata():
    good = message(ask())
    for kind in (
        None,
        "",
        "application/json",
        "application/grpc+json",
        "application/grpc+proto",
        "application/grpc-web",
        "application/grpc-web-text",
        "text/plain",
        "application/grpcx",
        "APPLICATION/GRPC",
        "application/grpc;charset=x",
        "\xff",
        "a" * 8000,
    ):
        for path in (INFER, SERVICE + "ServerLive"):
            yield Case(
                f"content type {str(kind)[:30]!r} {path[-10:]}",
                call(good if path == INFER else message(b""), path, kind=kind),
            )
    for te in (None, "", "gzip", "trailers, deflate", "\xff"):
        yield Case(f"te {te!r}", call(good, te=te))
    for method in ("GET", "PUT", "OPTIONS", "CONNECT", "HEAD", "post", "", "\0", "A" * 5000):
        yield Case(f"method {method[:9]!r}", call(good, method=method))
    for timeout in (
        "0n",
        "1n",
        "0S",
        "1u",
        "99999999H",
        "999999999H",
        "-1S",
        "1",
        "S",
        "",
        "1x",
        "1.5S",
        "\xff",
        "18446744073709551616S",
        " 1S",
        "1S 2S",
        "00000001S",
        "1m",
        "abcS",
        "99999999S",
    ):
        yield Case(f"grpc-timeout {timeout!r}", call(good, INFER, ("grpc-timeout", timeout)))
        yield Case(
            f"grpc-timeout {timeout!r}, ServerLive",
            call(message(b""), SERVICE + "ServerLive", ("grpc-timeout", timeout)),
        )
    for name, value in [
        ("x-bin", "!!!"),
        ("x-bin", "AAA"),
        ("grpc-trace-bin", "\xff"),
        ("grpc-accept-encoding", "x" * 5000),
        ("grpc-status", "0"),
        ("grpc-message", "a"),
        ("grpc-internal", "1"),
        ("user-agent", ""),
        ("triton_grpc_error", "true"),
        ("weir-actor", "\x7f"),
        ("weir-actor", "a" * 500),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("grpc-previous-rpc-attempts", "-1"),
        ("host", "\xff"),
        ("x", "\0"),
    ]:
        yield Case(f"metadata {name} {value[:9]!r}", call(good, INFER, (name, value)))
    yield Case("metadata of 16 KiB", call(good, INFER, ("x", "y" * 15_000)))
    yield Case("1 000 metadata", call(good, INFER, *[("x", "y")] * 1000))


def _streams():
    path = SERVICE + "ModelStreamInfer"
    good, bad = message(ask()), message(ask("nosuch"))
    yield Case("stream of good and bad", call((good + bad) * 20, path))
    yield Case("stream of good and garbage", call(good + message(b"\xff" * 20) + good, path))
    yield Case("stream cut", call(good + good[:20], path))
    yield Case("stream of nothing", call(b"", path))
    yield Case("stream whose length lies", call(good + message(b"", 1 << 31), path))
    yield Case("stream that is told real errors", call(bad + good, path, ("triton_grpc_error", "true")))
    yield Case("stream left open", HELLO + headers(1, *head(path)) + frame(DATA, 0, 1, good), ())
    yield Case(
        "stream reset",
        HELLO
        + headers(1, *head(path))
        + frame(DATA, 0, 1, good * 3)
        + frame(http2.RST_STREAM, 0, 1, struct.pack(">I", 8)),
        (),
    )
    yield Case("call left open", HELLO + headers(1, *head()) + frame(DATA, 0, 1, good[:30]), ())
    yield Case(
        "call left open with a timeout",
        HELLO + headers(1, *head(INFER, ("grpc-timeout", "500m"))) + frame(DATA, 0, 1, good[:30]),
    )
    yield Case("call without a body", HELLO + headers(1, *head(), flags=END_HEADERS | END_STREAM))
    yield Case(
        "call in frames of a byte",
        HELLO
        + headers(1, *head())
        + b"".join(frame(DATA, 0, 1, bytes([b])) for b in good)
        + frame(DATA, END_STREAM, 1),
    )
    many = b"".join(headers(1 + 2 * i, *head()) + frame(DATA, END_STREAM, 1 + 2 * i, good) for i in range(150))
    yield Case("150 calls at once", HELLO + many, tuple(range(1, 301, 2)))
    reset = b"".join(
        headers(1 + 2 * i, *head())
        + frame(DATA, END_STREAM, 1 + 2 * i, good)
        + frame(http2.RST_STREAM, 0, 1 + 2 * i, struct.pack(">I", 8))
        for i in range(1500)
    )
    yield Case("1 500 calls that are reset", HELLO + reset, ())


def _noise(drawn):
    good = ask()
    for i in range(250):
        spoilt = bytearray(good)
        for _ in range(drawn.randrange(1, 5)):
            spoilt[drawn.randrange(len(spoilt))] = drawn.randrange(256)
        yield Case(f"message spoilt {i}", call(message(bytes(spoilt))))
    for i in range(100):
        yield Case(f"message random {i}", call(message(drawn.randbytes(drawn.randrange(1, 300)))))

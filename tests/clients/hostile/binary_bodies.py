"""Hostile binary bodies: tensors whose lengths lie, raw tensors, strings without their ends, and packed bodies."""

import gzip
import json
import struct
import zlib

from .http1 import Case, request

LENGTH = "Inference-Header-Content-Length"


def binary(inputs, blob, length=None, model="simple", path=None, headers=(), parameters=None):
    """`inputs` is (name, datatype, shape, binary_data_size); `length` the header's value if it lies."""
    head = json.dumps(
        {
            "inputs": [
                {"name": n, "datatype": t, "shape": s, "parameters": {"binary_data_size": size}}
                for n, t, s, size in inputs
            ],
            "parameters": parameters or {},
        }
    ).encode()
    length = str(len(head)) if length is None else length
    return request(path=path or f"/v2/models/{model}/infer", body=head + blob, headers=[(LENGTH, length), *headers])


def cases():
    yield from _lengths()
    yield from _sizes()
    yield from _raw()
    yield from _strings()
    yield from _packed()


TWO = [("INPUT0", "INT32", [1, 16], 64), ("INPUT1", "INT32", [1, 16], 64)]


def _lengths():
    for length in [
        "0",
        "1",
        "-1",
        "+5",
        "",
        " ",
        "abc",
        "1e3",
        "99999",
        "18446744073709551615",
        "18446744073709551616",
        "9" * 500,
        "0x10",
        "1.0",
        "5,5",
        "\xb2",
        " 7 ",
        "00000000000000000000005",
    ]:
        yield Case(f"{LENGTH} {length[:25]!r}", binary(TWO, bytes(128), length))
    yield Case(f"{LENGTH} twice", binary(TWO, bytes(128), headers=[(LENGTH, "3")]))
    for wrong in (-1, 1, -9, 100):
        whole = len(json.dumps({"inputs": []}))
        yield Case(f"{LENGTH} off by {wrong}", binary(TWO, bytes(128), str(whole + wrong)))
    for extra in (0, 1, 127, 129, 100_000):
        yield Case(f"{extra} bytes for 128", binary(TWO, bytes(extra)))


def _sizes():
    for size in (
        0,
        1,
        63,
        65,
        128,
        -1,
        -64,
        1 << 31,
        1 << 32,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
        1 << 64,
        64.0,
        64.5,
        "64",
        None,
        True,
        [64],
        {},
        1e300,
    ):
        yield Case(f"size {size}", binary([("INPUT0", "INT32", [1, 16], size), TWO[1]], bytes(128)))
        yield Case(
            f"both sizes {size}",
            binary([("INPUT0", "INT32", [1, 16], size), ("INPUT1", "INT32", [1, 16], size)], bytes(128)),
        )
    most = (1 << 64) - 64
    yield Case(
        "sizes that overflow together",
        binary([("INPUT0", "INT32", [1, 16], most), ("INPUT1", "INT32", [1, 16], 128)], bytes(128)),
    )
    for shape in ([0, 16], [-1, 16], [1 << 60, 16], [1 << 62, 4], [], [1] * 1000, [2, 16], [1, 1 << 62]):
        yield Case(f"shape {str(shape)[:30]}", binary([("INPUT0", "INT32", shape, 64), TWO[1]], bytes(128)))
    yield Case("no rows", binary([("INPUT0", "INT32", [0, 16], 0), ("INPUT1", "INT32", [0, 16], 0)], b""))
    for datatype in ("BYTES", "BOOL", "FP32", "INT64", "FP16", "", "X"):
        yield Case(f"datatype {datatype}", binary([("INPUT0", datatype, [1, 16], 64), TWO[1]], bytes(128)))
    both = json.dumps(
        {
            "inputs": [
                {
                    "name": "INPUT0",
                    "datatype": "INT32",
                    "shape": [1, 16],
                    "data": [1] * 16,
                    "parameters": {"binary_data_size": 64},
                }
            ]
        }
    ).encode()
    yield Case("data and binary", request(body=both + bytes(64), headers=[(LENGTH, str(len(both)))]))
    yield Case("binary without the header", request(body=both + bytes(64)))
    many = [(f"I{i}", "INT32", [1, 1], 4) for i in range(20_000)]
    yield Case("20 000 inputs", binary(many, bytes(80_000)))


def _raw():
    for path in (
        "/v2/models/simple/infer",
        "/v2/models/digits/infer",
        "/v2/models/tickets/infer",
        "/v2/models/nosuch/infer",
        "/v2/models/breast_cancer/infer",
    ):
        for size in (0, 1, 3, 119, 120, 121, 255, 256, 257, 512, 100_000):
            yield Case(f"raw {size} for {path}", request(path=path, body=bytes(size), headers=[(LENGTH, "0")]))
    yield Case("raw of 0xff", request(path="/v2/models/tickets/infer", body=b"\xff" * 64, headers=[(LENGTH, "0")]))


def text(*parts):
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def _strings():
    def ask(name, blob, shape, size=None):
        return Case(
            f"text {name}",
            binary([("text", "BYTES", shape, len(blob) if size is None else size)], blob, model="tickets"),
        )

    yield ask("good", text(b"hello"), [1, 1])
    for name, blob in {
        "prefix beyond": struct.pack("<I", 6) + b"hello",
        "prefix huge": struct.pack("<I", 0xFFFFFFFF) + b"hello",
        "prefix of 2 GiB": struct.pack("<I", 0x7FFFFFFF) + b"hello",
        "prefix cut": b"\x05\0\0",
        "prefix alone": struct.pack("<I", 5),
        "bytes left over": text(b"hello") + b"xx",
        "two for one": text(b"a", b"b"),
        "none for one": b"",
        "not UTF-8": text(b"\xff\xfe\xc0"),
        "surrogate": text(b"\xed\xa0\x80"),
        "NUL": text(b"\0"),
        "NULs": text(b"a\0b\0\0"),
        "empty": text(b""),
        "a megabyte": text(b"word " * 200_000),
        "a megabyte of one word": text(b"a" * 1_000_000),
        "emoji": text("💩".encode() * 1000),
        "lines": text(b"\r\n" * 100),
        "escape codes": text(b"\x1b[2J" * 10),
        "overlong": text(b"\xf0\x82\x82\xac"),
        "cut in a character": text("é".encode()[:1]),
        "combining": text("e".encode() + "\u0301".encode() * 10_000),
        "format": text(b"%s%n%x"),
        "spaces": text(b" " * 10_000),
        "continuation bytes": text(b"\x80" * 1000),
    }.items():
        yield ask(name, blob, [1, 1])
    yield ask("empties 100 000 for one", text(*[b""] * 100_000), [1, 1])
    yield ask("too many rows", text(*[b"a"] * 4000), [4000, 1])
    yield ask("rows, one spoilt", text(b"good", b"\xff", b"fine"), [3, 1])
    yield ask("no rows", b"", [0, 1])
    yield ask("no columns", b"", [1, 0])
    yield ask("shape huge", text(b"a"), [1 << 40, 1 << 20])


def _packed():
    from .http1 import SIMPLE

    def packed(name, body, coding="gzip", **more):
        return Case(f"packed {name}", request(body=body, headers=[("Content-Encoding", coding)], **more))

    good = gzip.compress(SIMPLE)
    yield packed("gzip", good)
    yield packed("deflate", zlib.compress(SIMPLE), "deflate")
    raw = zlib.compressobj(wbits=-15)
    yield packed("deflate, raw", raw.compress(SIMPLE) + raw.flush(), "deflate")
    yield packed("gzip said deflate", good, "deflate")
    yield packed("deflate said gzip", zlib.compress(SIMPLE))
    yield packed("plain said gzip", SIMPLE)
    yield packed("gzip not said", good, "identity")
    yield packed("nothing", b"")
    for at in range(0, len(good), 9):
        yield packed(f"cut at {at}", good[:at])
    for at in range(0, len(good), 11):
        yield packed(f"spoilt at {at}", good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
    yield packed("twice", gzip.compress(good))
    yield packed("twice and said", gzip.compress(good), "gzip, gzip")
    yield packed("two members", gzip.compress(SIMPLE[:100]) + gzip.compress(SIMPLE[100:]))
    yield packed("50 000 empty members", gzip.compress(b"") * 50_000)
    yield packed("garbage behind", good + b"garbage")
    yield packed("NULs behind", good + bytes(1000))
    yield packed("header of a mebibyte", good[:3] + b"\x08" + good[4:10] + b"n" * (1 << 20) + b"\0" + good[10:])
    yield packed("header without end", good[:3] + b"\x08" + good[4:10] + b"n" * 100_000)
    for coding in (
        "br",
        "zstd",
        "compress",
        "x-gzip",
        "GZIP",
        "gzip;q=1",
        "",
        ",",
        "gzip,",
        "\xff",
        "a" * 5000,
        "identity, gzip",
    ):
        yield packed(f"coding {coding[:20]!r}", good, coding)
    bomb = zlib.compressobj(9)
    squeezed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(300)) + bomb.flush()
    yield packed("300 MiB of NULs", squeezed, "deflate")
    yield packed("JSON of 40 MiB of spaces", zlib.compress(b" " * (40 << 20) + SIMPLE, 9), "deflate")
    yield packed("JSON of a million lists", zlib.compress(b"[" * 1_000_000, 9), "deflate")
    head = json.dumps(
        {
            "inputs": [
                {"name": n, "datatype": "INT32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
                for n in ("INPUT0", "INPUT1")
            ]
        }
    ).encode()
    for length in (len(head), len(head) + 1, 0, 10_000):
        yield Case(
            f"packed binary, length {length}",
            request(
                body=gzip.compress(head + bytes(128)), headers=[("Content-Encoding", "gzip"), (LENGTH, str(length))]
            ),
        )

"""Hostile HTTP/2: frames in the wrong order, of the wrong size, or without end, on any port that speaks it."""

import random
import struct

from .http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    HELLO,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    ROOM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Case,
    block,
    frame,
    headers,
    literal,
    settings,
)


def cases(good_headers=GET, body=b"", seed=3):
    """For any port that speaks HTTP/2: `good_headers` and `body` make a good request there."""
    ends = END_HEADERS | (0 if body else END_STREAM)

    def good(stream=1):
        return headers(stream, *good_headers, flags=ends) + (frame(DATA, END_STREAM, stream, body) if body else b"")

    yield Case("good", HELLO + good())
    yield from _prefaces(good)
    yield from _frames(good)
    yield from _blocks(good, good_headers)
    yield from _orders(good, good_headers, body)
    yield from _floods(good, good_headers)
    yield from _noise(good, random.Random(seed))


def _prefaces(good):
    for name, data in {
        "none": settings(),
        "cut": PREFACE[:-3],
        "wrong": PREFACE.replace(b"SM", b"XM"),
        "twice": PREFACE * 2,
        "without settings": PREFACE,
        "settings first": settings() + PREFACE,
        "lower case": PREFACE.lower(),
        "in HTTP/2.1": PREFACE.replace(b"2.0", b"2.1"),
        "settings cut": PREFACE + settings((4, 5))[:-2],
        "ping first": PREFACE + frame(PING, payload=bytes(8)),
    }.items():
        yield Case(f"preface {name}", data + good(), ())


def _frames(good):
    for kind in (10, 11, 12, 99, 255):
        for flags in (0, 0xFF):
            yield Case(f"unknown frame {kind} {flags}", HELLO + frame(kind, flags, 7, bytes(50)) + good())
    for kind in range(10):
        for stream in (0, 1, 2, 3, 0x7FFFFFFF, 0xFFFFFFFF):
            for size in (0, 1, 4, 5, 8, 9, 17):
                yield Case(
                    f"frame {kind} on {stream} of {size}", HELLO + frame(kind, 0, stream, bytes(size)) + good(), ()
                )
        yield Case(f"frame {kind} with all flags", HELLO + frame(kind, 0xFF, 1, b"\xff" * 20) + good(), ())
        yield Case(f"frame {kind} too long", HELLO + frame(kind, 0, 0, bytes(16_385)) + good(), ())
        yield Case(f"frame {kind} of 16 MiB said", HELLO + frame(kind, 0, 1, bytes(100), length=0xFFFFFF), ())
        yield Case(f"frame {kind} cut", HELLO + frame(kind, 0, 1, bytes(20))[:12], ())
    for setting, number in [
        (1, 0),
        (1, 0xFFFFFFFF),
        (2, 2),
        (2, 1),
        (3, 0),
        (3, 0xFFFFFFFF),
        (4, 0x80000000),
        (4, 0x7FFFFFFF),
        (4, 0),
        (5, 0),
        (5, 16_383),
        (5, 0xFFFFFF),
        (5, 0x1000000),
        (6, 0),
        (8, 2),
        (0, 0),
        (0xFFFF, 0xFFFFFFFF),
    ]:
        yield Case(
            f"setting {setting} = {number}",
            PREFACE + settings((4, 1 << 24), (setting, number)) + ROOM + good(),
            () if (setting, number) == (4, 0) else (1,),
        )
    yield Case("settings of 5 bytes", HELLO + frame(SETTINGS, payload=bytes(5)) + good(), ())
    yield Case("settings ACK with a payload", HELLO + frame(SETTINGS, ACK, 0, bytes(6)) + good(), ())
    yield Case("settings ACK for nothing", HELLO + frame(SETTINGS, ACK) * 5 + good(), ())
    yield Case("settings of 2 700 pairs", PREFACE + settings(*[(4, 1 << 24)] * 2700) + ROOM + good())
    for increment in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        for stream in (0, 1):
            yield Case(
                f"window {stream} + {increment}",
                HELLO + good() + frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment)),
                (),
            )
    yield Case(
        "window over its most", HELLO + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2 + good(), ()
    )
    yield Case("GOAWAY first", HELLO + frame(GOAWAY, payload=bytes(8)) + good(), ())
    yield Case("GOAWAY with words", HELLO + good() + frame(GOAWAY, payload=bytes(8) + b"bye" * 1000), ())
    yield Case(
        "push promise", HELLO + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + block(*GET)) + good(), ()
    )
    yield Case("priority on itself", HELLO + frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 255)) + good(), ())
    loop = b"".join(frame(PRIORITY, 0, 1 + 2 * i, struct.pack(">IB", 1 + 2 * ((i + 1) % 100), 255)) for i in range(100))
    yield Case("priorities in a loop", HELLO + loop * 20 + good(201), (201,))
    yield Case(
        "headers depend on themselves",
        HELLO + frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, struct.pack(">IB", 1, 1) + block(*GET)),
        (),
    )
    for pad in (0, 1, 200, 255):
        yield Case(
            f"padded {pad} beyond",
            HELLO + frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, bytes([pad]) + block(*GET)[:pad]),
            (),
        )


def _blocks(good, good_headers):
    """Blocks of headers that HPACK does not allow, or that are bombs."""
    ends = END_HEADERS | END_STREAM
    for name, wrong in {
        "index 0": b"\x80",
        "index beyond": b"\xff\xff\xff\x7f",
        "index overflow": b"\xff" + b"\xff" * 20,
        "index just beyond": b"\xbe",
        "length beyond": b"\x10\x7f\xff\xff\xff\x7f",
        "length overflow": b"\x10\x7f" + b"\xff" * 20,
        "Huffman of ones": b"\x10\x84\xff\xff\xff\xff",
        "Huffman cut": b"\x10\x81\x00",
        "Huffman of EOS": b"\x10\x88" + b"\xff" * 8,
        "table of 4 GiB": b"\x3f\xe1\xff\xff\xff\x0f",
        "table changed at the end": block(*GET) + b"\x20",
        "table changed 1000 times": b"\x20" * 1000 + block(*GET),
        "table overflow": b"\x3f" + b"\xff" * 12,
        "nothing": b"",
        "ones": b"\xff" * 100,
        "NULs": bytes(100),
        "integer without end": b"\x80" + b"\x80" * 500,
        "name of index 0": b"\x00",
    }.items():
        yield Case(f"block {name}", HELLO + frame(HEADERS, ends, 1, wrong))
    pseudo = dict(good_headers)

    def asked(*pairs):
        return HELLO + headers(1, *pairs, flags=ends)

    rest = [(k, v) for k, v in good_headers if not k.startswith(":")]
    for missing in (":method", ":path", ":scheme", ":authority"):
        yield Case(f"without {missing}", asked(*[(k, v) for k, v in good_headers if k != missing]))
        yield Case(f"{missing} twice", asked(*good_headers[:4], (missing, pseudo.get(missing, "x")), *rest))
        yield Case(f"{missing} empty", asked(*[(k, "" if k == missing else v) for k, v in good_headers]))
        for wrong in ("\0", "\r\nx: y", " ", "\xff", "a" * 9000, "%00", "*", "é"):
            yield Case(f"{missing} {wrong[:8]!r}", asked(*[(k, wrong if k == missing else v) for k, v in good_headers]))
    yield Case("pseudo-headers last", asked(*rest, ("x", "y"), *good_headers[:4]))
    yield Case("pseudo-header unknown", asked((":evil", "1"), *good_headers))
    yield Case("pseudo-header of an answer", asked((":status", "200"), *good_headers))
    yield Case("protocol", asked((":protocol", "websocket"), *good_headers))
    for name in (
        "",
        " ",
        "A",
        "Host",
        "a b",
        "a\0",
        "a:b",
        "\xff",
        "a\r\nb",
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "host",
        "content-length",
        "a" * 9000,
        "a" * 70_000,
        "cookie",
        "expect",
    ):
        for value in ("", "1", "chunked", "\r\nx: y", "\0", " a ", "\xff", "v" * 9000):
            yield Case(f"header {name[:12]!r}: {value[:8]!r}", asked(*good_headers, (name, value)))
    yield Case("content-length that lies", asked(*good_headers, ("content-length", "50")))
    yield Case("two content-lengths", asked(*good_headers, ("content-length", "0"), ("content-length", "5")))
    yield Case("1 000 headers", asked(*good_headers, *[("x", "y")] * 1000))
    # A bomb: one large value put into the table, then named thousands of times, a byte each.
    big = b"\x40" + literal("x") + literal("y" * 3800)
    yield Case("bomb of indexes", HELLO + frame(HEADERS, ends, 1, block(*good_headers) + big + b"\xbe" * 12_000))
    pieces = [block(*good_headers) + big, *[b"\xbe" * 16_000] * 60]
    bomb = (
        frame(HEADERS, END_STREAM, 1, pieces[0])
        + b"".join(frame(CONTINUATION, 0, 1, p) for p in pieces[1:-1])
        + frame(CONTINUATION, END_HEADERS, 1, pieces[-1])
    )
    yield Case("bomb of indexes over continuations", HELLO + bomb)


def _orders(good, good_headers, body):
    """Frames that are good by themselves, in an order that is not."""
    ends = END_HEADERS | END_STREAM
    whole = block(*good_headers)
    first = frame(HEADERS, END_STREAM, 1, whole[:10])
    rest = frame(CONTINUATION, END_HEADERS, 1, whole[10:])
    yield Case("continued", HELLO + first + rest)
    for name, between in {
        "data": frame(DATA, 0, 1, b"x"),
        "ping": frame(PING, payload=bytes(8)),
        "settings": settings(),
        "headers of another": headers(3, *GET, flags=ends),
        "unknown": frame(99, 0, 1),
        "continuation of another": frame(CONTINUATION, 0, 3, b""),
        "reset": frame(RST_STREAM, 0, 1, bytes(4)),
    }.items():
        yield Case(f"{name} before the continuation", HELLO + first + between + rest, ())
    yield Case("continuation of nothing", HELLO + frame(CONTINUATION, END_HEADERS, 1, whole), ())
    yield Case("never continued", HELLO + first, ())
    yield Case("continued by nothing 1 000 times", HELLO + first + frame(CONTINUATION, 0, 1) * 1000 + rest, ())
    yield Case("data on no stream", HELLO + frame(DATA, 0, 1, b"x") + good(3), ())
    yield Case("data on stream 0", HELLO + frame(DATA, 0, 0, b"x") + good(), ())
    yield Case("data after the end", HELLO + good() + frame(DATA, 0, 1, b"x" * 1000) * 3, ())
    yield Case("headers after the end", HELLO + good() + headers(1, *good_headers, flags=ends), ())
    yield Case("even stream", HELLO + good(2), ())
    yield Case("streams backwards", HELLO + good(9) + good(3), ())
    yield Case("stream of the last number", HELLO + good(0x7FFFFFFF), (0x7FFFFFFF,))
    yield Case("stream number with its high bit", HELLO + good(0x80000001), ())
    yield Case("stream used twice", HELLO + good() + good(), ())
    yield Case("reset of nothing", HELLO + frame(RST_STREAM, 0, 5, bytes(4)) + good(), ())
    yield Case(
        "reset at once",
        HELLO + headers(1, *good_headers) + frame(RST_STREAM, 0, 1, struct.pack(">I", 8)) + good(3),
        (3,),
    )
    yield Case("reset after the end", HELLO + good() + frame(RST_STREAM, 0, 1, struct.pack(">I", 8)) * 3, ())
    yield Case(
        "trailers",
        HELLO
        + headers(1, *good_headers)
        + (frame(DATA, 0, 1, body) if body else b"")
        + headers(1, ("x", "y"), flags=ends),
    )
    yield Case(
        "trailers with pseudo-headers", HELLO + headers(1, *good_headers) + headers(1, (":path", "/x"), flags=ends), ()
    )
    yield Case("trailers without end", HELLO + headers(1, *good_headers) + headers(1, ("x", "y")), ())
    yield Case("data without end", HELLO + headers(1, *good_headers) + frame(DATA, 0, 1, b"x"), ())
    yield Case("data beyond the window", HELLO + headers(1, *good_headers) + frame(DATA, 0, 1, bytes(16_384)) * 20, ())
    yield Case("no room for the answer", PREFACE + settings((4, 0)) + good(), ())
    yield Case("100 at once", HELLO + b"".join(good(1 + 2 * i) for i in range(100)), tuple(range(1, 201, 2)))
    yield Case("2 000 at once", HELLO + b"".join(good(1 + 2 * i) for i in range(2000)), ())
    yield Case(
        "1 100 open and never ended", HELLO + b"".join(headers(1 + 2 * i, *good_headers) for i in range(1100)), ()
    )


def _floods(good, good_headers):
    """So much of one thing that a careless server keeps it, or answers it, without bound."""
    yield Case("PINGs 50 000", HELLO + frame(PING, payload=bytes(8)) * 50_000 + good(), ())
    yield Case("SETTINGS 50 000", HELLO + settings((4, 65_535)) * 50_000 + good(), ())
    yield Case("empty SETTINGS 50 000", HELLO + settings() * 50_000 + good(), ())
    yield Case("window updates 50 000", HELLO + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 50_000 + good(), ())
    yield Case(
        "priorities 50 000",
        HELLO + b"".join(frame(PRIORITY, 0, 3 + 2 * i, struct.pack(">IB", 0, 1)) for i in range(50_000)) + good(),
        (),
    )
    yield Case("unknown frames 50 000", HELLO + frame(77, 0, 0, b"x") * 50_000 + good(), ())
    yield Case("empty data 50 000", HELLO + headers(1, *good_headers) + frame(DATA, 0, 1) * 50_000, ())
    yield Case(
        "padded data 5 000", HELLO + headers(1, *good_headers) + frame(DATA, PADDED, 1, b"\x09" + bytes(9)) * 5_000, ()
    )
    yield Case("GOAWAYs 10 000", HELLO + frame(GOAWAY, payload=bytes(8)) * 10_000, ())
    first = frame(HEADERS, END_STREAM, 1, block(*good_headers))
    yield Case("continuations 10 000 empty", HELLO + first + frame(CONTINUATION, 0, 1) * 10_000, ())
    yield Case(
        "continuations 1 000 full", HELLO + first + frame(CONTINUATION, 0, 1, block(("x", "y" * 8000))) * 1_000, ()
    )
    rapid = b"".join(
        headers(1 + 2 * i, *good_headers, flags=END_HEADERS | END_STREAM)
        + frame(RST_STREAM, 0, 1 + 2 * i, struct.pack(">I", 8))
        for i in range(20_000)
    )
    yield Case("rapid resets 20 000", HELLO + rapid, ())
    wrong = b"".join(
        headers(1 + 2 * i, *good_headers, ("A", "b"), flags=END_HEADERS | END_STREAM) for i in range(5_000)
    )
    yield Case("malformed requests 5 000", HELLO + wrong, ())
    windows = b"".join(
        headers(1 + 2 * i, *good_headers) + frame(WINDOW_UPDATE, 0, 1 + 2 * i, bytes(4)) for i in range(5_000)
    )
    yield Case("resets that the server makes 5 000", HELLO + windows, ())


def _noise(good, drawn):
    sent = HELLO + good()
    for i in range(150):
        spoilt = bytearray(sent)
        for _ in range(drawn.randrange(1, 5)):
            spoilt[drawn.randrange(24, len(spoilt))] = drawn.randrange(256)
        yield Case(f"spoilt {i}", bytes(spoilt), ())
    for i in range(100):
        frames = b"".join(
            frame(
                drawn.randrange(12),
                drawn.choice([0, 1, 4, 5, 8, 0x20, 255]),
                drawn.choice([0, 1, 1, 2, 3, 5]),
                drawn.randbytes(drawn.choice([0, 1, 4, 5, 6, 8, 40])),
            )
            for _ in range(drawn.randrange(1, 12))
        )
        yield Case(f"random frames {i}", HELLO + frames, ())
    for i in range(50):
        yield Case(f"random bytes {i}", PREFACE + drawn.randbytes(drawn.randrange(1, 500)), ())

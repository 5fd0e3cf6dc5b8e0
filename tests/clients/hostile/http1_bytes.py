"""Hostile HTTP/1: bytes that are no request, requests that lie about themselves, and other protocols."""

import random

from .http1 import GOOD, SIMPLE, Case, request


def cases(seed=1):
    drawn = random.Random(seed)
    yield from _request_lines()
    yield from _paths(drawn)
    yield from _headers()
    yield from _lengths()
    yield from _chunks()
    yield from _cut()
    yield from _noise(drawn)
    yield from _other_protocols()


METHODS = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "BREW",
    "PROPFIND",
    "get",
    "G\0ET",
    "",
    " ",
    "A" * 300,
    "PRI",
    "*",
    "\xff",
    "GET\tPOST",
    "()<>",
]
ENDPOINTS = [
    "/",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/simple",
    "/v2/models/simple/ready",
    "/v2/models/simple/config",
    "/v2/models/simple/stats",
    "/v2/models/stats",
    "/v2/models/simple/infer",
    "/v2/models/simple/versions/1/infer",
    "/v2/repository/index",
    "/v2/logging",
    "/control/v1/models",
    "/control/v1/audit",
]
# Offered by Triton and not here: 501 is what README.md promises.
NOT_OFFERED = [
    "/trace/setting",
    "/v2/logging",
    "/v2/systemsharedmemory",
    "/v2/cudasharedmemory",
    "/generate",
    "/generate_stream",
]


def _promised(path):
    return (501,) if any(part in path for part in NOT_OFFERED) else ()


def _request_lines():
    for method in METHODS:
        for path in ENDPOINTS:
            yield Case(f"method {method[:9]!r} {path}", request(method, path, b"{}"), promised=_promised(path))
    for version in [
        b"HTTP/0.9",
        b"HTTP/1.0",
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/3",
        b"HTTP/9999999.1",
        b"HTTP/1.1 ",
        b"http/1.1",
        b"",
        b"HTTP/",
        b"HTTP/1.",
        b"HTTP/1.1\0",
        b"SIP/2.0",
        b"\xff",
    ]:
        yield Case(f"version {version!r}", request(version=version, body=SIMPLE))
    for line in [
        b"GET /v2\r\n\r\n",
        b"GET  /v2  HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\nGET /v2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b" GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\nHost: a\n\n",
        b"GET /v2 HTTP/1.1\rHost: a\r\r",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
        b"GET\r\n",
        b"\0",
        b"\n",
        b"\r\n",
        b" \r\n",
        b"GET /v2 HTTP/1.1 x\r\n\r\n",
        b"GET\x0b/v2\x0bHTTP/1.1\r\n\r\n",
        b"GET /v2\tHTTP/1.1\r\n\r\n",
        "GET /v2 HTTP/1.1\r\n\r\n".encode("utf-16"),
        b"\xef\xbb\xbfGET /v2 HTTP/1.1\r\n\r\n",
    ]:
        yield Case(f"line {line[:40]!r}", line)
        yield Case(f"line {line[:40]!r}, left open", line + GOOD)


NAMES = [
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "..%5c..",
    "%00",
    "simple%00",
    "%",
    "%2",
    "%zz",
    "%ff",
    "%c0%ae%c0%ae",
    "%252e%252e",
    "a" * 129,
    "a" * 8000,
    "simple%0d%0aX-Evil:%201",
    "simple%20",
    "%20simple",
    "simple;x=1",
    "simple?x",
    "simple#x",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "'; DROP TABLE models; --",
    "simple/../simple",
    "con",
    "~root",
    "%u0073imple",
    "s%69mple",
    "SIMPLE",
    "%f0%9f%92%a9",
    "%ed%a0%80",
    "*",
    "|id",
    "`id`",
    "$(id)",
    "simple%2fversions%2f1",
    "\xe4\xf6",
    ".train",
    "-1",
    "0",
    "null",
    "undefined",
    "__proto__",
    "stats",
    "versions",
]
VERSIONS = [
    "0",
    "-1",
    "1e3",
    "1.0",
    "01",
    "%31",
    "9" * 18,
    "9" * 19,
    "9" * 400,
    "18446744073709551617",
    "NaN",
    "1%00",
    "..",
    "%2e%2e",
    "",
    "stable",
    "a" * 400,
    "1/../2",
    "+1",
    "0x1",
    "\xb2",
]
TAILS = [
    "",
    "/infer",
    "/ready",
    "/config",
    "/stats",
    "/versions/1/infer",
    "/infer/",
    "//infer",
    "/infer/../ready",
    "/generate",
    "/trace/setting",
    "/infer%00",
    "/INFER",
]


def _paths(drawn):
    for name in NAMES:
        for tail in TAILS:
            method = "POST" if "infer" in tail else "GET"
            path = f"/v2/models/{name}{tail}"
            yield Case(
                f"name {path[:60]!r}",
                request(method, path, SIMPLE if method == "POST" else b""),
                promised=_promised(path),
            )
        for kind in ("load", "unload"):
            # Static control: loading is not allowed, which is 503 by README.md's table.
            yield Case(
                f"repository {name[:40]!r} {kind}",
                request("POST", f"/v2/repository/models/{name}/{kind}", b"{}"),
                promised=(503,),
            )
        for tail in (
            "",
            "/route",
            "/rollback",
            "/labels/x",
            "/versions/1/load",
            "/rollouts",
            "/shadows",
            "/experiments",
        ):
            yield Case(f"control {name[:40]!r} {tail}", request("GET", f"/control/v1/models/{name}{tail}"))
    for version in VERSIONS:
        for tail in ("", "/infer", "/ready", "/config", "/stats"):
            method = "POST" if tail == "/infer" else "GET"
            yield Case(
                f"version {version[:30]!r}{tail}",
                request(method, f"/v2/models/simple/versions/{version}{tail}", SIMPLE if tail == "/infer" else b""),
            )
    for path in [
        "*",
        "",
        "v2",
        "http://weir/v2",
        "http://user:pass@[::1]:99999/v2",
        "https://evil/v2/models/simple/infer",
        "//v2",
        "/v2//models",
        "/v2/./models/simple",
        "/v2/../v2",
        "/v2?" + "a=b&" * 2000,
        "/v2#fragment",
        "/" + "a/" * 4000,
        "/v2/models/simple/infer?" + "%00" * 100,
        "/\xff\xfe",
        "/v2 /x",
        "/v2\\models",
        "?",
        "/v2/models/simple?\r\nX: y",
        "/" * 9000,
        "weir:80",
        "/%",
        "http://",
        "http:///v2",
        "file:///etc/passwd",
        "/v2/models/simple/infer;jsessionid=1",
        "/v2\x7f",
        "/v2\x01",
        "/" + "%41" * 3000,
        "/v2/health",
        "/v2/health/live/",
        "/metrics",
        "/favicon.ico",
        "/.git/config",
    ]:
        for method in ("GET", "POST", "CONNECT", "OPTIONS"):
            yield Case(f"path {method} {path[:50]!r}", request(method, path))
    letters = "/.%\\0aAzZ~:;?#[]@!$&'()*+,=\xe4\x80\xff\t"
    for i in range(300):
        path = "/v2/" + "".join(drawn.choice(letters) for _ in range(drawn.randrange(1, 60)))
        yield Case(f"path drawn {i}", request(drawn.choice(["GET", "POST"]), path))


def _headers():
    infer = lambda *headers, **more: request(headers=headers, body=SIMPLE, **more)  # noqa: E731
    values = [
        "",
        " ",
        "\0",
        "\xff\xfe",
        "a" * 9000,
        "\x1b[2J",
        "a\tb",
        "-1",
        "0",
        "18446744073709551616",
        "NaN",
        ",",
        ";",
        '"',
        "\\",
        "a\x7f",
        "1, 2",
        "%00",
        "\x0b",
    ]
    names = [
        "Inference-Header-Content-Length",
        "Content-Encoding",
        "Accept-Encoding",
        "Accept",
        "Content-Type",
        "Expect",
        "If-Match",
        "weir-actor",
        "traceparent",
        "Authorization",
        "Cookie",
        "Range",
        "Upgrade",
        "TE",
        "Trailer",
        "X-Forwarded-For",
        "Keep-Alive",
        "Max-Forwards",
        "Date",
        "HTTP2-Settings",
        "Origin",
        "x-user-id",
    ]
    for name in names:
        for value in values:
            yield Case(f"header {name}: {value[:20]!r}", infer((name, value)))
    for name in [
        "",
        " ",
        "a b",
        "a:b",
        "a\0",
        "\xff",
        "a" * 70_000,
        "(",
        "Host ",
        "\tX",
        "X\r\n",
        ":",
        "=",
        "Content-Length\0",
    ]:
        yield Case(f"header name {name[:20]!r}", infer((name, "1")))
    for name, headers in {
        "200 headers": [(f"x-{i}", "1") for i in range(200)],
        "100 000 headers": [(f"x-{i}", "1") for i in range(100_000)],
        "5 000 of one name": [("x", "1")] * 5000,
        "one of a mebibyte": [("x", "y" * (1 << 20))],
        "folded": [("x", "a\r\n b\r\n\tc")],
        "two hosts": [("Host", "a"), ("Host", "b")],
        "host of no sense": [("Host", "[::1]:99999\xff")],
        "expect 100": [("Expect", "100-continue")],
        "expect more": [("Expect", "200-ok")],
        "upgrade to h2c": [
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAAQAoAAA"),
        ],
        "upgrade to websocket": [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "eA=="),
            ("Sec-WebSocket-Version", "13"),
        ],
        "connection names the length": [("Connection", "Content-Length, Host")],
        "accept nothing": [("Accept-Encoding", "gzip;q=nan, deflate;q=-1, *;q=99e999")],
        "accept 5 000 codings": [("Accept-Encoding", "gzip;q=0.1, " * 5000)],
    }.items():
        yield Case(f"headers: {name}", infer(*headers))
    yield Case("header without a colon", GOOD.replace(b"Host: weir", b"Host weir"))
    yield Case("header after a space", GOOD.replace(b"Host: weir", b" Host: weir"))
    yield Case("no host", GOOD.replace(b"Host: weir\r\n", b""))
    yield Case("lines end in LF", GOOD.replace(b"\r\n", b"\n"))
    yield Case("lines end in CR", GOOD.replace(b"\r\n", b"\r"))
    yield Case("NUL within a line", GOOD.replace(b"weir", b"we\0ir"))


def _lengths():
    """Lengths that disagree with the body, and with each other; requests smuggled behind one another."""
    head = b"POST /v2/models/simple/infer HTTP/1.1\r\nHost: weir\r\n"
    n = b"%d" % len(SIMPLE)
    for value in [
        b"-1",
        b"+5",
        b"0x10",
        b"1e3",
        b"",
        b" ",
        b"abc",
        b"18446744073709551615",
        b"18446744073709551616",
        b"9" * 400,
        b"1 1",
        b"5,5",
        b"5, 6",
        b"\xb2",
        b"00000000005",
        b"268435457",
        b"9223372036854775807",
        b"4294967297",
        n + b", " + n,
    ]:
        yield Case(f"length {value[:24]!r}", head + b"Content-Length: " + value + b"\r\n\r\n" + SIMPLE)
    for other in [
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Content-Length: " + n,
        b"content-length:\t" + n,
        b"Content-Length : 5",
    ]:
        yield Case(f"two lengths {other!r}", head + b"Content-Length: " + n + b"\r\n" + other + b"\r\n\r\n" + SIMPLE)
    for coding in [
        b"chunked",
        b"Chunked",
        b"chunked, identity",
        b"identity, chunked",
        b"gzip, chunked",
        b"chunked, chunked",
        b"xchunked",
        b"\x0bchunked",
        b"chunked\0",
        b" chunked",
        b"chunked;q=1",
        b"identity",
        b"gzip",
        b"",
        b",chunked",
        b'"chunked"',
    ]:
        for order in (0, 1):
            pair = [b"Transfer-Encoding: " + coding + b"\r\n", b"Content-Length: 5\r\n"]
            smuggled = b"0\r\n\r\nGET /v2/models/digits HTTP/1.1\r\nHost: smuggled\r\n\r\n"
            yield Case(
                f"smuggle {coding!r} {order}", head + b"".join(pair[::-1] if order else pair) + b"\r\n" + smuggled
            )
        yield Case(
            f"coding {coding!r}",
            head + b"Transfer-Encoding: " + coding + b"\r\n\r\n%x\r\n" % len(SIMPLE) + SIMPLE + b"\r\n0\r\n\r\n",
        )
    yield Case("two codings", head + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n")
    yield Case("coding in HTTP/1.0", head.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    yield Case("no length", head + b"\r\n" + SIMPLE)
    yield Case("length too short", head + b"Content-Length: 10\r\n\r\n" + SIMPLE)
    yield Case("length too long", head + b"Content-Length: 9999\r\n\r\n" + SIMPLE)
    yield Case("body with GET", request("GET", "/v2", SIMPLE))
    yield Case("body with GET of no length", b"GET /v2 HTTP/1.1\r\nHost: weir\r\n\r\n" + SIMPLE)
    kept = GOOD.replace(b"Connection: close\r\n", b"")
    yield Case("100 in a row", kept * 100 + GOOD)
    yield Case("good, bad, good", kept + b"NONSENSE\r\n\r\n" + GOOD)
    yield Case("good and garbage", kept + b"\0" * 1000)
    yield Case("1000 small in a row", b"GET /v2/health/live HTTP/1.1\r\nHost: weir\r\n\r\n" * 1000)


def _chunks():
    head = b"POST /v2/models/simple/infer HTTP/1.1\r\nHost: weir\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    good = b"%x\r\n" % len(SIMPLE) + SIMPLE + b"\r\n"
    for name, chunks in {
        "good": good + b"0\r\n\r\n",
        "bytes one by one": b"".join(b"1\r\n%c\r\n" % b for b in SIMPLE) + b"0\r\n\r\n",
        "size not hexadecimal": b"zz\r\nabc\r\n0\r\n\r\n",
        "size negative": b"-5\r\nabcde\r\n0\r\n\r\n",
        "size huge": b"ffffffffffffffff\r\nabc",
        "size too huge": b"f" * 40 + b"\r\nabc",
        "size 2 GiB": b"80000000\r\nabc",
        "size empty": b"\r\nabc\r\n0\r\n\r\n",
        "size with space": b" 5 \r\nabcde\r\n0\r\n\r\n",
        "size with 0x": b"0x5\r\nabcde\r\n0\r\n\r\n",
        "extension": b"%x;a=b\r\n" % len(SIMPLE) + SIMPLE + b"\r\n0\r\n\r\n",
        "extension of a mebibyte": b"5;" + b"a" * (1 << 20) + b"\r\nabcde\r\n0\r\n\r\n",
        "extensions without end": b"".join(b"1;" + b"a" * 200 + b"\r\nx\r\n" for _ in range(2000)) + b"0\r\n\r\n",
        "trailers": good + b"0\r\nX: y\r\nContent-Length: 9\r\n\r\n",
        "trailers of a mebibyte": good + b"0\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n",
        "50 000 trailers": good + b"0\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
        "no last chunk": good,
        "no line after a chunk": b"5\r\nabcde0\r\n\r\n",
        "chunk longer than said": b"3\r\nabcde\r\n0\r\n\r\n",
        "chunk shorter than said": b"9\r\nabcde\r\n0\r\n\r\n",
        "LF alone": good.replace(b"\r\n", b"\n") + b"0\n\n",
        "NULs": b"\0" * 100,
        "zeros first": b"0" * 64 + b"5\r\nabcde\r\n0\r\n\r\n",
        "nothing": b"0\r\n\r\n",
        "100 000 of one byte": b"1\r\n \r\n" * 100_000 + good + b"0\r\n\r\n",
        "trailer without colon": good + b"0\r\nxyz\r\n\r\n",
        "request behind": good + b"0\r\n\r\n" + GOOD,
    }.items():
        yield Case(f"chunks: {name}", head + chunks)


def _cut():
    """A good request, cut off at many places."""
    for at in sorted({*range(0, 140, 3), *range(140, len(GOOD), 23)}):
        yield Case(f"cut at {at}", GOOD[:at])


def _noise(drawn):
    for i in range(200):
        spoilt = bytearray(GOOD)
        for _ in range(drawn.randrange(1, 6)):
            spoilt[drawn.randrange(len(spoilt))] = drawn.randrange(256)
        yield Case(f"spoilt {i}", bytes(spoilt))
    for i in range(100):
        yield Case(f"random {i}", drawn.randbytes(drawn.randrange(1, 3000)))


TLS_HELLO = bytes.fromhex(
    "16030100c8010000c40303"
    + "5a" * 32
    + "20"
    + "a5" * 32
    + "003e130213031301c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035002f00ff0100003d"
    "000b000403000102000a000c000a001d0017001e001900180016000000170000000d001e001c04030503060308070808080908" + "0a" * 30
)


def _other_protocols():
    for name, data in {
        "TLS": TLS_HELLO,
        "SSLv2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(37),
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "SMTP": b"EHLO weir\r\nQUIT\r\n",
        "Redis": b"*1\r\n$4\r\nPING\r\n",
        "PROXY": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + GOOD,
        "PROXY 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + GOOD,
        "MongoDB": b"\x3a\0\0\0\x01\0\0\0\0\0\0\0\xd4\x07\0\0" + bytes(42),
        "Memcached": b"stats\r\n",
        "RTSP": b"OPTIONS rtsp://x RTSP/1.0\r\n\r\n",
        "DNS": b"\0\x1d" + bytes(29),
        "WebSocket frame": b"\x81\x85\0\0\0\0hello",
        "RDP": b"\x03\0\0\x13\x0e\xe0" + bytes(13),
        "preface cut": b"PRI * HTTP/2.0\r\n",
        "preface wrong": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + bytes(100),
    }.items():
        yield Case(f"protocol {name}", data)

"""HTTP/2 as bytes: frames and blocks of headers that may be wrong in any way, and how a test reads and judges answers."""

import contextlib
import dataclasses
import socket
import struct
import time

import hpack

from .http1 import ANSWER_SECONDS_MAX, PATIENCE_SECONDS, connect

PROBE = b"hostile?"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """A frame; `length` if it lies about its payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(*pairs):
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in pairs))


# Room for any answer, so that none waits for the client.
ROOM = frame(WINDOW_UPDATE, payload=struct.pack(">I", 1 << 24))
HELLO = PREFACE + settings((4, 1 << 24)) + ROOM


def literal(text):
    """A string as HPACK has it, not Huffman-coded."""
    text = text if isinstance(text, bytes) else text.encode("latin-1")
    return integer(len(text), 7) + text


def integer(number, bits, first=0):
    """HPACK's integers: what does not fit the prefix follows in groups of seven bits."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([first | number])
    out, number = bytearray([first | most]), number - most
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def block(*pairs):
    """A block of headers, each a literal that is never indexed: any bytes may stand in it."""
    return b"".join(b"\x10" + literal(name) + literal(value) for name, value in pairs)


def headers(stream, *pairs, flags=END_HEADERS):
    return frame(HEADERS, flags, stream, block(*pairs))


class Talk:
    """What a server said on one connection: headers and trailers, data, resets by stream; GOAWAY; how it ended."""

    def __init__(self):
        self.headers, self.data, self.resets, self.finished = {}, {}, {}, set()
        self.goaway, self.ended, self.seconds = None, "hangs", 0.0

    @property
    def statuses(self):
        return [int(h[":status"]) for h in self.headers.values() if ":status" in h]

    # gRPC's codes for faults of the server: UNKNOWN, INTERNAL, DATA_LOSS; UNAVAILABLE where it is not promised.
    OURS = {2, 13, 14, 15}

    def lost(self, case):
        """Why this is no end for a case, or None: each of its streams ends, or the connection does, in time."""
        if self.ended in ("hangs", "takes no more"):
            return f"the connection {self.ended}"
        if self.ended == "waits" and case.streams:
            return "a whole request was not answered"
        if wrong := [s for s in self.statuses if s >= 500 and s not in case.promised]:
            return f"status {wrong[0]}"
        if wrong := (set(self.codes) & self.OURS) - set(case.promised):
            return f"gRPC code {wrong.pop()}"
        return None

    @property
    def codes(self):
        """gRPC's status codes, whether in headers or in trailers."""
        return [int(h["grpc-status"]) for h in self.headers.values() if "grpc-status" in h]

    def __repr__(self):
        messages = [h.get("grpc-message", "")[:100] for h in self.headers.values() if "grpc-message" in h]
        ended = f"resets {self.resets} goaway {self.goaway} {self.ended} {self.seconds:.2f} s"
        return f"HTTP {self.statuses} gRPC {self.codes} {messages} {ended}"


def talk(address, data, streams=(1,), patience=None, seconds=ANSWER_SECONDS_MAX):
    """Sends bytes and reads until each of the streams has ended, or the connection has.

    After a silence the client goes on with what a good one would do, a PING, and after another it says that it sends no
    more: a server that waits for the rest of a frame is told from one that hangs. It must answer the one or end the
    connection at the other.
    """
    # Whoever waits for answers gives them time; whoever expects none asks soon.
    patience = patience or (seconds * 0.8 if streams else PATIENCE_SECONDS)
    heard, begun, buffer, decoder = Talk(), time.monotonic(), b"", hpack.Decoder()
    decoder.max_allowed_table_size = 1 << 20
    steps = [lambda stream: stream.sendall(frame(PING, payload=PROBE)), lambda stream: stream.shutdown(socket.SHUT_WR)]
    with connect(address, seconds) as stream:
        try:
            stream.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # ended before it had read everything
        except TimeoutError:
            heard.ended = "takes no more"
            return heard
        while (left := begun + seconds - time.monotonic()) > 0:
            stream.settimeout(min(left, patience) if steps else left)
            try:
                piece = stream.recv(1 << 16)
            except TimeoutError:
                if steps:
                    with contextlib.suppress(OSError):
                        steps.pop(0)(stream)
                continue
            except ConnectionResetError:
                heard.ended = "reset"
                break
            if not piece:
                heard.ended = "closed"
                break
            buffer, probed = read_frames(buffer + piece, decoder, heard)
            if probed:
                heard.ended = "waits"
                break
            if streams and all(s in heard.finished for s in streams):
                heard.ended = "answered"
                break
    heard.seconds = time.monotonic() - begun
    return heard


def read_frames(buffer, decoder, heard):
    """Takes whole frames; tells whether the PING was answered."""
    while len(buffer) >= 9:
        length = int.from_bytes(buffer[:3], "big")
        if len(buffer) < 9 + length:
            break
        kind, flags, stream = buffer[3], buffer[4], struct.unpack(">I", buffer[5:9])[0]
        payload, buffer = buffer[9 : 9 + length], buffer[9 + length :]
        if kind == HEADERS:
            told = {
                k if isinstance(k, str) else k.decode("latin-1"): v if isinstance(v, str) else v.decode("latin-1")
                for k, v in decoder.decode(payload, raw=True)
            }
            heard.headers.setdefault(stream, {}).update(told)
        elif kind == DATA:
            heard.data[stream] = heard.data.get(stream, b"") + payload
        elif kind == RST_STREAM:
            heard.resets[stream] = struct.unpack(">I", payload)[0]
            heard.finished.add(stream)
        elif kind == GOAWAY:
            heard.goaway = (struct.unpack(">I", payload[4:8])[0], payload[8:][:60])
        elif kind == PING and flags & ACK and payload == PROBE:
            return buffer, True
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            heard.finished.add(stream)
    return buffer, False


@dataclasses.dataclass(frozen=True)
class Case:
    """Bytes for one connection, after which some streams should have ended."""

    name: str
    data: bytes
    streams: tuple[int, ...] = (1,)
    # Statuses of 500 and above, and codes of gRPC, that the documentation promises for this case.
    promised: tuple[int, ...] = ()


GET = ((":method", "GET"), (":scheme", "http"), (":path", "/v2/health/live"), (":authority", "weir"))
ASK = headers(1, *GET, flags=END_HEADERS | END_STREAM)

"""HTTP/1 as bytes: how a test writes requests that may be wrong in any way, sends them, and judges what comes back."""

import dataclasses
import json
import re
import socket
import time

# What a client may count on: an answer or the end of the connection within this.
ANSWER_SECONDS_MAX = 5
# Silence after which a client that has sent no whole request says that it sends no more.
PATIENCE_SECONDS = 0.4


@dataclasses.dataclass(frozen=True)
class Case:
    """Bytes for one connection, and how they may end."""

    name: str
    data: bytes
    # Statuses of 500 and above that the documentation promises for this case.
    promised: tuple[int, ...] = ()


class Verdict:
    """What came back on a connection: the statuses of all answers in order, the last body, and how it ended."""

    def __init__(self, statuses, body, ended, seconds):
        self.statuses, self.body, self.ended, self.seconds = statuses, body, ended, seconds

    def lost(self, case):
        """Why this is no end for a case, or None: each request is answered, or its connection is closed in time."""
        if self.ended in ("hangs", "takes no more"):
            return f"the connection {self.ended}"
        if is_whole(case.data) and not self.statuses:
            return "a whole request was not answered"
        if wrong := [s for s in self.statuses if s >= 500 and s not in case.promised]:
            return f"status {wrong[0]}"
        return None

    def __repr__(self):
        return f"{self.statuses} {self.ended} in {self.seconds:.2f} s: {self.body[:200]!r}"


_ONE_LENGTH = re.compile(rb"^content-length: *(\d+) *\r$", re.MULTILINE | re.IGNORECASE)


def is_whole(data):
    """Whether the bytes begin with a request that nobody can take for cut off: its head has an end, and its body the
    length that it says."""
    head, divided, body = data.partition(b"\r\n\r\n")
    if not divided or not re.match(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n", head) or b"transfer-encoding" in head.lower():
        return False
    lengths = _ONE_LENGTH.findall(head + b"\r\n")
    return len(lengths) == 1 and len(lengths[0]) < 12 and len(body) >= int(lengths[0])


def connect(address, seconds=ANSWER_SECONDS_MAX):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=seconds)


def exchange(address, data, seconds=ANSWER_SECONDS_MAX):
    """Sends bytes and reads until the connection ends. A server that waits for the rest of a request is told, after a
    while, that there is none; it must then end the connection, though it need not answer."""
    begun, received, ended, whole = time.monotonic(), b"", "hangs", is_whole(data)
    with connect(address, seconds) as stream:
        try:
            stream.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before it had read everything
        except TimeoutError:
            return Verdict([], b"", "takes no more", time.monotonic() - begun)
        told = False
        while (left := begun + seconds - time.monotonic()) > 0:
            answered = answers_of(received)
            waits = told or (whole and not (answered[0] and answered[2]))
            stream.settimeout(left if waits else min(left, PATIENCE_SECONDS))
            try:
                piece = stream.recv(1 << 16)
            except TimeoutError:
                if told:
                    break
                told = _told_the_end(stream)
                continue
            except ConnectionResetError:
                ended = "reset"
                break
            if not piece:
                ended = "closed when told" if told else "closed"
                break
            received += piece
    statuses, body, _ = answers_of(received)
    return Verdict(statuses, body, ended, time.monotonic() - begun)


def _told_the_end(stream):
    try:
        stream.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # gone already, as the next read will tell
    return True


def answers_of(received):
    """The statuses in a stream of answers, the last body, and whether the last one is whole."""
    statuses, body, whole = [], b"", True
    while received:
        head, divided, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1."):
            return statuses, received, False
        status = int(head.split(None, 2)[1])
        if status != 100:
            statuses.append(status)
        if not divided:
            return statuses, head, False
        lines = head.lower().split(b"\r\n")[1:]
        lengths = [int(line.split(b":", 1)[1]) for line in lines if line.startswith(b"content-length:")]
        length = lengths[0] if lengths and status >= 200 else 0
        body, received, whole = rest[:length], rest[length:], len(rest) >= length
    return statuses, body, whole


def request(method="POST", path="/v2/models/simple/infer", body=b"", headers=(), version=b"HTTP/1.1", length=True):
    """A request with its length, and whatever else. All parts may be bytes, to be wrong in any way."""
    raw = lambda text: text if isinstance(text, bytes) else text.encode("latin-1")  # noqa: E731
    lines = [raw(method) + b" " + raw(path) + b" " + version, b"Host: weir"]
    lines += [raw(name) + b": " + raw(value) for name, value in headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\nConnection: close\r\n\r\n" + body


SIMPLE = json.dumps(
    {
        "inputs": [
            {"name": name, "datatype": "INT32", "shape": [1, 16], "data": list(range(16))}
            for name in ("INPUT0", "INPUT1")
        ]
    }
).encode()
GOOD = request(body=SIMPLE)

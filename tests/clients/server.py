"""A Weir under test: one that the caller started, or one started here on free ports."""

import collections
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

_ADDRESS = re.compile(r"^(http|grpc|metrics|control)\s+(\S+:\d+)\s*$")
# Loading a thousand models on a busy machine takes a while; a server that says nothing for this long hangs.
READY_SECONDS_MAX = 300
STOP_SECONDS_MAX = 20
END_SECONDS_MAX = 5


class Weir:
    """Where a server listens and which repository it serves."""

    def __init__(self, http, grpc, metrics, models):
        self.http = http
        self.grpc = grpc
        self.metrics = metrics
        self.models = Path(models)

    @classmethod
    def of_environment(cls):
        """The server that the environment names, or None."""
        if "WEIR_HTTP" not in os.environ:
            return None
        return cls(*(os.environ[f"WEIR_{part}"] for part in ("HTTP", "GRPC", "METRICS", "MODELS")))

    def serves(self, models):
        """Whether every model of that repository is in the one served."""
        names = (folder.name for folder in Path(models).iterdir() if not folder.name.startswith("."))
        return all((self.models / name).exists() for name in names)


class NotStarted(Exception):
    """The server ended, or stayed silent, before it was ready. Holds what it wrote to stderr last."""


class StartedWeir(Weir):
    """A server of our own; a context manager that stops it.

    `at`: its three addresses, else any free ports. With them, `until_ready=False` does not wait for it.
    """

    def __init__(self, models, *arguments, at=("127.0.0.1:0",) * 3, until_ready=True):
        self._state = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [binary(), "serve", "--models", str(models), "--state", self._state.name]
            + [word for pair in zip(("--http", "--grpc", "--metrics"), at) for word in pair]
            + list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._stderr = collections.deque(maxlen=200)
        lines = queue.Queue()
        self._stderr_read = _each_line(self._process.stderr, self._stderr.append)
        _each_line(self._process.stdout, lines.put, at_end=lambda: lines.put(None))
        if not until_ready:
            super().__init__(*at, models)
            return
        try:
            addresses = self._until_ready(lines)
        except BaseException:
            self.stop()
            raise
        super().__init__(addresses["http"], addresses["grpc"], addresses["metrics"], models)
        # Where the control API has a port of its own.
        self.control = addresses.get("control")

    def _until_ready(self, lines):
        addresses = {}
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                line = lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                code = self._end_heard()
                raise NotStarted(f"exit code {code}, {len(addresses)} addresses\n" + "".join(self._stderr))
            if match := _ADDRESS.match(line):
                addresses[match[1]] = match[2]
            elif line.startswith("ready"):
                return addresses

    def _end_heard(self):
        """The exit code of a server that has closed its output, once what it said last is there; None: it runs on."""
        try:
            code = self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return None
        self._stderr_read.join(END_SECONDS_MAX)
        return code

    @property
    def running(self):
        return self._process.poll() is None

    @property
    def pid(self):
        return self._process.pid

    @property
    def log(self):
        """What it wrote to stderr last."""
        return "".join(self._stderr)

    @property
    def last_words(self):
        """The exit code and the end of stderr."""
        return f"exit code {self._process.poll()}\n" + self.log

    def stop(self):
        """SIGTERM, then SIGKILL; gives the exit code."""
        self._process.terminate()
        return self.until_ended()

    def until_ended(self):
        """The exit code of a server that was told to end; SIGKILL if it takes too long."""
        try:
            return self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def binary():
    """The path of the binary under test."""
    binary = os.environ.get("WEIR_BIN") or shutil.which("weir")
    if not binary:
        raise NotStarted("set WEIR_BIN to the weir binary, or WEIR_HTTP and its siblings to a running server")
    return binary


def _each_line(stream, take, at_end=lambda: None):
    def read():
        for line in stream:
            take(line)
        at_end()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread

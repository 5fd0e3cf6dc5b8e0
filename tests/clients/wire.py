"""The protocol spoken by hand over HTTP, where a client library would hide or refuse what a test wants to send.

Two ways to ask for one inference, `JsonHttp` and `BinaryHttp`, take and give numpy arrays; wire_grpc.py has the third.
"""

import http.client
import json
import struct
from urllib.parse import quote

import numpy as np

from reference import DTYPE, FLOATS, datatype

HEADER_LENGTH = "Inference-Header-Content-Length"
SECONDS_MAX = 60


class Refused(Exception):
    """The server's own error: its status (a number, or gRPC's name) and its message."""

    def __init__(self, status, message):
        super().__init__(f"[{status}] {message}")
        self.status = status
        self.message = message


class Answer:
    """One HTTP response, read to its end."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The message of an error body, which must be `{"error": "…"}` and say something."""
        assert self.headers.get_content_type() == "application/json", self.headers.as_string()
        body = self.json()
        assert list(body) == ["error"] and isinstance(body["error"], str) and body["error"], body
        return body["error"]


class Http:
    """One kept-alive connection."""

    def __init__(self, address):
        self._connection = http.client.HTTPConnection(address, timeout=SECONDS_MAX)

    def ask(self, method, path, body=None, headers=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self._connection.request(method, path, body, headers or {})
        return Answer(self._connection.getresponse())

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, body=b"", headers=None):
        return self.ask("POST", path, body, headers)

    def close(self):
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def model_path(model, version=None, last=None):
    """`/v2/models/{model}[/versions/{version}][/{last}]`."""
    path = f"/v2/models/{quote(model)}"
    if version is not None:
        path += f"/versions/{version}"
    return path if last is None else f"{path}/{last}"


def bytes_of(array):
    """A tensor as it stands in a binary body."""
    if array.dtype == object:
        texts = (x if isinstance(x, bytes) else x.encode() for x in array.flat)
        return b"".join(struct.pack("<I", len(x)) + x for x in texts)
    return np.ascontiguousarray(array).tobytes()


def array_of(data, name, shape):
    """A tensor from its bytes in a binary body. Raises if a byte is missing or left over."""
    if name != "BYTES":
        return np.frombuffer(data, dtype=DTYPE[name]).reshape(shape)
    texts, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        assert at + 4 + length <= len(data), "a string runs past the end"
        texts.append(bytes(data[at + 4 : at + 4 + length]))
        at += 4 + length
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array.reshape(shape)


def json_of(array):
    """A tensor's elements as JSON's, flat. NaN and infinities become Python's, so check `finite` first."""
    if array.dtype == object:
        return [x.decode() if isinstance(x, bytes) else x for x in array.flat]
    if datatype(array) in FLOATS:
        return [float(x) for x in array.flat]
    return array.ravel().tolist()


def array_of_json(data, name, shape):
    """A tensor from an output's `data`, nested or flat; a null stands for what JSON has no number for."""
    if name == "BYTES":
        flat = np.array(data, dtype=object).ravel()
        return np.array([x.encode() for x in flat], dtype=object).reshape(shape)
    if name in FLOATS:
        return np.array(data, dtype=np.float64).astype(DTYPE[name]).reshape(shape)
    return np.array(data, dtype=DTYPE[name]).reshape(shape)


def tensor(name, array, **more):
    """An input's header, without data."""
    return {"name": name, "shape": list(array.shape), "datatype": datatype(array), **more}


def json_request(feed, **more):
    """The body of an inference request with all data as JSON."""
    return {"inputs": [tensor(name, a, data=json_of(a)) for name, a in feed.items()], **more}


def binary_request(feed, parameters=None, **more):
    """The body of an inference request with all data binary, and its headers."""
    blobs = [bytes_of(array) for array in feed.values()]
    head = json.dumps(
        {
            "inputs": [
                tensor(name, array, parameters={"binary_data_size": len(blob)})
                for (name, array), blob in zip(feed.items(), blobs)
            ],
            "parameters": {"binary_data_output": True, **(parameters or {})},
            **more,
        }
    ).encode()
    headers = {HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return head + b"".join(blobs), headers


def read_infer(answer):
    """An inference response's header and its outputs, JSON and binary alike, by name."""
    if answer.status != 200:
        raise Refused(answer.status, answer.error)
    length = answer.headers.get(HEADER_LENGTH)
    split = len(answer.body) if length is None else int(length)
    kind = "application/json" if length is None else "application/octet-stream"
    assert answer.headers.get_content_type() == kind, answer.headers.as_string()
    head, blobs = json.loads(answer.body[:split]), answer.body[split:]
    outputs = {}
    for output in head["outputs"]:
        name, shape = output["datatype"], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[output["name"]] = array_of_json(output["data"], name, shape)
        else:
            assert "data" not in output and size <= len(blobs)
            outputs[output["name"]] = array_of(blobs[:size], name, shape)
            blobs = blobs[size:]
    assert not blobs, f"{len(blobs)} bytes belong to no output"
    return head, outputs


class JsonHttp:
    """HTTP with all tensors as JSON."""

    def __init__(self, weir):
        self._http = Http(weir.http)

    def infer(self, model, feed, version=None):
        answer = self._http.post(model_path(model, version, "infer"), json_request(feed))
        return read_infer(answer)[1]

    def close(self):
        self._http.close()


class BinaryHttp:
    """HTTP with all tensors binary."""

    def __init__(self, weir):
        self._http = Http(weir.http)

    def infer(self, model, feed, version=None):
        answer = self._http.post(model_path(model, version, "infer"), *binary_request(feed))
        return read_infer(answer)[1]

    def close(self):
        self._http.close()

"""HTTP without a client library: every route, and everything that a client may get wrong."""

import gzip
import json
import zlib

import numpy as np
import pytest

import samples
import wire
from reference import assert_same

# Below this an answer need not be compressed.
ROWS_WORTH_COMPRESSING = 64

# ── Routes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

GET_ROUTES = [
    "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats",
    "/v2/models/digits", "/v2/models/digits/ready", "/v2/models/digits/config", "/v2/models/digits/stats",
    "/v2/models/digits/versions/2", "/v2/models/digits/versions/2/ready", "/v2/models/digits/versions/2/config",
    "/v2/models/digits/versions/2/stats",
]  # fmt: skip
POST_ROUTES = ["/v2/models/digits/infer", "/v2/models/digits/versions/2/infer", "/v2/repository/index"]
# A route, and the extension without which it must say that it is not supported.
OPTIONAL_ROUTES = [
    ("GET", "/v2/trace/setting", "trace"),
    ("GET", "/v2/models/digits/trace/setting", "trace"),
    ("GET", "/v2/logging", "logging"),
    ("GET", "/v2/systemsharedmemory/status", "system_shared_memory"),
    ("POST", "/v2/systemsharedmemory/region/r/register", "system_shared_memory"),
    ("GET", "/v2/cudasharedmemory/status", "cuda_shared_memory"),
    ("POST", "/v2/cudasharedmemory/region/r/register", "cuda_shared_memory"),
    ("POST", "/v2/models/digits/generate", "generate"),
    ("POST", "/v2/models/digits/generate_stream", "generate"),
]


@pytest.mark.parametrize("path", GET_ROUTES)
def test_route_answers_get_with_json(http, path):
    answer = http.get(path)
    assert answer.status == 200
    if answer.body:
        assert answer.headers.get_content_type() == "application/json"
        assert isinstance(answer.json(), dict)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", GET_ROUTES)
def test_get_route_refuses_other_methods(http, method, path):
    answer = http.ask(method, path)
    assert answer.status == 405 and answer.error


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", POST_ROUTES)
def test_post_route_refuses_other_methods(http, method, path):
    answer = http.ask(method, path)
    assert answer.status == 405 and answer.error


@pytest.mark.parametrize("method, path, extension", OPTIONAL_ROUTES)
def test_route_that_is_not_advertised_says_that_it_is_not_supported(http, method, path, extension):
    if extension in http.get("/v2").json()["extensions"]:
        pytest.skip("advertised: has tests of its own")
    answer = http.ask(method, path, body={} if method == "POST" else None)
    assert answer.status == 404 and "not offered" in answer.error


@pytest.mark.parametrize("change", ["load", "unload"])
def test_models_are_not_loaded_by_clients_unless_the_server_is_told_to(http, change):
    assert "model_repository" not in http.get("/v2").json()["extensions"]
    answer = http.ask("POST", f"/v2/repository/models/digits/{change}", body={})
    assert answer.status == 503
    assert answer.error.startswith("explicit model load / unload is not allowed")


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/models/digits", "/v2/", "/v2/nowhere", "/v2/models", "/v2/models/digits/nowhere", "/v2/health",
     "/v2/models/digits/versions", "/v2/models/digits/ready/", "//v2", "/v2/models//ready"],
)  # fmt: skip
def test_unknown_path_is_not_found_in_json(http, path):
    answer = http.get(path)
    assert answer.status == 404 and answer.error


@pytest.mark.parametrize("last", [None, "ready", "config", "stats", "infer"])
@pytest.mark.parametrize("version", ["0", "01", "-1", "+1", "1.0", "1x", "", "%31x", "1" * 19, "9" * 30])
def test_version_segment_that_is_no_version_is_not_found(http, version, last):
    path = wire.model_path("digits", version, last)
    answer = http.post(path, wire.json_request(samples.digits(1))) if last == "infer" else http.get(path)
    assert answer.status == 404 and answer.error


def test_live_and_ready_say_so(http):
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}


def test_query_string_is_no_part_of_the_path(http):
    assert http.get("/v2/health/ready?probe=1").status == 200


def test_model_ready_is_empty_and_unready_is_an_error(http):
    ready = http.get("/v2/models/digits/ready")
    assert (ready.status, ready.body) == (200, b"")
    unknown = http.get("/v2/models/nosuch/ready")
    assert unknown.status == 400 and unknown.error


def test_model_name_arrives_quoted(http):
    assert http.get("/v2/models/%64igits").json()["name"] == "digits"


@pytest.mark.parametrize(
    "name",
    ["nosuch", "..%2Fdigits", "..", "%2e%2e", "digits%2F1", "digits%00", "%FF", "digits%0d%0aX:%20y", "a" * 129,
     "%2Fetc%2Fpasswd", ".train", "Digits", "d%C3%AFgits"],
)  # fmt: skip
def test_name_of_no_model_is_refused(http, name):
    answer = http.get(f"/v2/models/{name}/config")
    assert answer.status in (400, 404) and answer.error
    assert "passwd" not in answer.error or "etc" in name


@pytest.mark.parametrize("body, ready_only", [(b"", False), (b"{}", False), (b'{"ready":true}', True)])
def test_repository_index_takes_an_empty_body_and_a_filter(http, body, ready_only):
    answer = http.post("/v2/repository/index", body)
    entries = answer.json()
    assert {entry["name"] for entry in entries} >= set(samples.BUNDLED)
    for entry in entries:
        assert {"name", "version", "state", "reason"} <= set(entry)
        assert isinstance(entry["version"], str)
        assert not ready_only or entry["state"] == "READY"


# ── A good request, in all the forms that are good ───────────────────────────────────────────────────────────────────


def digits_request(rows=1, **more):
    return wire.json_request(samples.digits(rows), **more)


def infer(http, body, headers=None, model="digits"):
    return http.post(wire.model_path(model, last="infer"), body, headers)


def test_answer_has_what_the_standard_lists(http):
    answer = infer(http, digits_request(2, id="seven")).json()
    assert answer["model_name"] == "digits" and answer["model_version"] == "3" and answer["id"] == "seven"
    assert [(o["name"], o["datatype"], o["shape"]) for o in answer["outputs"]] == [
        ("label", "INT64", [2, 1]),
        ("probabilities", "FP32", [2, 10]),
    ]


def test_answer_has_no_id_if_none_was_given(http):
    assert "id" not in infer(http, digits_request()).json()


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/plain", ""])
def test_content_type_is_of_no_account(http, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert infer(http, json.dumps(digits_request()).encode(), headers).status == 200


def test_null_members_count_as_absent(http):
    body = digits_request(id=None, parameters=None, outputs=None)
    body["inputs"][0]["parameters"] = None
    answer = infer(http, body)
    assert answer.status == 200 and len(answer.json()["outputs"]) == 2
    # KServe's client sends binary inputs with a `data` of null.
    blob, headers = wire.binary_request(samples.digits(1))
    length = int(headers[wire.HEADER_LENGTH])
    head = json.loads(blob[:length])
    head["inputs"][0] |= {"data": None}
    head["inputs"][0]["parameters"] |= {"shared_memory_region": None}
    head = json.dumps(head).encode()
    answer = infer(http, head + blob[length:], headers | {wire.HEADER_LENGTH: str(len(head))})
    assert answer.status == 200


def test_unknown_members_are_ignored(http):
    body = digits_request(model_name="digits", comment={"by": ["hand"]})
    body["inputs"][0]["unit"] = "pixel"
    assert infer(http, body).status == 200


def test_outputs_may_be_an_empty_list(http):
    assert len(infer(http, digits_request(outputs=[])).json()["outputs"]) == 2


def test_each_output_comes_as_it_was_asked_for(http):
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    answer = infer(http, digits_request(2, outputs=outputs))
    head, _ = wire.read_infer(answer)
    assert [o["name"] for o in head["outputs"]] == ["probabilities", "label"]
    assert head["outputs"][0]["parameters"]["binary_data_size"] == 2 * 10 * 4 and "data" in head["outputs"][1]


def test_an_output_may_decline_the_binary_default(http):
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False}}, {"name": "label"}]
    body = digits_request(outputs=outputs, parameters={"binary_data_output": True})
    head, _ = wire.read_infer(infer(http, body))
    assert "data" in head["outputs"][0] and "data" not in head["outputs"][1]


def test_empty_binary_tensor_is_legal(http_fixtures):
    feed = {"INPUT0": np.zeros((0, 4), np.float32)}
    answer = infer(http_fixtures, *wire.binary_request(feed), model="identity_fp32")
    assert_same(wire.read_infer(answer)[1]["OUTPUT0"], feed["INPUT0"])


def test_raw_body_is_the_tensor_of_a_model_with_one_input(http, weir):
    feed = samples.digits(1)
    answer = infer(http, feed["image"].tobytes(), {wire.HEADER_LENGTH: "0"})
    _, outputs = wire.read_infer(answer)
    assert_same(outputs["probabilities"], samples.direct(weir, "digits", feed)["probabilities"])


def test_chunked_body_is_read(http):
    body = json.dumps(digits_request()).encode()
    chunks = (body[i : i + 100] for i in range(0, len(body), 100))
    answer = http.ask("POST", "/v2/models/digits/infer", chunks)
    assert answer.status == 200


# ── Compression ──────────────────────────────────────────────────────────────────────────────────────────────────────

UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}


@pytest.mark.parametrize("encoding, pack", [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_body_is_read_and_its_header_length_is_that_of_the_plain_bytes(http, encoding, pack):
    body, headers = wire.binary_request(samples.digits(4))
    _, expected = wire.read_infer(infer(http, body, headers))
    _, outputs = wire.read_infer(infer(http, pack(body), headers | {"Content-Encoding": encoding}))
    assert_same(outputs["probabilities"], expected["probabilities"])


@pytest.mark.parametrize(
    "accept, chosen",
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.5, deflate;q=1.0", "deflate"),
        ("gzip;q=1, deflate;q=0.1", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("br, gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=0", None),
        ("identity", None),
        ("br, zstd", None),
        ("", None),
        (None, None),
    ],
)
def test_answer_is_compressed_as_the_client_accepts(http, accept, chosen):
    body, headers = wire.binary_request(samples.digits(ROWS_WORTH_COMPRESSING))
    if accept is not None:
        headers["Accept-Encoding"] = accept
    answer = infer(http, body, headers)
    assert answer.status == 200 and answer.headers.get("Content-Encoding") == chosen
    length = int(answer.headers[wire.HEADER_LENGTH])
    plain = UNPACK[chosen](answer.body)
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(plain[:length])["outputs"]]
    assert len(plain) == length + sum(sizes)


@pytest.mark.parametrize("path", ["/v2", "/v2/models/digits", "/v2/models/digits/config", "/v2/models/nosuch"])
def test_only_inferences_are_compressed(http, path):
    # tritonclient.http.aio accepts gzip unasked (aiohttp does) and unpacks nothing but an inference.
    answer = http.get(path, headers={"Accept-Encoding": "gzip, deflate"})
    assert "Content-Encoding" not in answer.headers and answer.json()


def test_an_error_is_never_compressed(http):
    answer = infer(http, b"{", {"Accept-Encoding": "gzip, deflate"})
    assert answer.status == 400 and "Content-Encoding" not in answer.headers and answer.error


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "nonsense"])
def test_unknown_content_encoding_is_refused_with_those_that_are_known(http, encoding):
    answer = infer(http, json.dumps(digits_request()).encode(), {"Content-Encoding": encoding})
    assert answer.status == 415 and answer.error
    assert answer.headers["Accept-Encoding"].replace(" ", "") == "gzip,deflate"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("damage", ["plain", "cut"])
def test_body_that_is_not_what_its_encoding_says_is_refused(http, encoding, damage):
    body = json.dumps(digits_request()).encode()
    if damage == "cut":
        body = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)[:-6]
    answer = infer(http, body, {"Content-Encoding": encoding})
    assert answer.status == 400 and answer.error


def test_body_that_grows_without_end_when_unpacked_is_refused(http):
    pack = zlib.compressobj(9)
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(256)) + pack.flush()
    answer = infer(http, bomb, {"Content-Encoding": "deflate"})
    assert answer.status in (400, 413) and answer.error


def test_length_over_the_limit_is_refused_at_once(weir):
    with wire.Http(weir.http) as http:
        connection = http._connection
        connection.putrequest("POST", "/v2/models/digits/infer")
        connection.putheader("Content-Length", str(1 << 42))
        connection.endheaders()
        answer = wire.Answer(connection.getresponse())
    assert answer.status == 413 and answer.error


# ── Bodies that are wrong ────────────────────────────────────────────────────────────────────────────────────────────

ROW = [0.0] * 64
IMAGE = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": ROW}


def inputs(**changed):
    """A request whose one input differs from a good one in these members; `...` leaves a member out."""
    tensor = {**IMAGE, **changed}
    return {"inputs": [{name: value for name, value in tensor.items() if value is not ...}]}


WRONG_BODIES = {
    "empty": b"",
    "half": b'{"inputs":[',
    "text": b"hello",
    "trailing": json.dumps(inputs()).encode() + b"x",
    "not_utf8": b'{"inputs":"\xff\xfe"}',
    "list": [],
    "number": b"7",
    "null": b"null",
    "no_inputs": {},
    "null_inputs": {"inputs": None},
    "inputs_no_list": {"inputs": {"image": ROW}},
    "input_no_object": {"inputs": [7]},
    "no_name": inputs(name=...),
    "name_a_number": inputs(name=7),
    "no_shape": inputs(shape=...),
    "shape_a_number": inputs(shape=64),
    "shape_of_text": inputs(shape=["1", "64"]),
    "shape_of_floats": inputs(shape=[1.5, 64]),
    "negative_shape": inputs(shape=[-1, 64]),
    "negative_shapes_cancel": inputs(shape=[-1, -64]),
    "overflowing_shape": inputs(shape=[1 << 58, 64]),
    "shape_past_int64": inputs(shape=[1 << 80, 64]),
    "no_datatype": inputs(datatype=...),
    "unknown_datatype": inputs(datatype="FP31"),
    "datatype_in_lower_case": inputs(datatype="fp32"),
    "no_data": inputs(data=...),
    "null_data": inputs(data=None),
    "two_sources": inputs(parameters={"binary_data_size": 256}),
    "data_too_short": inputs(data=ROW[:-1]),
    "data_too_long": inputs(data=ROW + [0.0]),
    "data_empty": inputs(data=[]),
    "data_a_number": inputs(data=0.0),
    "data_of_text": inputs(data=["0"] * 64),
    "data_of_booleans": inputs(data=[True] * 64),
    "data_ragged": inputs(data=[ROW[:32], ROW[:31] + [[0.0]]]),
    "data_with_an_object": inputs(data=ROW[:-1] + [{}]),
    "data_nested_without_end": b'{"inputs":[{"name":"image","shape":[1,64],"datatype":"FP32","data":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}]}",
    "nested_without_end": b"[" * 100_000,
    "number_past_fp32": inputs(data=ROW[:-1] + [1e300]),
    "id_a_number": {**inputs(), "id": 7},
    "parameters_a_list": {**inputs(), "parameters": [1]},
    "outputs_an_object": {**inputs(), "outputs": {}},
    "output_without_name": {**inputs(), "outputs": [{}]},
    "unknown_output": {**inputs(), "outputs": [{"name": "nosuch"}]},
    "repeated_output": {**inputs(), "outputs": [{"name": "label"}, {"name": "label"}]},
    "binary_data_a_text": {**inputs(), "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
    "classification_a_text": {**inputs(), "outputs": [{"name": "label", "parameters": {"classification": "x"}}]},
    "classification_negative": {**inputs(), "outputs": [{"name": "label", "parameters": {"classification": -1}}]},
    "priority_a_text": {**inputs(), "parameters": {"priority": "high"}},
    "timeout_a_text": {**inputs(), "parameters": {"timeout": "long"}},
    "repeated_input": {"inputs": [IMAGE, IMAGE]},
    "unknown_input": {"inputs": [IMAGE, {**IMAGE, "name": "nosuch"}]},
    "no_input": {"inputs": []},
    "shared_memory_without_leave": inputs(data=..., parameters={"shared_memory_region": "r"}),
}


@pytest.mark.parametrize("wrong", WRONG_BODIES)
def test_wrong_body_is_refused_in_json_and_the_next_one_is_served(http, wrong):
    answer = infer(http, WRONG_BODIES[wrong])
    assert answer.status == 400
    assert answer.error
    assert infer(http, digits_request()).status == 200


@pytest.mark.parametrize("name, value", [("int8", 128), ("uint8", -1), ("uint8", 256), ("int32", 1 << 31),
                                         ("int64", 1 << 63), ("uint64", 1 << 64), ("int32", 1.5), ("int16", "1"),
                                         ("bool", 2), ("bool", "true"), ("bytes", 7), ("fp16", 1e6)])  # fmt: skip
def test_json_value_that_its_type_cannot_hold_is_refused(http_fixtures, name, value):
    body = {"inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": name.upper(), "data": [value]}]}
    answer = infer(http_fixtures, body, model=f"identity_{name}")
    assert answer.status == 400 and answer.error


def test_unknown_model_and_unknown_version_have_statuses_of_their_own(http):
    unknown = infer(http, digits_request(), model="nosuch")
    assert unknown.status == 400 and unknown.error.startswith("Request for unknown model: 'nosuch' is not found")
    answer = http.post("/v2/models/digits/versions/9/infer", digits_request())
    assert answer.status == 404
    assert answer.error.startswith("Request for unknown model: 'digits' version 9 is not found")


# ── Binary bodies that are wrong ─────────────────────────────────────────────────────────────────────────────────────


def binary_body(size=256, blob=256, rows=1):
    head = {"inputs": [{**IMAGE, "shape": [rows, 64], "parameters": {"binary_data_size": size}}]}
    del head["inputs"][0]["data"]
    return json.dumps(head).encode(), bytes(blob)


@pytest.mark.parametrize(
    "size, blob",
    [(256, 255), (256, 257), (256, 0), (255, 255), (260, 260), (0, 0), (0, 256), (128, 256), (1 << 63, 256), (-1, 256)],
)
def test_binary_data_of_the_wrong_length_is_refused(http, size, blob):
    head, data = binary_body(size, blob)
    answer = infer(http, head + data, {wire.HEADER_LENGTH: str(len(head))})
    assert answer.status == 400 and answer.error
    assert infer(http, digits_request()).status == 200


def test_byte_size_mismatch_is_named(http):
    head, data = binary_body(252, 252)
    answer = infer(http, head + data, {wire.HEADER_LENGTH: str(len(head))})
    assert answer.error.startswith("input byte size mismatch for input 'image'")


@pytest.mark.parametrize("length", ["1000000", "-1", "1.5", "x", "", "9" * 30, "+300", "0x10"])
def test_header_length_that_cannot_be_is_refused(http, length):
    head, data = binary_body()
    answer = infer(http, head + data, {wire.HEADER_LENGTH: length})
    assert answer.status == 400 and answer.error


@pytest.mark.parametrize("off_by", [-1, 1])
def test_header_length_that_is_off_by_one_is_refused(http, off_by):
    head, data = binary_body()
    answer = infer(http, head + data, {wire.HEADER_LENGTH: str(len(head) + off_by)})
    assert answer.status == 400 and answer.error


def test_binary_data_without_a_header_length_is_refused(http):
    head, data = binary_body()
    assert infer(http, head + data).status == 400


@pytest.mark.parametrize("size", [0, 255, 257])
def test_raw_body_of_the_wrong_length_is_refused(http, size):
    answer = infer(http, bytes(size), {wire.HEADER_LENGTH: "0"})
    assert answer.status == 400 and answer.error


def test_raw_body_for_a_model_with_two_inputs_is_refused(http):
    answer = infer(http, bytes(128), {wire.HEADER_LENGTH: "0"}, model="simple")
    assert answer.status == 400 and answer.error


@pytest.mark.parametrize(
    "blob",
    [b"\x05\0\0\0abcd", b"\x03\0\0\0abcd", b"\x01\0\0", b"\xff\xff\xff\xffa", b"", b"\x01\0\0\0a\x01\0\0\0b"],
)
def test_strings_whose_lengths_do_not_add_up_are_refused(http_fixtures, blob):
    tensor = {"name": "INPUT0", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    answer = infer(http_fixtures, head + blob, {wire.HEADER_LENGTH: str(len(head))}, model="identity_bytes")
    assert answer.status == 400 and answer.error


def test_booleans_other_than_zero_and_one_never_come_back_as_such(http_fixtures):
    head = {"inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}]}
    head = json.dumps(head).encode()
    answer = infer(http_fixtures, head + b"\x02\xff", {wire.HEADER_LENGTH: str(len(head))}, model="identity_bool")
    if answer.status == 200:
        assert all(value is True for value in np.ravel(answer.json()["outputs"][0]["data"]).tolist())
    else:
        assert answer.status == 400 and answer.error


# ── Models that could not be loaded ──────────────────────────────────────────────────────────────────────────────────


def test_broken_models_are_listed_as_unavailable_with_a_reason_and_the_good_one_serves(weir_broken):
    with wire.Http(weir_broken.http) as http:
        index = {entry["name"]: entry for entry in http.post("/v2/repository/index").json()}
        folders = {path.name for path in weir_broken.models.iterdir() if path.is_dir()}
        assert folders - {"empty"} <= set(index)
        for name, entry in index.items():
            if name == "ok":
                assert entry["state"] == "READY"
                continue
            assert entry["state"] == "UNAVAILABLE" and entry["reason"], name
            # A reason is shown to clients: it says nothing of the machine's folders.
            assert str(weir_broken.models) not in entry["reason"], name
            assert http.get(wire.model_path(name, last="ready")).status != 200
            answer = infer(http, wire.json_request(samples.rows_of_four(1)), model=name)
            assert answer.status in (400, 404, 503) and answer.error, name
        feed = samples.rows_of_four(2)
        assert wire.read_infer(infer(http, wire.json_request(feed), model="ok"))[1]["OUTPUT0"].shape == (2, 4)

"""Numbers served are the numbers that ONNX Runtime gives, bit for bit, whichever way they are asked for."""

import json

import numpy as np
import pytest

import samples
import wire
from reference import DATATYPES, DTYPE, FLOATS, assert_same
from wire_grpc import WAYS

ROWS = (1, 3, 7)
# Every model of tests/models but the identities, with the feed of some rows.
FIXTURES = {
    "slow": samples.rows_of_four,
    "cumsum_batch": samples.rows_of_four,
    "mean_batch": samples.rows_of_four,
    "external_data": samples.rows_of_four,
    "optional_input": samples.rows_of_four,
    "reshape_scalar": lambda rows: {"INPUT0": samples.rows_of_four(rows)["INPUT0"][:, :1]},
    "scalar_fp32": lambda rows: {"INPUT0": np.array(rows * 1.1, np.float32)},
}
# What the config's max_batch_size leaves of ROWS.
FITTING_ROWS = {"reshape_scalar": (1, 3, 4)}


@pytest.fixture
def ask(way, weir):
    asked = way(weir)
    yield asked
    asked.close()


@pytest.fixture
def ask_fixtures(way, weir_fixtures):
    asked = way(weir_fixtures)
    yield asked
    asked.close()


def check_against_direct(weir, ask, model, feed, version=None):
    with wire.Http(weir.http) as http:
        metadata = http.get(wire.model_path(model)).json()
    expected = samples.as_served(samples.direct(weir, model, feed, version), metadata)
    got = ask.infer(model, feed, version)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert_same(got[name], array, name)


@pytest.mark.parametrize("model", samples.BUNDLED)
def test_bundled_model_answers_as_onnx_runtime(weir, ask, model):
    for rows in ROWS:
        check_against_direct(weir, ask, model, samples.BUNDLED[model](rows))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_each_version_answers_as_its_own_file(weir, ask, version):
    check_against_direct(weir, ask, "digits", samples.digits(5), version)


@pytest.mark.parametrize("model", FIXTURES)
def test_fixture_answers_as_onnx_runtime(weir_fixtures, ask_fixtures, model):
    for rows in FITTING_ROWS.get(model, ROWS):
        check_against_direct(weir_fixtures, ask_fixtures, model, FIXTURES[model](rows))


def test_optional_input_is_used_when_it_is_given(weir_fixtures, ask_fixtures):
    feed = samples.rows_of_four(2) | {"bias": np.array([5, 6, 7, 8], np.float32)}
    check_against_direct(weir_fixtures, ask_fixtures, "optional_input", feed)


@pytest.mark.parametrize("shape", [(2, 5), (1, 1), (29, 3), (0, 4), (3, 0)])
@pytest.mark.parametrize("name", DATATYPES)
def test_every_data_type_keeps_every_bit(ask_fixtures, name, shape):
    array = samples.numbers(name, shape)
    assert_same(ask_fixtures.infer(f"identity_{name.lower()}", {"INPUT0": array})["OUTPUT0"], array)


@pytest.mark.parametrize("name", [name for name in DATATYPES if DTYPE[name].kind in "iu"])
def test_the_smallest_and_largest_integers_survive(ask_fixtures, name):
    limits = np.iinfo(DTYPE[name])
    array = np.array([[limits.min, limits.max, 0, 1]], DTYPE[name])
    assert_same(ask_fixtures.infer(f"identity_{name.lower()}", {"INPUT0": array})["OUTPUT0"], array)


# Zeros of both signs, the smallest subnormal and normal, the largest, and numbers that are no short decimals.
AWKWARD = {
    "FP16": [0x0000, 0x8000, 0x0001, 0x0400, 0x7BFF, 0xFBFF, 0x3555, 0x2E66],
    "BF16": [0x0000, 0x8000, 0x0001, 0x0080, 0x7F7F, 0xFF7F, 0x3EAB, 0x3DCD],
    "FP32": [0, 1 << 31, 1, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3EAAAAAB, 0x3DCCCCCD],
    "FP64": [0, 1 << 63, 1, 1 << 52, 0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF, 0x3FD5555555555555, 0x3FB999999999999A],
}


def from_bits(name, bits):
    dtype = DTYPE[name]
    return np.array([bits], dtype=f"u{dtype.itemsize}").view(dtype)


@pytest.mark.parametrize("name", FLOATS)
def test_awkward_floats_survive(ask_fixtures, name):
    array = from_bits(name, AWKWARD[name])
    assert_same(ask_fixtures.infer(f"identity_{name.lower()}", {"INPUT0": array})["OUTPUT0"], array)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("way_name", ["binary", "grpc"])
def test_nan_and_infinities_keep_their_bits_in_binary(weir_fixtures, way_name, name):
    all_ones = (1 << 8 * DTYPE[name].itemsize) - 1
    infinity = int(np.array(np.inf, DTYPE[name]).view(f"u{DTYPE[name].itemsize}"))
    sign = (all_ones >> 1) + 1
    # Quiet NaNs of both signs, one with a payload, and both infinities.
    array = from_bits(name, [all_ones >> 1, all_ones, infinity, infinity | sign])
    ask = WAYS[way_name](weir_fixtures)
    got = ask.infer(f"identity_{name.lower()}", {"INPUT0": array})["OUTPUT0"]
    ask.close()
    assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", FLOATS)
def test_nan_and_infinities_as_json_are_null_or_refused_but_never_a_wrong_number(http_fixtures, name):
    array = np.array([[np.nan, np.inf, -np.inf, 1]], DTYPE[name])
    body, headers = wire.binary_request({"INPUT0": array}, {"binary_data_output": False})
    answer = http_fixtures.post(f"/v2/models/identity_{name.lower()}/infer", body, headers)
    if answer.status != 200:
        assert answer.error
        return
    # Python reads the bare words that some servers write where JSON has no number.
    (output,) = answer.json()["outputs"]
    *strange, one = np.array(output["data"], object).ravel()
    assert one == 1
    for got, sent in zip(strange, array[0].astype(float)):
        assert got is None or np.array_equal(float(got), sent, equal_nan=True)


@pytest.mark.parametrize("name", ["FP32", "FP64"])
def test_json_numbers_are_as_short_as_they_can_be(http_fixtures, name):
    array = np.array([[0.1, 1 / 3, 1e-30, 123456.789]], DTYPE[name])
    answer = http_fixtures.post(f"/v2/models/identity_{name.lower()}/infer", wire.json_request({"INPUT0": array}))
    written = json.loads(answer.body, parse_float=str)["outputs"][0]["data"]
    for text, value in zip(np.array(written, object).ravel(), array[0]):
        assert DTYPE[name].type(text) == value
        digits_needed = len(np.format_float_scientific(value, unique=True, trim="-").split("e")[0].replace(".", ""))
        digits_written = len(text.lower().split("e")[0].replace(".", "").strip("0"))
        assert digits_written <= digits_needed, text


def test_json_data_may_be_nested_or_flat(http_fixtures):
    array = samples.rows_of_four(3)["INPUT0"]
    for data in (array.tolist(), array.ravel().tolist()):
        body = {"inputs": [wire.tensor("INPUT0", array, data=data)]}
        _, outputs = wire.read_infer(http_fixtures.post("/v2/models/identity_fp32/infer", body))
        assert_same(outputs["OUTPUT0"], array)


def test_integers_may_be_written_for_floats_as_json(http_fixtures):
    body = {"inputs": [{"name": "INPUT0", "shape": [1, 3], "datatype": "FP32", "data": [1, -2, 3e2]}]}
    _, outputs = wire.read_infer(http_fixtures.post("/v2/models/identity_fp32/infer", body))
    assert_same(outputs["OUTPUT0"], np.array([[1, -2, 300]], np.float32))


def test_strings_with_escapes_survive_json(http_fixtures):
    texts = ['quote " backslash \\ slash /', "tab\tnewline\n", "Grüße 📦", "\u2028\u0000\x7f", ""]
    array = np.array([[text.encode() for text in texts]], dtype=object)
    for body in (wire.json_request({"INPUT0": array}),):
        for encoded in (json.dumps(body), json.dumps(body, ensure_ascii=False)):
            answer = http_fixtures.post("/v2/models/identity_bytes/infer", encoded.encode())
            assert_same(wire.read_infer(answer)[1]["OUTPUT0"], array)

"""KServe's inference clients for REST and gRPC, unmodified.

What they do that others do not: REST always sends an `id`, a `model_name` and an Accept-Encoding; a binary input whose
data is empty comes with `"data": null` and no header length; NaN is sent as null; gRPC inputs keep their
`binary_data_size`.
"""

import asyncio

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import descriptor_pool

try:
    descriptor_pool.Default().FindMessageTypeByName("inference.ServerLiveRequest")
except KeyError:
    pass
else:
    # tritonclient and KServe register messages of the same names, and protobuf allows one set in a process.
    pytest.skip("runs alone: python3 -m pytest test_kserve.py", allow_module_level=True)

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

import samples
from reference import assert_same, datatype


def request_of(model, feed, binary=True, **more):
    inputs = []
    for name, array in feed.items():
        tensor = InferInput(name, list(array.shape), datatype(array))
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model, inputs, **more)


class Rest:
    """`InferenceRESTClient` with the protocol's version 2."""

    def __init__(self, weir):
        self._url = f"http://{weir.http}"

    def call(self, method, *arguments):
        async def run():
            async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
                return await getattr(client, method)(self._url, *arguments)

        return asyncio.run(run())

    def infer(self, request):
        return self.call("infer", request, request.model_name)


class Grpc:
    """`InferenceGRPCClient`."""

    def __init__(self, weir):
        self._address = weir.grpc

    def call(self, method, *arguments):
        async def run():
            async with InferenceGRPCClient(self._address, retries=0) as client:
                return await getattr(client, method)(*arguments)

        return asyncio.run(run())

    def infer(self, request):
        return self.call("infer", request)


CLIENTS = [Rest, Grpc]


@pytest.mark.parametrize("client", CLIENTS)
def test_server_and_models_are_ready(weir, client):
    kserve = client(weir)
    assert kserve.call("is_server_live") is True
    assert kserve.call("is_server_ready") is True
    for model in samples.BUNDLED:
        assert kserve.call("is_model_ready", model) is True
    assert kserve.call("is_model_ready", "nosuch") is False


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("model", ["digits", "simple", "breast_cancer", "tickets"])
def test_answer_is_onnx_runtimes(weir, client, binary, model):
    feed = samples.BUNDLED[model](4)
    response = client(weir).infer(request_of(model, feed, binary))
    expected = samples.direct(weir, model, feed)
    assert response.model_name == model
    assert {output.name for output in response.outputs} == set(expected)
    for name, array in expected.items():
        output = response.get_output_by_name(name)
        got = output.as_numpy()
        assert_same(got.reshape(array.shape), array, name)


@pytest.mark.parametrize("binary", [True, False])
def test_rest_reads_outputs_asked_for_as_binary(weir, binary):
    feed = samples.digits(2)
    outputs = [RequestedOutput("probabilities", {"binary_data": True})]
    response = Rest(weir).infer(request_of("digits", feed, binary, request_outputs=outputs))
    (output,) = response.outputs
    assert_same(output.as_numpy(), samples.direct(weir, "digits", feed)["probabilities"])


def test_rest_gets_all_outputs_binary_if_it_says_so_once(weir):
    feed = samples.digits(64)
    response = Rest(weir).infer(request_of("digits", feed, parameters={"binary_data_output": True}))
    got = response.get_output_by_name("probabilities").as_numpy()
    assert_same(got, samples.direct(weir, "digits", feed)["probabilities"])


def test_rest_id_comes_back(weir):
    assert Rest(weir).infer(request_of("digits", samples.digits(1), request_id="seven")).id == "seven"


def test_grpc_version_and_id_come_back(weir):
    request = request_of("digits", samples.digits(1), request_id="seven", model_version="2")
    response = Grpc(weir).infer(request)
    assert (response.id, response.model_version) == ("seven", "2")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_binary_input_without_elements_is_served(weir_fixtures, client, shape):
    feed = {"INPUT0": np.zeros(shape, np.float32)}
    response = client(weir_fixtures).infer(request_of("identity_fp32", feed))
    assert list(response.outputs[0].shape) == list(shape)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ["BOOL", "UINT8", "INT64", "UINT64", "FP64"])
def test_data_types_come_back_as_they_were(weir_fixtures, client, name):
    for binary in (True, False):
        array = samples.numbers(name, (2, 3))
        response = client(weir_fixtures).infer(request_of(f"identity_{name.lower()}", {"INPUT0": array}, binary))
        assert_same(response.outputs[0].as_numpy(), array)


@pytest.mark.parametrize("client", CLIENTS)
def test_fp16_goes_as_binary(weir_fixtures, client):
    array = samples.numbers("FP16", (2, 3))
    request = request_of("identity_fp16", {"INPUT0": array})
    response = client(weir_fixtures).infer(request)
    assert_same(response.outputs[0].as_numpy(), array)


def test_rest_reports_the_servers_own_words(weir):
    with pytest.raises(httpx.HTTPStatusError, match="Request for unknown model: 'nosuch' is not found"):
        Rest(weir).infer(request_of("nosuch", samples.digits(1)))


def test_grpc_reports_the_servers_own_words(weir):
    with pytest.raises(grpc.RpcError) as refused:
        Grpc(weir).infer(request_of("nosuch", samples.digits(1)))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith("Request for unknown model: 'nosuch' is not found")

"""gRPC without a client library: reflection, health, deadlines, typed contents, and what is not served."""

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2

import samples
import wire_grpc
from reference import DATATYPES, assert_same
from wire import SECONDS_MAX

SERVICE = "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def channel(weir):
    with wire_grpc.channel_to(weir) as opened:
        yield opened


@pytest.fixture
def stub(channel):
    return wire_grpc.stub_on(channel)


@pytest.fixture
def stub_fixtures(weir_fixtures):
    with wire_grpc.channel_to(weir_fixtures) as opened:
        yield wire_grpc.stub_on(opened)


@pytest.fixture
def health(channel):
    return health_pb2_grpc.HealthStub(channel)


def refusal(call, *arguments, **more):
    """The code and the message of a call that must fail."""
    with pytest.raises(grpc.RpcError) as failed:
        call(*arguments, timeout=SECONDS_MAX, **more)
    return failed.value.code().name, failed.value.details()


# ── Reflection and health ────────────────────────────────────────────────────────────────────────────────────────────


def test_reflection_lists_the_services(channel):
    assert {SERVICE, "grpc.health.v1.Health"} <= set(ProtoReflectionDescriptorDatabase(channel).get_services())


def test_reflection_describes_every_method_that_tritons_stub_calls(channel):
    described = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(SERVICE)
    ours = {m.name: (m.input_type.full_name, m.output_type.full_name) for m in described.methods}
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    for method in theirs:
        assert ours[method.name] == (method.input_type.full_name, method.output_type.full_name)


def test_reflected_messages_have_tritons_fields_and_numbers(channel):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def fields(message):
        return {(f.name, f.number, f.type) for f in message.fields}

    for name, theirs in service_pb2.DESCRIPTOR.message_types_by_name.items():
        ours = pool.FindMessageTypeByName(f"inference.{name}")
        assert fields(theirs) <= fields(ours), name


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_check_and_watch_say_serving(health, service):
    request = health_pb2.HealthCheckRequest(service=service)
    assert health.Check(request, timeout=SECONDS_MAX).status == SERVING
    watch = health.Watch(request, timeout=SECONDS_MAX)
    assert next(watch).status == SERVING
    watch.cancel()


def test_health_of_an_unknown_service_is_not_found_and_watched_as_unknown(health):
    request = health_pb2.HealthCheckRequest(service="no.such.Service")
    assert refusal(health.Check, request)[0] == "NOT_FOUND"
    watch = health.Watch(request, timeout=SECONDS_MAX)
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()


# ── What is not served ───────────────────────────────────────────────────────────────────────────────────────────────

# A method, its request, and the extension without which it must not be served.
OPTIONAL_METHODS = [
    ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest(), "system_shared_memory"),
    ("SystemSharedMemoryRegister", service_pb2.SystemSharedMemoryRegisterRequest(name="r"), "system_shared_memory"),
    ("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(), "system_shared_memory"),
    ("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest(), "cuda_shared_memory"),
    ("CudaSharedMemoryRegister", service_pb2.CudaSharedMemoryRegisterRequest(name="r"), "cuda_shared_memory"),
    ("CudaSharedMemoryUnregister", service_pb2.CudaSharedMemoryUnregisterRequest(), "cuda_shared_memory"),
    ("TraceSetting", service_pb2.TraceSettingRequest(), "trace"),
    ("LogSettings", service_pb2.LogSettingsRequest(), "logging"),
]


@pytest.mark.parametrize("method, request_, extension", OPTIONAL_METHODS, ids=[m for m, _, _ in OPTIONAL_METHODS])
def test_method_that_is_not_advertised_is_unimplemented(stub, method, request_, extension):
    if extension in stub.ServerMetadata(service_pb2.ServerMetadataRequest()).extensions:
        pytest.skip("advertised: has tests of its own")
    code, message = refusal(getattr(stub, method), request_)
    assert code == "UNIMPLEMENTED" and message


@pytest.mark.parametrize("change", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_models_are_not_loaded_by_clients_unless_the_server_is_told_to(stub, change):
    assert "model_repository" not in stub.ServerMetadata(service_pb2.ServerMetadataRequest()).extensions
    request_ = getattr(service_pb2, f"{change}Request")(model_name="digits")
    code, message = refusal(getattr(stub, change), request_)
    assert code == "UNAVAILABLE"
    assert message.startswith("explicit model load / unload is not allowed")


@pytest.mark.parametrize("path", [f"/{SERVICE}/NoSuchMethod", "/no.such.Service/Method"])
def test_unknown_method_is_unimplemented(channel, path):
    assert refusal(channel.unary_unary(path), b"")[0] == "UNIMPLEMENTED"


def test_message_that_is_no_protobuf_is_refused_and_the_next_one_is_served(channel, stub):
    code, _ = refusal(channel.unary_unary(f"/{SERVICE}/ModelInfer"), b"\xff\xff\xff\xff")
    assert code in ("INTERNAL", "INVALID_ARGUMENT")
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live


# ── Deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deadline_that_passes_ends_the_call_and_leaves_the_server_well(stub_fixtures):
    request = wire_grpc.request_of("slow", samples.rows_of_four(1))
    with pytest.raises(grpc.RpcError) as late:
        stub_fixtures.ModelInfer(request, timeout=0.005)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(stub_fixtures.ModelInfer(request, timeout=SECONDS_MAX).outputs) == 1


def test_request_whose_deadline_passes_in_the_queue_is_not_run(stub_fixtures):
    def executions():
        request = service_pb2.ModelStatisticsRequest(name="slow")
        (item,) = stub_fixtures.ModelStatistics(request).model_stats
        return item.execution_count

    request = wire_grpc.request_of("slow", samples.rows_of_four(8))
    before = executions()
    # Each fills a run of 30 ms; all but the first few are too late before their turn comes.
    calls = [stub_fixtures.ModelInfer.future(request, timeout=0.1) for _ in range(30)]
    codes = [call.exception().code().name if call.exception() else "OK" for call in calls]
    assert "OK" in codes and "DEADLINE_EXCEEDED" in codes
    # The queue is drained by now, so that a last request waits for nobody.
    stub_fixtures.ModelInfer(request, timeout=SECONDS_MAX)
    assert executions() - before < 30


# ── Contents ─────────────────────────────────────────────────────────────────────────────────────────────────────────

CONTENTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def typed_request(name, values, field, shape):
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="INPUT0", datatype=name, shape=shape)
    getattr(tensor.contents, field).extend(values)
    return service_pb2.ModelInferRequest(model_name=f"identity_{name.lower()}", inputs=[tensor])


@pytest.mark.parametrize("name, field", CONTENTS.items())
def test_typed_contents_are_read(stub_fixtures, name, field):
    array = samples.numbers(name, (2, 3))
    response = stub_fixtures.ModelInfer(typed_request(name, array.ravel().tolist(), field, [2, 3]))
    assert_same(wire_grpc.read_infer(response)["OUTPUT0"], array)


@pytest.mark.parametrize("name, field", CONTENTS.items())
@pytest.mark.parametrize("shape", [[2, 2], [1, 2], [0, 3]])
def test_typed_contents_of_the_wrong_number_are_refused(stub_fixtures, name, field, shape):
    values = samples.numbers(name, (1, 3)).ravel().tolist()
    code, message = refusal(stub_fixtures.ModelInfer, typed_request(name, values, field, shape))
    assert code == "INVALID_ARGUMENT" and "INPUT0" in message


@pytest.mark.parametrize("name", DATATYPES)
def test_typed_contents_in_the_wrong_field_are_refused(stub_fixtures, name):
    field = "fp64_contents" if CONTENTS.get(name) != "fp64_contents" else "fp32_contents"
    code, message = refusal(stub_fixtures.ModelInfer, typed_request(name, [0.0], field, [1, 1]))
    assert code == "INVALID_ARGUMENT" and "INPUT0" in message


@pytest.mark.parametrize(
    "name, value", [("INT8", 128), ("INT8", -129), ("INT16", 1 << 15), ("UINT8", 256), ("UINT16", 1 << 16)]
)
def test_typed_value_that_its_type_cannot_hold_is_refused(stub_fixtures, name, value):
    code, message = refusal(stub_fixtures.ModelInfer, typed_request(name, [value], CONTENTS[name], [1, 1]))
    assert code == "INVALID_ARGUMENT" and "INPUT0" in message


def test_typed_and_raw_contents_together_are_refused(stub):
    request = wire_grpc.request_of("digits", samples.digits(1))
    request.inputs[0].contents.fp32_contents.extend([0.0] * 64)
    code, message = refusal(stub.ModelInfer, request)
    assert code == "INVALID_ARGUMENT"
    expected = "contents field must not be specified when using raw_input_contents for 'image' for model 'digits'"
    assert message.startswith(expected)


@pytest.mark.parametrize("raw", [0, 1, 3])
def test_raw_contents_that_are_not_one_for_each_input_are_refused(stub, raw):
    request = wire_grpc.request_of("simple", samples.simple(1))
    blob = request.raw_input_contents[0]
    del request.raw_input_contents[:]
    request.raw_input_contents.extend([blob] * raw)
    assert refusal(stub.ModelInfer, request)[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("size", [0, 255, 257, 512])
def test_raw_contents_of_the_wrong_length_are_refused(stub, size):
    request = wire_grpc.request_of("digits", samples.digits(1))
    request.raw_input_contents[0] = bytes(size)
    code, message = refusal(stub.ModelInfer, request)
    assert code == "INVALID_ARGUMENT" and "image" in message


@pytest.mark.parametrize("shape", [[-1, 64], [1 << 58, 64], [1, -64], []])
def test_shape_that_cannot_be_is_refused(stub, shape):
    request = wire_grpc.request_of("digits", samples.digits(1))
    del request.inputs[0].shape[:]
    request.inputs[0].shape.extend(shape)
    assert refusal(stub.ModelInfer, request)[0] == "INVALID_ARGUMENT"


def test_input_may_carry_the_binary_size_that_kserves_client_leaves_there(stub):
    request = wire_grpc.request_of("digits", samples.digits(1))
    request.inputs[0].parameters["binary_data_size"].int64_param = 256
    assert len(stub.ModelInfer(request).outputs) == 2


@pytest.mark.parametrize("parameter", ["int64_param", "uint64_param"])
def test_priority_may_be_either_integer(stub, parameter):
    request = wire_grpc.request_of("digits", samples.digits(1))
    setattr(request.parameters["priority"], parameter, 1)
    assert len(stub.ModelInfer(request).outputs) == 2


def test_answer_names_its_request_its_model_and_the_version_that_served(stub):
    response = stub.ModelInfer(wire_grpc.request_of("digits", samples.digits(1), 2, id="seven"))
    assert (response.id, response.model_name, response.model_version) == ("seven", "digits", "2")
    assert stub.ModelInfer(wire_grpc.request_of("digits", samples.digits(1))).model_version == "3"


def test_empty_output_has_empty_raw_contents(stub_fixtures):
    feed = {"INPUT0": np.zeros((0, 4), np.float32)}
    response = stub_fixtures.ModelInfer(wire_grpc.request_of("identity_fp32", feed))
    assert list(response.raw_output_contents) == [b""] and list(response.outputs[0].shape) == [0, 4]


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def stream_requests(wrong, count=4):
    for i in range(count):
        model = "nosuch" if i == wrong else "simple"
        yield wire_grpc.request_of(model, samples.simple(1, seed=i), id=str(i))


def test_stream_reports_a_mistake_with_its_request_and_goes_on(stub):
    responses = list(stub.ModelStreamInfer(stream_requests(wrong=1), timeout=SECONDS_MAX))
    assert len(responses) == 4
    by_id = {response.infer_response.id: response for response in responses}
    assert set(by_id) == {"0", "1", "2", "3"}
    assert by_id.pop("1").error_message.startswith("Request for unknown model: 'nosuch' is not found")
    assert not any(response.error_message for response in by_id.values())


def test_stream_that_wants_real_errors_ends_with_one(stub):
    metadata = (("triton_grpc_error", "true"),)
    stream = stub.ModelStreamInfer(stream_requests(wrong=1), metadata=metadata, timeout=SECONDS_MAX)
    received = []
    with pytest.raises(grpc.RpcError) as ended:
        for response in stream:
            received.append(response)
    assert ended.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert ended.value.details().startswith("Request for unknown model: 'nosuch' is not found")
    assert not any(response.error_message for response in received)


def test_cancelled_stream_leaves_the_server_well(stub, stub_fixtures):
    requests = (wire_grpc.request_of("slow", samples.rows_of_four(1)) for _ in range(20))
    stream = stub_fixtures.ModelStreamInfer(requests)
    next(stream)
    stream.cancel()
    assert len(stub_fixtures.ModelInfer(wire_grpc.request_of("slow", samples.rows_of_four(1))).outputs) == 1

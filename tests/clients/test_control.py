"""Changes of what is live by real clients: Triton's load and unload, and the control API over gRPC."""

import json
import shutil

import grpc
import numpy as np
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import samples
import wire
import wire_grpc
from metrics import eventually
from reference import Model, assert_same
from server import StartedWeir
from triton import TritonGrpc, TritonGrpcAio, TritonHttp, TritonHttpAio

SERVICE = "weir.control.v1.Control"

# The versions of `digits` take this image for 1, 4 and 8.
EIGHT = np.array(
    [0, 0, 0, 2, 15, 5, 0, 0, 0, 0, 2, 4, 10, 12, 0, 0, 0, 3, 15, 14, 10, 8, 0, 0, 0, 8, 15, 1, 11, 4, 0, 0]
    + [0, 1, 8, 15, 16, 0, 0, 0, 0, 0, 0, 6, 16, 12, 1, 0, 0, 0, 0, 4, 14, 15, 4, 0, 0, 0, 0, 2, 14, 11, 0, 0],
    dtype=np.float32,
).reshape(1, 64)
TAKEN_FOR = {1: 1, 2: 4, 3: 8}


@pytest.fixture(scope="module")
def explicit(weir):
    with StartedWeir(weir.models, "--control", "explicit") as started:
        yield started


@pytest.fixture(params=[TritonHttp, TritonGrpc, TritonHttpAio, TritonGrpcAio])
def triton(request, explicit):
    adapter = request.param(explicit)
    yield adapter
    adapter.close()


# ── Triton's load and unload ─────────────────────────────────────────────────────────────────────────────────────────


def ready(triton, model):
    """The versions of a model that the index calls ready."""
    index = triton.call("get_model_repository_index")
    models = index if isinstance(index, list) else json_format.MessageToDict(index).get("models", [])
    return sorted(int(m["version"]) for m in models if m["name"] == model and m.get("state") == "READY")


def unloaded(triton, model):
    triton.call("unload_model", model)
    assert eventually(lambda: ready(triton, model) == [], wire.SECONDS_MAX)


def test_a_model_is_loaded_and_unloaded(triton, explicit):
    assert not triton.call("is_model_ready", "simple")
    triton.call("load_model", "simple")
    assert triton.call("is_model_ready", "simple")
    feed = samples.simple(2)
    assert_same(triton.infer("simple", feed).as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])
    unloaded(triton, "simple")
    with pytest.raises(InferenceServerException, match="unknown model|no available versions"):
        triton.infer("simple", feed)


def test_a_config_that_is_sent_replaces_the_repositorys(triton):
    triton.call("load_model", "digits", config=json.dumps({"max_batch_size": 3, "version_policy": {"latest": {}}}))
    assert ready(triton, "digits") == [3]
    assert int(triton.config("digits")["max_batch_size"]) == 3
    with pytest.raises(InferenceServerException, match="3"):
        triton.infer("digits", samples.digits(4))
    triton.call("load_model", "digits")
    assert ready(triton, "digits") == [1, 2, 3]
    unloaded(triton, "digits")


def test_files_that_are_sent_are_served(triton, weir):
    path = weir.models / "breast_cancer" / "1" / "model.onnx"
    config = json.dumps({"backend": "onnxruntime", "version_policy": {"specific": {"versions": [5]}}})
    triton.call("load_model", "sent", config=config, files={"file:5/model.onnx": path.read_bytes()})
    assert ready(triton, "sent") == [5]
    feed = samples.breast_cancer(3)
    expected = Model(path).run(feed)["probabilities"]
    assert_same(triton.infer("sent", feed).as_numpy("probabilities"), expected)
    unloaded(triton, "sent")


@pytest.mark.parametrize(
    "model, more, words",
    [
        ("nosuch", {}, "failed to load 'nosuch'"),
        ("simple", {"config": json.dumps({"max_batchsize": 1})}, "max_batchsize"),
        ("simple", {"config": "{"}, "config"),
        ("simple", {"config": "{}", "files": {"file:1/model.onnx": b"no model"}}, "not an ONNX model"),
    ],
)
def test_a_load_that_fails_leaves_what_was_live(triton, model, more, words):
    triton.call("load_model", "simple")
    with pytest.raises(InferenceServerException, match=words):
        triton.call("load_model", model, **more)
    feed = samples.simple(1)
    assert_same(triton.infer("simple", feed).as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])
    unloaded(triton, "simple")


@pytest.mark.parametrize("Adapter", [TritonHttp, TritonGrpc])
def test_where_clients_may_not_load_they_are_told_so(weir, Adapter):
    triton = Adapter(weir)
    for call in ("load_model", "unload_model"):
        with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed"):
            triton.call(call, "simple")
    triton.close()


# ── The control API over gRPC ────────────────────────────────────────────────────────────────────────────────────────


class Control:
    """`weir.control.v1.Control` as its reflection describes it; messages are dictionaries."""

    def __init__(self, channel):
        self._channel = channel
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self._methods = {method.name: method for method in pool.FindServiceByName(SERVICE).methods}

    def call(self, name, metadata=(), **fields):
        method = self._methods[name]
        request = json_format.ParseDict(fields, message_factory.GetMessageClass(method.input_type)())
        call = self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        response = call(request, metadata=metadata, timeout=wire.SECONDS_MAX)
        return json_format.MessageToDict(response, preserving_proto_field_name=True)

    def refused(self, name, metadata=(), **fields):
        with pytest.raises(grpc.RpcError) as failed:
            self.call(name, metadata, **fields)
        return failed.value.code().name


@pytest.fixture
def own(weir):
    """A server whose routes nobody else changes."""
    with StartedWeir(weir.models) as started:
        yield started


@pytest.fixture
def channel(own):
    with wire_grpc.channel_to(own) as opened:
        yield opened


@pytest.fixture
def control(channel):
    return Control(channel)


def arms(**weights):
    """`arms(v1=90, v2=10)`."""
    return [{"version": version[1:], "weight": weight} for version, weight in weights.items()]


def asked(channel, metadata=(), version=None, **parameters):
    """The version that answers the eight over gRPC, and why."""
    request = wire_grpc.request_of("digits", {"image": EIGHT}, version)
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    response = wire_grpc.stub_on(channel).ModelInfer(request, metadata=metadata, timeout=wire.SECONDS_MAX)
    served = int(response.model_version)
    assert wire_grpc.read_infer(response)["label"].item() == TAKEN_FOR[served]
    return served, response.parameters["weir_route"].string_param


def asked_over_http(http, headers):
    answer = http.post("/v2/models/digits/infer", wire.json_request({"image": EIGHT}), headers)
    assert answer.status == 200, answer.body
    return int(answer.json()["model_version"]), answer.headers["weir-route"]


def test_metadata_and_headers_are_one_sticky_key(own, channel, control):
    control.call("SetRoute", model="digits", route={"arms": arms(v1=1, v2=1, v3=1), "sticky": "metadata:x-user-id"})
    with wire.Http(own.http) as http:
        for user in range(30):
            over_grpc = asked(channel, [("x-user-id", f"user-{user}")])
            assert over_grpc[1] == "sticky"
            assert over_grpc == asked_over_http(http, {"X-User-Id": f"user-{user}"})
    assert asked(channel)[1] == "weighted"


def test_a_stream_is_routed_request_by_request(channel, control):
    control.call("SetRoute", model="digits", route={"arms": arms(v1=1, v2=1), "sticky": "request_id"})

    def served(requests):
        answers = wire_grpc.stub_on(channel).ModelStreamInfer(iter(requests), timeout=wire.SECONDS_MAX)
        return [int(answer.infer_response.model_version) for answer in answers]

    requests = [wire_grpc.request_of("digits", {"image": EIGHT}, id=f"r{i}") for i in range(30)]
    once = served(requests)
    assert set(once) == {1, 2} and once == served(requests)


def test_rules_pins_and_labels_are_honoured(channel, control):
    rules = [{"header": "x-tier", "equals": "gold", "version": 2}]
    control.call("SetRoute", model="digits", route={"arms": arms(v1=1, v2=0), "rules": rules})
    control.call("SetLabel", model="digits", label="canary", version=3)
    gold = [("x-tier", "gold")]
    assert asked(channel) == (1, "weighted")
    assert asked(channel, gold) == (2, "rule")
    assert asked(channel, gold, version=3) == (3, "pinned")
    assert asked(channel, gold, version="canary") == (3, "label")
    assert asked(channel, gold, label="canary") == (3, "label")
    for more, code in [
        ({"version": "nosuch"}, "NOT_FOUND"),
        ({"label": "nosuch"}, "NOT_FOUND"),
        ({"version": 1, "label": "canary"}, "INVALID_ARGUMENT"),
        ({"label": "7"}, "INVALID_ARGUMENT"),
    ]:
        with pytest.raises(grpc.RpcError) as failed:
            asked(channel, **more)
        assert failed.value.code().name == code, more


def test_each_refusal_has_its_code(control):
    control.call("SetRoute", model="digits", route={"arms": arms(v1=1)})
    for method, fields, code in [
        ("SetRoute", {"model": "digits", "route": {}}, "INVALID_ARGUMENT"),
        ("SetRoute", {"model": "digits", "route": {"arms": arms(v9=1)}}, "NOT_FOUND"),
        ("SetRoute", {"model": "digits", "route": {"arms": arms(v2=1)}, "if_revision": 7}, "ABORTED"),
        ("SetRoute", {"model": "digits", "route": {"arms": arms(v2=1), "revision": 7}}, "ABORTED"),
        ("ClearRoute", {"model": "digits", "if_revision": 7}, "ABORTED"),
        ("GetRoute", {"model": "nosuch"}, "NOT_FOUND"),
        ("GetModel", {"model": "../digits"}, "NOT_FOUND"),
        ("UnloadVersion", {"model": "digits", "version": 1}, "FAILED_PRECONDITION"),
        ("LoadVersion", {"model": "digits", "version": 0}, "INVALID_ARGUMENT"),
        ("SetLabel", {"model": "digits", "label": "1", "version": 1}, "INVALID_ARGUMENT"),
    ]:
        assert control.refused(method, **fields) == code, (method, fields)
    assert control.call("GetRoute", model="digits")["revision"] == "1"
    assert control.call("SetRoute", model="digits", route={"arms": arms(v2=1)}, if_revision=1)["revision"] == "2"
    assert control.call("Rollback", model="digits")["arms"] == [{"version": "1", "weight": 1.0}]
    assert control.call("ClearRoute", model="digits")["owner"] == "latest"


def test_who_asks_is_on_the_record(control):
    control.call("SetRoute", [("weir-actor", "alice")], model="digits", route={"arms": arms(v1=1)})
    control.call("SetLabel", model="digits", label="stable", version=1, actor="bob")
    records = control.call("ListAudit", model="digits", limit=2)["records"]
    assert [(r["action"], r["actor"].split(" from ")[0]) for r in records] == [("label", "bob"), ("route", "alice")]
    both = [("weir-actor", "alice")]
    assert control.refused("ClearRoute", both, model="digits", actor="bob") == "INVALID_ARGUMENT"


def test_a_control_port_of_its_own_has_the_control_service_alone(weir):
    with StartedWeir(weir.models, "--control", "127.0.0.1:0") as started:
        with grpc.insecure_channel(started.control) as channel:
            models = Control(channel).call("ListModels")["models"]
            assert {m["model"] for m in models} == {"breast_cancer", "digits", "simple", "tickets"}
            with pytest.raises(grpc.RpcError) as failed:
                wire_grpc.stub_on(channel).ServerLive(service_pb2.ServerLiveRequest(), timeout=wire.SECONDS_MAX)
            assert failed.value.code().name == "UNIMPLEMENTED"
        with wire_grpc.channel_to(started) as channel:
            assert SERVICE not in ProtoReflectionDescriptorDatabase(channel).get_services()
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary(f"/{SERVICE}/ListModels")(b"", timeout=wire.SECONDS_MAX)
            assert failed.value.code().name == "UNIMPLEMENTED"


def test_a_new_version_goes_live_for_a_client_that_stays_connected(tmp_path, weir):
    model = tmp_path / "digits"
    shutil.copytree(weir.models / "digits", model, ignore=shutil.ignore_patterns("2", "3", "config.pbtxt"))
    with StartedWeir(tmp_path, "--control", "watch", "--settle-seconds", "0") as started:
        with wire_grpc.channel_to(started) as channel:
            assert asked(channel) == (1, "latest")
            shutil.copytree(weir.models / "digits" / "2", model / "2")
            # A load gives way to whatever else the machine does.
            assert eventually(lambda: asked(channel) == (2, "latest"), wire.SECONDS_MAX)

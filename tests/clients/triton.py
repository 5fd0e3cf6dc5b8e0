"""tritonclient's four clients behind one set of words, and what must hold for each of them.

`Triton…` classes adapt; `TritonFacts` holds the tests, which each test_triton_….py runs with clients of its own.
"""

import asyncio
import inspect
import re

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

import samples
from reference import assert_same, datatype


class TritonHttp:
    """`tritonclient.http`."""

    module = tritonclient.http
    # What an error's status reads for each kind of mistake.
    invalid, not_found = "400", "404"
    compressions = [
        {f"{side}_compression_algorithm": algorithm for side in sides}
        for algorithm in ("gzip", "deflate")
        for sides in (("request",), ("response",), ("request", "response"))
    ]

    def __init__(self, weir, **options):
        self.client = self.module.InferenceServerClient(weir.http, **options)

    def call(self, method, *arguments, **more):
        """The client's method of that name, run to its end."""
        return getattr(self.client, method)(*arguments, **more)

    def metadata(self, model, version=""):
        return self.call("get_model_metadata", model, version)

    def server_metadata(self):
        return self.call("get_server_metadata")

    def config(self, model):
        return self.call("get_model_config", model)

    def statistics(self, model="", version=""):
        return self.call("get_inference_statistics", model, version)["model_stats"]

    def index(self):
        return self.call("get_model_repository_index")

    def inputs(self, feed):
        return [self.input(name, array) for name, array in feed.items()]

    def input(self, name, array):
        tensor = self.module.InferInput(name, list(array.shape), datatype(array))
        tensor.set_data_from_numpy(array)
        return tensor

    def output(self, name, **more):
        return self.module.InferRequestedOutput(name, **more)

    def infer(self, model, feed, **more):
        return self.call("infer", model, self.inputs(feed), **more)

    def head(self, result):
        """The response without its data, as a dictionary."""
        return result.get_response()

    def close(self):
        self.call("close")


class TritonGrpc(TritonHttp):
    """`tritonclient.grpc`."""

    module = tritonclient.grpc
    invalid, not_found = "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"
    compressions = [{"compression_algorithm": algorithm} for algorithm in ("gzip", "deflate")]

    def __init__(self, weir, **options):
        self.client = self.module.InferenceServerClient(weir.grpc, **options)

    def metadata(self, model, version=""):
        return self.call("get_model_metadata", model, version, as_json=True)

    def server_metadata(self):
        return self.call("get_server_metadata", as_json=True)

    def config(self, model):
        return self.call("get_model_config", model, as_json=True)["config"]

    def statistics(self, model="", version=""):
        return self.call("get_inference_statistics", model, version, as_json=True)["model_stats"]

    def index(self):
        return self.call("get_model_repository_index", as_json=True)["models"]

    def head(self, result):
        return result.get_response(as_json=True)


class InItsOwnLoop:
    """Runs an asyncio client's methods as if they were plain ones."""

    def __init__(self, weir, **options):
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open(weir, options))

    async def _open(self, weir, options):
        # Inside the loop, to which the client binds itself.
        super().__init__(weir, **options)

    def call(self, method, *arguments, **more):
        called = getattr(self.client, method)(*arguments, **more)
        return self.wait(called) if inspect.isawaitable(called) else called

    def wait(self, awaitable):
        return self._loop.run_until_complete(awaitable)

    def close(self):
        super().close()
        self._loop.close()


class TritonHttpAio(InItsOwnLoop, TritonHttp):
    """`tritonclient.http.aio`."""

    module = tritonclient.http.aio


class TritonGrpcAio(InItsOwnLoop, TritonGrpc):
    """`tritonclient.grpc.aio`."""

    module = tritonclient.grpc.aio


# What a client does wrong, the kind of status, and how the message begins; {…} stands for what the test fills in.
MISTAKES = {
    "unknown_model": ("invalid", r"Request for unknown model: 'nosuch' is not found"),
    "unknown_version": ("not_found", r"Request for unknown model: 'digits' version 9 is not found"),
    "wrong_row": (
        "invalid",
        r"unexpected shape for input 'image' for model 'digits'\. Expected \[-1,64\], got \[1,63\]",
    ),
    "wrong_rank": (
        "invalid",
        r"unexpected shape for input 'image' for model 'digits'\. Expected \[-1,64\], got \[64\]",
    ),
    "wrong_type": (
        "invalid",
        r"inference input 'image' data-type is 'FP64', but model 'digits' expects 'FP32'",
    ),
    "too_many_rows": ("invalid", r"inference request batch-size must be <= 64 for 'digits'"),
    "fewer_bytes_than_the_shape": ("invalid", r"input byte size mismatch for input 'image'"),
    "missing_input": ("invalid", r".*INPUT1"),
    "unknown_input": ("invalid", r".*nosuch"),
    "repeated_input": ("invalid", r".*image.*already exists in request|.*already exists in request.*image"),
    "unknown_output": ("invalid", r".*nosuch"),
}


def make_mistake(triton, mistake):
    """Sends the request with that mistake."""
    one = samples.digits(1)
    image = one["image"]
    if mistake == "unknown_model":
        return triton.infer("nosuch", one)
    if mistake == "unknown_version":
        return triton.infer("digits", one, model_version="9")
    if mistake == "wrong_row":
        return triton.infer("digits", {"image": image[:, :63]})
    if mistake == "wrong_rank":
        return triton.infer("digits", {"image": image[0]})
    if mistake == "wrong_type":
        return triton.infer("digits", {"image": image.astype(np.float64)})
    if mistake == "too_many_rows":
        return triton.infer("digits", samples.digits(65))
    if mistake == "fewer_bytes_than_the_shape":
        tensor = triton.input("image", image)
        tensor.set_shape([2, 64])
        return triton.call("infer", "digits", [tensor])
    if mistake == "missing_input":
        return triton.infer("simple", {"INPUT0": samples.simple(1)["INPUT0"]})
    if mistake == "unknown_input":
        return triton.infer("digits", one | {"nosuch": image})
    if mistake == "repeated_input":
        return triton.call("infer", "digits", triton.inputs(one) * 2)
    if mistake == "unknown_output":
        return triton.infer("digits", one, outputs=[triton.output("nosuch")])
    raise KeyError(mistake)


class TritonFacts:
    """What must hold for every client. A subclass names the adapter in `Adapter`."""

    Adapter = None

    @pytest.fixture
    def triton(self, weir):
        client = self.Adapter(weir)
        yield client
        client.close()

    @pytest.fixture
    def triton_fixtures(self, weir_fixtures):
        client = self.Adapter(weir_fixtures)
        yield client
        client.close()

    # ── What the server says of itself ──

    def test_server_is_live_and_ready(self, triton):
        assert triton.call("is_server_live")
        assert triton.call("is_server_ready")

    @pytest.mark.parametrize("model", samples.BUNDLED)
    def test_bundled_model_is_ready(self, triton, model):
        assert triton.call("is_model_ready", model)
        assert triton.call("is_model_ready", model, str(samples.LATEST[model]))

    @pytest.mark.parametrize("model, version", [("nosuch", ""), ("digits", "9")])
    def test_unknown_model_is_not_ready(self, triton, model, version):
        assert triton.call("is_model_ready", model, version) is False

    def test_server_metadata_names_the_server_and_its_extensions(self, triton):
        metadata = triton.server_metadata()
        assert metadata["name"] and metadata["version"]
        assert {"classification", "model_configuration", "statistics"} <= set(metadata["extensions"])

    @pytest.mark.parametrize(
        "model, versions, inputs, outputs",
        [
            (
                "digits",
                ["1", "2", "3"],
                [("image", "FP32", [-1, 64])],
                [("label", "INT64", [-1, 1]), ("probabilities", "FP32", [-1, 10])],
            ),
            (
                "breast_cancer",
                ["1"],
                [("features", "FP32", [-1, 30])],
                [("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 2])],
            ),
            (
                "tickets",
                ["1"],
                [("text", "BYTES", [-1, 1])],
                [("label", "BYTES", [-1, 1]), ("probabilities", "FP32", [-1, 5])],
            ),
        ],
    )
    def test_model_metadata_is_that_of_the_model(self, triton, model, versions, inputs, outputs):
        metadata = triton.metadata(model)
        assert metadata["name"] == model
        assert sorted(metadata["versions"]) == versions
        assert metadata["platform"] == "onnxruntime_onnx"
        for side, expected in (("inputs", inputs), ("outputs", outputs)):
            got = [(p["name"], p["datatype"], [int(d) for d in p["shape"]]) for p in metadata[side]]
            assert got == expected

    def test_model_metadata_of_one_version_names_that_version(self, triton):
        assert triton.metadata("digits", "2")["versions"] == ["2"]

    def test_metadata_of_an_unknown_model_is_refused(self, triton):
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nosuch' is not found"):
            triton.metadata("nosuch")

    def test_model_config_is_the_one_in_the_repository(self, triton):
        config = triton.config("digits")
        assert config["name"] == "digits"
        assert config["max_batch_size"] == 64
        assert config["platform"] == "onnxruntime_onnx"
        assert "dynamic_batching" in config and "all" in config["version_policy"]
        (image,) = config["input"]
        assert (image["name"], image["data_type"], [int(d) for d in image["dims"]]) == ("image", "TYPE_FP32", [64])
        assert [port["name"] for port in config["output"]] == ["label", "probabilities"]

    def test_model_config_is_made_up_for_a_model_without_one(self, triton):
        config = triton.config("breast_cancer")
        assert config["name"] == "breast_cancer"
        assert [port["name"] for port in config["input"]] == ["features"]
        assert [port["name"] for port in config["output"]] == ["label", "probabilities"]

    def test_repository_index_lists_every_version_as_ready(self, triton, weir):
        found = {(e["name"], int(e["version"])): e["state"] for e in triton.index()}
        versions = (path.parent for path in weir.models.glob("[!.]*/*/model.onnx"))
        on_disk = {(path.parent.name, int(path.name)) for path in versions}
        assert found == dict.fromkeys(on_disk, "READY")

    def test_statistics_grow_by_what_was_sent(self, triton):
        def counts():
            (item,) = triton.statistics("digits", "2")
            assert (item["name"], item["version"]) == ("digits", "2")
            success = item["inference_stats"]["success"]
            return np.array([int(item["inference_count"]), int(success["count"]), int(success["ns"])])

        # Asked once before, so that no count is still zero and left out of gRPC's JSON.
        triton.infer("digits", samples.digits(1), model_version="2")
        before = counts()
        triton.infer("digits", samples.digits(5), model_version="2")
        triton.infer("digits", samples.digits(2), model_version="2")
        rows, requests, nanoseconds = counts() - before
        assert (rows, requests) == (7, 2)
        assert nanoseconds > 0

    # ── Inference ──

    @pytest.mark.parametrize("model, rows", [("digits", 1), ("digits", 64), ("simple", 8), ("tickets", 5)])
    def test_answer_is_onnx_runtimes(self, triton, weir, model, rows):
        feed = samples.BUNDLED[model](rows)
        result = triton.infer(model, feed)
        expected = samples.as_served(samples.direct(weir, model, feed), triton.metadata(model))
        for name, array in expected.items():
            assert_same(result.as_numpy(name), array, name)

    @pytest.mark.parametrize("version", ["1", "2", "3", ""])
    def test_the_version_asked_for_answers(self, triton, weir, version):
        feed = samples.digits(4)
        result = triton.infer("digits", feed, model_version=version)
        head = triton.head(result)
        assert (head["model_name"], head["model_version"]) == ("digits", version or "3")
        expected = samples.direct(weir, "digits", feed, int(version or 3))
        assert_same(result.as_numpy("probabilities"), expected["probabilities"])

    def test_only_the_outputs_asked_for_come_back_in_the_order_asked(self, triton):
        for names in (["OUTPUT1"], ["OUTPUT1", "OUTPUT0"]):
            outputs = [triton.output(name) for name in names]
            result = triton.infer("simple", samples.simple(2), outputs=outputs)
            assert [o["name"] for o in triton.head(result)["outputs"]] == names
            if "OUTPUT0" not in names:
                assert result.as_numpy("OUTPUT0") is None

    def test_request_id_comes_back_if_it_was_given(self, triton):
        given = triton.infer("digits", samples.digits(1), request_id="request 7 ü")
        assert triton.head(given)["id"] == "request 7 ü"
        assert not triton.head(triton.infer("digits", samples.digits(1))).get("id")

    @pytest.mark.parametrize("classes", [1, 3, 10, 99])
    def test_classification_gives_the_best_classes_with_their_labels(self, triton, weir, classes):
        feed = samples.digits(4)
        output = triton.output("probabilities", class_count=classes)
        answer = triton.infer("digits", feed, outputs=[output]).as_numpy("probabilities")
        labels = (weir.models / "digits" / "digits_labels.txt").read_text().split()
        probabilities = samples.direct(weir, "digits", feed)["probabilities"]
        assert answer.shape == (4, min(classes, 10))
        for texts, row in zip(answer, probabilities):
            values, indices, names = zip(*(text.decode().split(":") for text in texts))
            indices = [int(i) for i in indices]
            np.testing.assert_allclose([float(v) for v in values], row[indices], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(row[indices], np.sort(row)[::-1][: len(indices)])
            assert list(names) == [labels[i] for i in indices]
            assert len(set(indices)) == len(indices)

    def test_strings_with_nul_and_without_utf8_come_back_as_they_were(self, triton_fixtures):
        texts = [b"", b"a\0b", b"\0", b"\xff\xfe\x80", "Grüße 📦".encode(), b"x" * 100_000]
        array = np.array(texts, dtype=object).reshape(2, 3)
        result = triton_fixtures.infer("identity_bytes", {"INPUT0": array})
        assert_same(result.as_numpy("OUTPUT0"), array)

    @pytest.mark.parametrize("name", ["BOOL", "UINT64", "INT8", "FP16", "BF16", "FP64"])
    def test_data_types_come_back_as_they_were(self, triton_fixtures, name):
        array = samples.numbers(name, (3, 5))
        result = triton_fixtures.infer(f"identity_{name.lower()}", {"INPUT0": array})
        assert_same(result.as_numpy("OUTPUT0"), array)

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
    def test_tensors_without_elements_come_back(self, triton_fixtures, shape):
        result = triton_fixtures.infer("identity_fp32", {"INPUT0": np.zeros(shape, np.float32)})
        assert_same(result.as_numpy("OUTPUT0"), np.zeros(shape, np.float32))

    def test_eight_mebibytes_go_both_ways(self, triton_fixtures):
        array = samples.numbers("FP32", (16, 131072))
        result = triton_fixtures.infer("identity_fp32", {"INPUT0": array})
        assert_same(result.as_numpy("OUTPUT0"), array)

    def test_compressed_requests_and_answers_are_understood(self, triton):
        feed = samples.digits(16)
        expected = triton.infer("digits", feed).as_numpy("probabilities")
        for compression in triton.compressions:
            answer = triton.infer("digits", feed, **compression).as_numpy("probabilities")
            assert_same(answer, expected, str(compression))

    def test_priority_timeout_and_other_parameters_are_accepted(self, triton):
        parameters = {"tenant": "a", "weight": 3, "traced": True, "share": 0.5}
        for more in ({"priority": 1}, {"timeout": 60_000_000}, {"parameters": parameters}):
            result = triton.infer("digits", samples.digits(1), **more)
            assert result.as_numpy("label").shape == (1, 1)

    # ── Mistakes ──

    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_mistake_is_refused_with_the_message_that_clients_expect(self, triton, mistake):
        status, message = MISTAKES[mistake]
        with pytest.raises(InferenceServerException) as refusal:
            make_mistake(triton, mistake)
        assert re.match(message, refusal.value.message()), refusal.value
        assert refusal.value.status() == getattr(triton, status)

    def test_the_connection_outlives_mistakes(self, triton):
        for mistake in MISTAKES:
            with pytest.raises(InferenceServerException):
                make_mistake(triton, mistake)
            assert triton.infer("digits", samples.digits(1)).as_numpy("label").shape == (1, 1)

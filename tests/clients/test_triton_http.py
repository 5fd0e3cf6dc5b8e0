"""tritonclient.http, unmodified."""

import numpy as np
import pytest
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

import samples
from reference import assert_same
from triton import TritonFacts, TritonHttp


class TestTritonHttp(TritonFacts):
    Adapter = TritonHttp

    @pytest.mark.parametrize("binary_input", [False, True])
    @pytest.mark.parametrize("binary_output", [False, True])
    @pytest.mark.parametrize("model", ["digits", "simple", "tickets"])
    def test_json_and_binary_mix_freely(self, triton, weir, model, binary_input, binary_output):
        feed = samples.BUNDLED[model](3)
        inputs = triton.inputs(feed)
        # The first input as asked, the others binary, so that `simple` sends both kinds in one request.
        inputs[0].set_data_from_numpy(next(iter(feed.values())), binary_data=binary_input)
        expected = samples.as_served(samples.direct(weir, model, feed), triton.metadata(model))
        first, second = expected
        outputs = [triton.output(first, binary_data=binary_output), triton.output(second, binary_data=True)]
        result = triton.call("infer", model, inputs, outputs=outputs)
        for name, array in expected.items():
            if name == "label" and model == "tickets" and not binary_output:
                # As JSON a string comes back as text.
                assert result.as_numpy(name).tolist() == [[x.decode()] for x in array.flat]
            else:
                assert_same(result.as_numpy(name), array, name)
            sent_binary = "binary_data_size" in (result.get_output(name).get("parameters") or {})
            assert sent_binary == (binary_output or name == second)

    def test_without_outputs_everything_comes_back_binary(self, triton):
        result = triton.infer("digits", samples.digits(1))
        for output in result.get_response()["outputs"]:
            assert "data" not in output and output["parameters"]["binary_data_size"] > 0

    def test_json_alone_in_both_directions(self, triton):
        feed = samples.simple(2)
        inputs = triton.inputs(feed)
        for tensor, array in zip(inputs, feed.values()):
            tensor.set_data_from_numpy(array, binary_data=False)
        outputs = [triton.output(name, binary_data=False) for name in ("OUTPUT0", "OUTPUT1")]
        result = triton.call("infer", "simple", inputs, outputs=outputs)
        assert_same(result.as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])
        assert_same(result.as_numpy("OUTPUT1"), feed["INPUT0"] - feed["INPUT1"])

    def test_many_requests_at_once_get_their_own_answers(self, weir):
        with triton_http.InferenceServerClient(weir.http, concurrency=8) as client:
            feeds = [samples.simple(1, seed=i) for i in range(32)]
            triton = TritonHttp(weir)
            pending = [client.async_infer("simple", triton.inputs(feed)) for feed in feeds]
            for feed, request in zip(feeds, pending):
                assert_same(request.get_result().as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])
            triton.close()

    def test_a_mistake_sent_in_the_background_is_reported_when_it_is_fetched(self, triton):
        request = triton.client.async_infer("nosuch", triton.inputs(samples.digits(1)))
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nosuch' is not found"):
            request.get_result()

    def test_a_client_that_gives_up_leaves_the_server_well(self, weir_fixtures):
        feed = samples.rows_of_four(1)
        hasty = TritonHttp(weir_fixtures, network_timeout=0.005)
        with pytest.raises(TimeoutError):
            hasty.infer("slow", feed)
        hasty.close()
        patient = TritonHttp(weir_fixtures)
        assert patient.infer("slow", feed).as_numpy("OUTPUT0").shape == (1, 4)
        patient.close()

    def test_body_and_answer_made_apart_from_the_client_agree(self, triton, http):
        feed = samples.simple(1)
        body, length = triton_http.InferenceServerClient.generate_request_body(triton.inputs(feed))
        headers = {"Inference-Header-Content-Length": str(length)}
        answer = http.post("/v2/models/simple/infer", body, headers)
        result = triton_http.InferenceServerClient.parse_response_body(
            answer.body, header_length=int(answer.headers["Inference-Header-Content-Length"])
        )
        assert_same(result.as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])

    def test_nan_and_infinity_are_exact_in_binary(self, triton_fixtures):
        array = np.array([[np.nan, np.inf, -np.inf, -0.0, np.finfo(np.float32).tiny / 2]], np.float32)
        assert_same(triton_fixtures.infer("identity_fp32", {"INPUT0": array}).as_numpy("OUTPUT0"), array)

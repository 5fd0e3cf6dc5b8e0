"""tritonclient.grpc, unmodified."""

import queue

import pytest
from tritonclient.utils import InferenceServerException

import samples
from reference import assert_same
from triton import TritonFacts, TritonGrpc

SECONDS_MAX = 30


class Callback:
    """Collects (result, error) pairs as the client's threads bring them."""

    def __init__(self):
        self._arrived = queue.Queue()

    def __call__(self, result, error):
        self._arrived.put((result, error))

    def next(self):
        return self._arrived.get(timeout=SECONDS_MAX)


class TestTritonGrpc(TritonFacts):
    Adapter = TritonGrpc

    def test_every_output_has_its_raw_contents_and_no_typed_ones(self, triton):
        response = triton.infer("digits", samples.digits(2)).get_response()
        assert len(response.raw_output_contents) == len(response.outputs) == 2
        assert not any(output.HasField("contents") for output in response.outputs)

    def test_answers_arrive_in_the_background(self, triton):
        callback = Callback()
        feeds = {str(i): samples.simple(1, seed=i) for i in range(32)}
        for request_id, feed in feeds.items():
            triton.client.async_infer("simple", triton.inputs(feed), callback, request_id=request_id)
        for _ in range(len(feeds)):
            result, error = callback.next()
            assert error is None
            feed = feeds.pop(result.get_response().id)
            assert_same(result.as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])
        assert not feeds

    def test_a_cancelled_request_ends_as_cancelled(self, triton_fixtures):
        callback = Callback()
        inputs = triton_fixtures.inputs(samples.rows_of_four(1))
        triton_fixtures.client.async_infer("slow", inputs, callback).cancel()
        result, error = callback.next()
        assert result is None and error.status() == "StatusCode.CANCELLED"
        assert triton_fixtures.infer("slow", samples.rows_of_four(1)).as_numpy("OUTPUT0").shape == (1, 4)

    def test_a_deadline_that_passes_is_reported_as_such(self, triton_fixtures):
        with pytest.raises(InferenceServerException) as late:
            triton_fixtures.infer("slow", samples.rows_of_four(1), client_timeout=0.005)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert triton_fixtures.infer("slow", samples.rows_of_four(1)).as_numpy("OUTPUT0").shape == (1, 4)

    def test_version_that_is_no_number_is_refused(self, triton):
        with pytest.raises(InferenceServerException, match="failed to get model version from specified version string"):
            triton.infer("digits", samples.digits(1), model_version="two")

    def test_a_stream_answers_each_request_and_outlives_a_mistake(self, triton):
        callback = Callback()
        triton.client.start_stream(callback)
        wrong = 2
        for i in range(5):
            model = "nosuch" if i == wrong else "simple"
            triton.client.async_stream_infer(model, triton.inputs(samples.simple(1, seed=i)), request_id=str(i))
        answered, refused = {}, []
        for _ in range(5):
            result, error = callback.next()
            if error is None:
                answered[int(result.get_response().id)] = result
            else:
                refused.append(error.message())
        triton.client.stop_stream()
        assert answered.keys() == {0, 1, 3, 4}
        for i, result in answered.items():
            feed = samples.simple(1, seed=i)
            assert_same(result.as_numpy("OUTPUT1"), feed["INPUT0"] - feed["INPUT1"])
        (message,) = refused
        assert message.startswith("Request for unknown model: 'nosuch' is not found")

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_a_compressed_stream_is_understood(self, triton, algorithm):
        callback = Callback()
        feed = samples.simple(8)
        triton.client.start_stream(callback, compression_algorithm=algorithm)
        triton.client.async_stream_infer("simple", triton.inputs(feed))
        result, error = callback.next()
        triton.client.stop_stream()
        assert error is None
        assert_same(result.as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])

    def test_a_stream_ends_when_the_client_stops_it_without_a_request(self, triton):
        callback = Callback()
        triton.client.start_stream(callback)
        triton.client.stop_stream()
        assert triton.infer("simple", samples.simple(1)).as_numpy("OUTPUT0").shape == (1, 16)

    def test_an_empty_final_response_is_not_sent_for_a_model_that_answers_once(self, triton):
        callback = Callback()
        triton.client.start_stream(callback)
        for i in range(2):
            triton.client.async_stream_infer(
                "simple",
                triton.inputs(samples.simple(1)),
                request_id=str(i),
                enable_empty_final_response=True,
            )
        for i in range(2):
            result, error = callback.next()
            assert error is None and result.get_response().id == str(i)
            assert len(result.get_response().outputs) == 2
        triton.client.stop_stream()

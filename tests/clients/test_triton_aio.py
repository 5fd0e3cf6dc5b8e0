"""tritonclient.http.aio and tritonclient.grpc.aio, unmodified.

aiohttp asks for compressed answers of its own accord, but tritonclient.http.aio unpacks only those of an inference: if
the server compresses metadata or errors, the facts below fail.
"""

import asyncio

import pytest
from tritonclient.utils import InferenceServerException

import samples
from reference import assert_same
from triton import TritonFacts, TritonGrpcAio, TritonHttpAio


class AioFacts(TritonFacts):
    def test_many_requests_at_once_get_their_own_answers(self, triton):
        feeds = [samples.simple(1, seed=i) for i in range(32)]

        async def ask_all():
            asked = (triton.client.infer("simple", triton.inputs(feed)) for feed in feeds)
            return await asyncio.gather(*asked)

        for feed, result in zip(feeds, triton.wait(ask_all())):
            assert_same(result.as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])

    def test_one_mistake_among_many_fails_alone(self, triton):
        async def ask_all():
            asked = (
                triton.client.infer("nosuch" if i == 3 else "simple", triton.inputs(samples.simple(1)))
                for i in range(8)
            )
            return await asyncio.gather(*asked, return_exceptions=True)

        results = triton.wait(ask_all())
        failed = [i for i, result in enumerate(results) if isinstance(result, InferenceServerException)]
        assert failed == [3]


class TestTritonHttpAio(AioFacts):
    Adapter = TritonHttpAio

    def test_a_client_that_gives_up_leaves_the_server_well(self, weir_fixtures):
        feed = samples.rows_of_four(1)
        hasty = TritonHttpAio(weir_fixtures, conn_timeout=0.005)
        with pytest.raises(TimeoutError):
            hasty.infer("slow", feed)
        hasty.close()
        patient = TritonHttpAio(weir_fixtures)
        assert patient.infer("slow", feed).as_numpy("OUTPUT0").shape == (1, 4)
        patient.close()


class TestTritonGrpcAio(AioFacts):
    Adapter = TritonGrpcAio

    def test_a_stream_answers_each_request_and_outlives_a_mistake(self, triton):
        wrong = 2

        async def requests():
            for i in range(5):
                yield {
                    "model_name": "nosuch" if i == wrong else "simple",
                    "inputs": triton.inputs(samples.simple(1, seed=i)),
                    "request_id": str(i),
                }

        async def ask_all():
            return [pair async for pair in triton.client.stream_infer(requests())]

        pairs = triton.wait(ask_all())
        assert len(pairs) == 5
        errors = [error.message() for _, error in pairs if error]
        assert len(errors) == 1 and errors[0].startswith("Request for unknown model: 'nosuch' is not found")
        answered = {int(result.get_response().id): result for result, error in pairs if not error}
        assert answered.keys() == {0, 1, 3, 4}
        for i, result in answered.items():
            feed = samples.simple(1, seed=i)
            assert_same(result.as_numpy("OUTPUT0"), feed["INPUT0"] + feed["INPUT1"])

    def test_a_deadline_that_passes_is_reported_as_such(self, triton_fixtures):
        with pytest.raises(InferenceServerException) as late:
            triton_fixtures.infer("slow", samples.rows_of_four(1), client_timeout=0.005)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"

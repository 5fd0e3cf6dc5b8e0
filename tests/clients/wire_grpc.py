"""The protocol spoken by hand over gRPC, with tritonclient's generated messages.

Apart from wire.py because KServe's client registers messages of the same names, and protobuf allows one set in a
process.
"""

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from reference import datatype
from wire import SECONDS_MAX, BinaryHttp, JsonHttp, Refused, array_of, bytes_of


def channel_to(weir):
    """A channel with no limit on a message's size."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(weir.grpc, options)


def stub_on(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request_of(model, feed, version=None, **more):
    """An inference request with raw contents."""
    return service_pb2.ModelInferRequest(
        model_name=model,
        model_version="" if version is None else str(version),
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(name=n, datatype=datatype(a), shape=a.shape)
            for n, a in feed.items()
        ],
        raw_input_contents=[bytes_of(a) for a in feed.values()],
        **more,
    )


def read_infer(response):
    """An inference response's outputs by name; each must have its raw contents, even if empty."""
    assert len(response.raw_output_contents) == len(response.outputs), "one raw content per output"
    return {
        output.name: array_of(raw, output.datatype, list(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents)
    }


class Grpc:
    """gRPC with raw contents."""

    def __init__(self, weir):
        self._channel = channel_to(weir)
        self._stub = stub_on(self._channel)

    def infer(self, model, feed, version=None):
        try:
            response = self._stub.ModelInfer(request_of(model, feed, version), timeout=SECONDS_MAX)
        except grpc.RpcError as error:
            raise Refused(error.code().name, error.details()) from None
        return read_infer(response)

    def close(self):
        self._channel.close()


WAYS = {"json": JsonHttp, "binary": BinaryHttp, "grpc": Grpc}

"""Replicas that look ready and fail: what a balancer does with a request then."""

import http.server
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Stub:
    """Ready by every check. It refuses each request as a Weir does that has not begun it, or hangs up on it."""

    def __init__(self, hangs_up):
        # Requests that it was sent, by protocol.
        self.asked = {"http": 0, "grpc": 0}
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, hangs_up))
        self._http.daemon_threads = True
        self.http = f"127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

        self._grpc = grpc.server(futures.ThreadPoolExecutor(4))
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._grpc)
        self._grpc.add_generic_rpc_handlers((_Refusal(self),))
        self.grpc = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()


def _handler(stub, hangs_up):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(200, b'{"ready":true}')

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            stub.asked["http"] += 1
            if hangs_up:
                self.close_connection = True
            else:
                self._answer(503, b'{"error":"the model is still loading"}')

        def _answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


class _Refusal(grpc.GenericRpcHandler):
    def __init__(self, stub):
        self._stub = stub

    def service(self, details):
        if not details.method.startswith("/inference."):
            return None

        def refuse(_, context):
            self._stub.asked["grpc"] += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the model is still loading")

        return grpc.unary_unary_rpc_method_handler(refuse)

"""What a hostile client sends and what a hostile author of models leaves in a repository, made the same on every run.

Requests: http1_bytes, json_bodies, binary_bodies and values over http1; http2_frames and grpc_frames over http2;
changes, of the control API and the repository, over both. Their `…cases()` give `http1.Case` or `http2.Case`.
Models: damaged, growing, hazards, operators, edges, external, configs, places; each has `models()`, of
folders.HostileModel.
Always: no library writes what is wrong on purpose; protobuf, ONNX, HPACK and frames are written by hand.
Not here: how a server must bear it; see test_hostile_requests.py and test_hostile_models.py.
"""

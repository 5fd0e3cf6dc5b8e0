"""What a hostile client sends and what a hostile author of models leaves in a repository, made the same on every run.

Requests: http1, json_bodies, binary_bodies, values (HTTP/1), http2, grpc_frames, changes (control and repository).
Models: damaged, growing, hazards, external, configs, places; each has `models()`, of folders.HostileModel.
Always: no library writes what is wrong on purpose; protobuf, ONNX, HPACK and frames are written by hand.
Not here: how a server must bear it; see test_hostile_requests.py and test_hostile_models.py.
"""

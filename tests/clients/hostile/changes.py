"""Hostile changes: the control API, load and unload, asked for nonsense, for too much, and for files elsewhere.

Meant for a server that lets clients change what is live. `digits` is the victim; `simple` is left alone, to be asked.
"""

import base64
import json

from . import grpc_frames, http1, http2
from .configs import GOOD as GOOD_CONFIG
from .external import external
from .json_bodies import WRONG
from .onnx_bytes import FLOAT, identity, node, one_to_one
from .protobuf import blob, each, f64, num

CONTROL = "/control/v1"
VICTIM = f"{CONTROL}/models/digits"
REPOSITORY = "/v2/repository"

# Every path of the control API with the methods that it takes.
PATHS = {
    "/models": ["GET"],
    "/models/digits": ["GET"],
    "/models/digits/route": ["GET", "PUT", "DELETE"],
    "/models/digits/rollback": ["POST"],
    "/models/digits/labels/stable": ["PUT", "DELETE"],
    "/models/digits/versions/1/load": ["POST"],
    "/models/digits/rollouts": ["GET", "POST"],
    "/models/digits/rollouts/x": ["GET"],
    "/models/digits/rollouts/x/pause": ["POST"],
    "/models/digits/rollouts/x/promote": ["POST"],
    "/models/digits/shadows": ["GET"],
    "/models/digits/feedback": ["POST"],
    "/models/digits/experiments": ["GET"],
    "/audit": ["GET"],
}


def http_cases():
    """For a server whose clients may load. No case loads a file that is good, so that what is live stays."""
    yield from _routes()
    yield from _labels_and_versions()
    yield from _rollouts()
    yield from _feedback()
    yield from _records()
    yield from _index()
    yield from _loads()


def grpc_cases():
    yield from _control_calls()
    yield from _repository_calls()


def change(method, path, body="", headers=(), promised=()):
    """A change that may be refused by what is live (409, 412) or by the record (503): never by a fault of ours."""
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return http1.Case(f"{method} {path[:60]} {data[:60]!r}", http1.request(method, path, data, headers), promised)


def _routes():
    for path, methods in PATHS.items():
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"):
            yield change(method, CONTROL + path, "" if method not in methods or method == "GET" else "[]")
    route = f"{VICTIM}/route"
    for text in WRONG.values():
        yield change("PUT", route, text)
        yield change("PUT", route, f'{{"arms":{text}}}')
        yield change("PUT", route, f'{{"arms":[{text}]}}')
        yield change("PUT", route, f'{{"arms":[{{"version":{text},"weight":1}}]}}')
        yield change("PUT", route, f'{{"arms":[{{"version":999999,"weight":{text}}}]}}')
        yield change("PUT", route, f'{{"arms":[{{"version":999999,"weight":1}}],"sticky":{text}}}')
        yield change("PUT", route, f'{{"arms":[{{"version":999999,"weight":1}}],"rules":{text}}}')
        yield change(
            "PUT", route, f'{{"arms":[{{"version":999999,"weight":1}}],"shadows":[{{"version":2,"share":{text}}}]}}'
        )
        yield change("PUT", route, f'{{"unknown":{text}}}')
    for arms in (0, 2, 1000, 20_000):
        yield change("PUT", route, json.dumps({"arms": [{"version": 900_000 + i, "weight": 1} for i in range(arms)]}))
        yield change(
            "PUT",
            route,
            json.dumps(
                {
                    "arms": [{"version": 999_999, "weight": 1}],
                    "rules": [{"header": f"h{i}", "equals": "x", "version": 999_999} for i in range(arms)],
                }
            ),
        )
        yield change(
            "PUT",
            route,
            json.dumps(
                {
                    "arms": [{"version": 999_999, "weight": 1}],
                    "shadows": [{"version": 900_000 + i, "share": 1} for i in range(arms)],
                }
            ),
        )
    for sticky in (
        "header:",
        "header:\0",
        "header:" + "h" * 50_000,
        "cookie:x",
        "header:a\r\nb",
        ":",
        "",
        "parameter:\ud800",
        "request_id:x",
    ):
        yield change("PUT", route, json.dumps({"arms": [{"version": 999_999, "weight": 1}], "sticky": sticky}))
    for condition in (
        "*",
        '"1"',
        'W/"1"',
        '"99999999999999999999"',
        '"-1"',
        "abc",
        "\xff",
        "",
        '"1", "2"',
        '"' + "9" * 5000 + '"',
    ):
        yield change("PUT", route, '{"arms":[{"version":999999,"weight":1}]}', [("If-Match", condition)])
        yield change("DELETE", route, "", [("If-Match", condition)])
        yield change("POST", f"{VICTIM}/rollback", "", [("If-Match", condition)])
    for actor in ("\x7f", "a" * 129, "\xff", "a\tb", "", " ", "root; rm -rf"):
        yield change("PUT", route, '{"arms":[{"version":999999,"weight":1}]}', [("weir-actor", actor)])
    yield change("PUT", route, '{"arms":' + "[" * 5000)
    yield change("PUT", route, "x" * (2 << 20))
    yield change("PUT", route, " " * ((1 << 20) + 1) + "{}")


def _labels_and_versions():
    for label in (
        "",
        "%00",
        "..",
        "%2e%2e",
        "a" * 300,
        "1",
        "%ff",
        "a%2fb",
        "a%0d%0ab",
        "-",
        "_",
        "STABLE",
        "stable%20",
        "latest",
        "versions",
    ):
        for method in ("PUT", "DELETE", "GET"):
            yield change(method, f"{VICTIM}/labels/{label}", '{"version":999999}')
    for text in WRONG.values():
        yield change("PUT", f"{VICTIM}/labels/stable", text)
        yield change("PUT", f"{VICTIM}/labels/stable", f'{{"version":{text}}}')
    for version in ("0", "-1", "999999", "9" * 18, "9" * 40, "1.0", "01", "%31x", "..", "stable", "", "1%00"):
        for what in ("load", "unload", "reload", ""):
            if not (version == "stable" and what in ("load", "unload")):
                yield change("POST", f"{VICTIM}/versions/{version}/{what}")


def _rollouts():
    path = f"{VICTIM}/rollouts"
    for text in WRONG.values():
        yield change("POST", path, text)
        for key in ("target", "steps", "step_requests_min", "step_seconds_min", "guards", "alpha", "actor", "unknown"):
            yield change(
                "POST", path, f'{{"target":999999,"{key}":{text}}}' if key != "target" else f'{{"target":{text}}}'
            )
        for guard in ("errors", "latency", "shift", "disagreement", "unknown"):
            yield change("POST", path, f'{{"target":999999,"guards":{{"{guard}":{text}}}}}')
        for guard, key in (
            ("errors", "margin"),
            ("latency", "objective_ms"),
            ("shift", "factor"),
            ("disagreement", "max"),
            ("disagreement", "share"),
        ):
            yield change("POST", path, f'{{"target":999999,"guards":{{"{guard}":{{"{key}":{text}}}}}}}')
    for steps in ([], [0], [-1], [101], [50, 5], [5, 5], [1] * 10_000, [1e308], [0.0001, 100]):
        yield change("POST", path, json.dumps({"target": 999_999, "steps": steps}))
    for name in ("x", "..", "%00", "%ff", "1", "0" * 3000, "latest", "00000000-0000-0000-0000-000000000000"):
        for what in ("", "/pause", "/resume", "/promote", "/abort", "/explode"):
            yield change("POST" if what else "GET", f"{path}/{name}{what}")


def _feedback():
    path = f"{VICTIM}/feedback"
    for text in WRONG.values():
        yield change("POST", path, text)
        yield change("POST", path, f'{{"request_id":{text},"outcome":1}}')
        yield change("POST", path, f'{{"request_id":"r","outcome":{text}}}')
    for model in ("nosuch", "..", "%00", "a" * 300):
        yield change("POST", f"{CONTROL}/models/{model}/feedback", '{"request_id":"r","outcome":1}')


def _records():
    for query in (
        "before=-1",
        "before=x",
        "before=" + "9" * 40,
        "before=18446744073709551615",
        "limit=0",
        "limit=-1",
        "limit=999999999999",
        "limit=x",
        "limit=1.5",
        "model=..",
        "model=%00",
        "model=%ff",
        "model=" + "m" * 5000,
        "model='%20OR%201=1--",
        "before=1&before=2",
        "&&&",
        "=",
        "limit",
        "%",
        "%zz=1",
        "unknown=1",
        "limit=5;model=x",
        "a" * 7000,
        "&".join(["limit=1"] * 1000),
        "model=%27%3B%20DROP%20TABLE%20x%3B--",
    ):
        yield change("GET", f"{CONTROL}/audit?{query}")


def _index():
    for text in WRONG.values():
        yield change("POST", f"{REPOSITORY}/index", text)
        yield change("POST", f"{REPOSITORY}/index", f'{{"ready":{text}}}')
    yield change("POST", f"{REPOSITORY}/index", '{"ready":true,"ready":false}')
    yield change("POST", f"{REPOSITORY}/index", "[" * 100_000)


# Where a file that a client sends must not go.
ELSEWHERE = [
    "../x",
    "../../../../../../tmp/weir_hostile_x",
    "/tmp/weir_hostile_x",
    "/etc/passwd",
    "..",
    ".",
    "",
    "/",
    "1/../../x",
    "1/..",
    "1/./../../x",
    "1\\..\\..\\x",
    "..\\x",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "..%2fx",
    "..%252fx",
    "\u2025/x",
    "\uff0e\uff0e/x",
    "1/\0",
    "a\0b",
    "1/model.onnx/x",
    "1//model.onnx/",
    "./1/model.onnx",
    "~/x",
    "$HOME/x",
    "file:///etc/passwd",
    "C:\\x",
    "CON",
    "1/" + "d/" * 3000 + "x",
    "n" * 5000,
    "1/" + "n" * 300,
    "\ud800",
    "a\nb",
    "config.pbtxt",
    ".hidden",
    "1/.hidden",
    "-",
    "*",
    "1/model.onnx ",
    " 1/model.onnx",
]


def sent(model, parameters, what="load"):
    return change("POST", f"{REPOSITORY}/models/{model}/{what}", json.dumps({"parameters": parameters}))


def _loads():
    good = base64.b64encode(identity()).decode()
    for text in WRONG.values():
        yield change("POST", f"{REPOSITORY}/models/hostile/load", text if text not in ("{}", "", "null") else "[]")
        yield change("POST", f"{REPOSITORY}/models/hostile/load", f'{{"parameters":{text}}}')
        yield change("POST", f"{REPOSITORY}/models/hostile/load", f'{{"parameters":{{"config":{text}}}}}')
        yield change("POST", f"{REPOSITORY}/models/hostile/load", f'{{"parameters":{{"file:1/model.onnx":{text}}}}}')
        yield change("POST", f"{REPOSITORY}/models/hostile/load", f'{{"parameters":{{"own":{text}}}}}')
        yield change("POST", f"{REPOSITORY}/models/hostile/unload", f'{{"parameters":{{"unload_dependents":{text}}}}}')
        # A config without files, for a model that is not there.
        yield sent("hostile", {"config": text})
        yield sent("hostile", {"config": text, "file:1/model.onnx": good[:40]})
    for path in ELSEWHERE:
        yield sent("hostile", {"config": '{"max_batch_size":0}', f"file:{path}": good})
        yield sent("hostile", {"config": '{"max_batch_size":0}', f"file:{path}": good, "file:1/model.onnx": good[:100]})
    for encoded in ("!", "====", "A", "AA=", "AAA A", "A" * 100_001, "\u00e9", "-_-_", "\n"):
        yield sent("hostile", {"config": "{}", "file:1/model.onnx": encoded})
    yield sent("hostile", {"config": "{}", **{f"file:1/f{i}": "" for i in range(5000)}})
    yield sent(
        "hostile", {f"file:{i}/model.onnx": "" for i in range(1, 2000)} | {"config": '{"version_policy":{"all":{}}}'}
    )
    yield sent("hostile", {"file:1/model.onnx": good})
    cut = base64.b64encode(identity()[:50]).decode()
    outside = base64.b64encode(
        one_to_one([node("Add", ["x", "w"], ["y"])], [external("w", FLOAT, [4], "../../../../etc/passwd", 0, 16)])
    ).decode()
    yield sent("hostile", {"config": "{}", "file:1/model.onnx": cut})
    yield sent("hostile", {"config": "{}", "file:1/model.onnx": outside, "file:../../etc/passwd": ""})
    yield sent("hostile", {"config": "{}", "file:1/model.onnx": outside})
    for config in (
        {"name": "../x"},
        {"default_model_filename": "../../../etc/passwd"},
        {"max_batch_size": 10**30},
        {"max_batch_size": "9" * 5000},
        {"instance_group": [{"count": 10**9}]},
        {"instance_group": [{"count": 1}] * 50_000},
        {"backend": "python"},
        {"platform": "../.."},
        {"input": [{"name": "x" * 100_000}]},
        {"output": [{"name": "y", "label_filename": "/etc/passwd"}]},
        {"version_policy": {"specific": {"versions": list(range(50_000))}}},
        {"parameters": {f"k{i}": {"string_value": "v"} for i in range(20_000)}},
        {"unknown": 1},
        {"name": None},
        {"version_policy": {"latest": {"num_versions": -1}}},
        {"dynamic_batching": {"max_queue_delay_microseconds": "99999999999999999999999"}},
        {
            "model_warmup": [
                {
                    "name": "w",
                    "count": 4294967295,
                    "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [4], "input_data_file": "../../../../dev/zero"}},
                }
            ]
        },
    ):
        yield sent("hostile", {"config": json.dumps(config), "file:1/model.onnx": cut})
        yield sent("digits_of_others", {"config": json.dumps(config)})
    yield sent("hostile", {"config": "[" * 200_000})
    yield sent("hostile", {"config": '{"a":' * 100_000})
    yield sent("hostile", {"config": GOOD_CONFIG})
    for name in (
        "..",
        "%2e%2e",
        "%2e%2e%2fetc",
        "a%2fb",
        "%00",
        "%ff",
        "a" * 129,
        ".train",
        "hostile%0a",
        "",
        "*",
        "%2a",
        "-",
        "nosuch",
        "index",
    ):
        for what in ("load", "unload"):
            yield sent(name, {}, what)
            yield sent(
                name,
                {"config": "{}", "file:1/model.onnx": cut} if what == "load" else {"unload_dependents": True},
                what,
            )


def _control_calls():
    names = [
        "ListModels",
        "GetModel",
        "GetRoute",
        "SetRoute",
        "ClearRoute",
        "Rollback",
        "SetLabel",
        "DeleteLabel",
        "LoadVersion",
        "UnloadVersion",
        "StartRollout",
        "ListRollouts",
        "GetRollout",
        "PauseRollout",
        "ResumeRollout",
        "PromoteRollout",
        "AbortRollout",
        "GetShadows",
        "RecordFeedback",
        "ListExperiments",
        "ListAudit",
    ]
    bodies = {
        "empty": b"",
        "garbage": b"\xff" * 50,
        "victim": blob(1, "digits"),
        "unknown": blob(1, "nosuch"),
        "traversal": blob(1, "../../etc"),
        "NUL": blob(1, "a\0"),
        "not UTF-8": blob(1, b"\xff"),
        "long": blob(1, "a" * 50_000),
        "numbers": blob(1, "digits") + num(2, -1) + num(3, -1),
        "texts": blob(1, "digits") + blob(2, "x\n") + blob(3, "y\0"),
        "nested": blob(1, "digits") + blob(2, blob(1, num(1, 999_999) + f64(2, float("nan")))),
        "infinite": blob(1, "digits") + blob(2, blob(1, num(1, 999_999) + f64(2, float("inf")))),
        "many": blob(1, "digits") + blob(2, each(1, [num(1, 900_000 + i) + f64(2, 1.0) for i in range(4000)])),
        "steps": blob(1, "digits") + num(2, 999_999) + f64(3, float("nan")) + f64(7, -1.0),
        "deep": blob(1, "digits") + blob(2, b"\x0a" * 1000),
        "cut": b"\x0a\x20abc",
        "feedback": blob(1, "digits") + blob(2, "") + f64(3, float("nan")),
        "audit": num(1, -1) + num(2, -1) + blob(3, "\0"),
    }
    for name in names:
        for kind, data in bodies.items():
            yield http2.Case(
                f"control {name} of {kind}",
                grpc_frames.call(grpc_frames.message(data), f"/weir.control.v1.Control/{name}"),
            )


def _repository_calls():
    def load(name, model, *parameters, call="RepositoryModelLoad", more=b""):
        entries = each(3, [blob(1, key) + blob(2, value) for key, value in parameters])
        data = grpc_frames.message(blob(2, model) + entries + more)
        return http2.Case(f"{call} {name}", grpc_frames.call(data, f"{grpc_frames.SERVICE}{call}"))

    cut = blob(4, identity()[:60])
    for path in ELSEWHERE:
        yield load(f"file {path[:30]!r}", "hostile", ("config", blob(3, "{}")), (f"file:{path}", blob(4, identity())))
    values = {
        "bool": num(1, 1),
        "int": num(2, -1),
        "text": blob(3, "x"),
        "bytes": blob(4, b"\xff"),
        "nothing": b"",
        "not UTF-8": blob(3, b"\xff"),
    }
    for key in ("config", "file:1/model.onnx", "file:", "own", "", "\0", "unload_dependents"):
        for kind, value in values.items():
            yield load(f"{key!r} {kind}", "hostile", (key, value))
            yield load(f"{key!r} {kind}", "hostile", (key, value), call="RepositoryModelUnload")
    for model in ("", "..", "../etc", "a/b", "\0", "a" * 5000, ".train", "nosuch", "*", b"\xff"):
        yield load(f"model {model[:9]!r}", model)
        yield load(f"model {model[:9]!r}, with a file", model, ("config", blob(3, "{}")), ("file:1/model.onnx", cut))
        yield load(f"model {model[:9]!r}", model, call="RepositoryModelUnload")
    yield load("of another repository", "digits", more=blob(1, "other"))
    yield load(
        "with 3 000 files", "hostile", ("config", blob(3, "{}")), *[(f"file:1/f{i}", blob(4, b"")) for i in range(1000)]
    )
    for text in ("[" * 20_000, '{"a":' * 8_000, "", "\0", "null", '{"name":"../x"}', "9" * 5000, GOOD_CONFIG):
        yield load(f"config {text[:12]!r}", "hostile", ("config", blob(3, text)), ("file:1/model.onnx", cut))
    index = f"{grpc_frames.SERVICE}RepositoryIndex"
    for name, data in {
        "of another": blob(1, "other"),
        "ready": num(2, 1),
        "wrong types": num(1, 1) + blob(2, "x"),
        "garbage": b"\xff" * 30,
    }.items():
        yield http2.Case(f"RepositoryIndex {name}", grpc_frames.call(grpc_frames.message(data), index))

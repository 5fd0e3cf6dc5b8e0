"""Serves the ONNX project's conformance models and compares every answer with ONNX Runtime run directly.

A model that ONNX Runtime loads, and whose inputs and outputs are plain tensors of the protocol's types, must be READY,
and each of its data sets must give the same bits over HTTP JSON, HTTP binary and gRPC. Every other model must be
UNAVAILABLE and say why.

Run it as a script for the table (`--direct` for ONNX Runtime's half alone, `--only WORD` for some models), or under
pytest. What it needs of ONNX Runtime is kept in the temporary folder, so that a second run costs the serving alone.
"""

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests, load_node_model_tests

import wire
from reference import FLOATS, Model, assert_same, datatype, datatype_of_onnx, finite
from server import NotStarted, StartedWeir
from wire_grpc import WAYS

# The wheel carries the data of these kinds as files; `node` it makes when asked. `real` needs downloads, and `light`
# has the same graphs with constant weights and no inputs.
KINDS_IN_FILES = ("simple", "pytorch-converted", "pytorch-operator")
# Their values differ from run to run by definition; only shape and type are compared.
RANDOM_OPERATORS = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip
# Dropout in training gives the same twice and then not; what differs in none of these runs is compared bit for bit.
RUNS_TO_SEE_CHANCE = 6
CASES_PER_CHILD = 100
CHILD_SECONDS_MAX = 600
# Raised whenever what the cache holds changes its form or meaning.
CACHE_EDITION = 2
# One server holds this many sessions at a time.
MODELS_PER_SERVER = 300


def cache():
    """Where cases and ONNX Runtime's answers are kept, by the versions that made them."""
    versions = f"{CACHE_EDITION}-onnx-{onnx.__version__}-onnxruntime-{onnxruntime.__version__}"
    return Path(tempfile.gettempdir()) / f"weir-conformance-{versions}"


# ── The cases ────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_cases(root):
    """Lays out every case as `root/<name>/{model.onnx, case.json, set_<i>/{input,output}_<j>.pb}`."""
    building = root.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    # Some cases overflow and divide by zero on purpose while they are made.
    with np.errstate(all="ignore"):
        node_cases = load_node_model_tests()
    for case in node_cases:
        folder = building / case.name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString())
        for i, (inputs, outputs) in enumerate(case.data_sets):
            for side, values in (("input", inputs), ("output", outputs)):
                write_tensors(folder / f"set_{i}", side, values)
        write_about(folder, case)
    for kind in KINDS_IN_FILES:
        for case in load_model_tests(kind=kind):
            folder = building / case.name
            shutil.copytree(case.model_dir, folder)
            for i, data_set in enumerate(sorted(folder.glob("test_data_set_*"))):
                data_set.rename(folder / f"set_{i}")
            write_about(folder, case)
    building.rename(root)


def write_tensors(folder, side, values):
    """Writes what is a tensor. A case with anything else is not served, so its data is not needed."""
    folder.mkdir(exist_ok=True)
    for j, value in enumerate(values):
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            value = numpy_helper.from_array(array.astype(object) if array.dtype.kind in "US" else array)
        if isinstance(value, onnx.TensorProto):
            (folder / f"{side}_{j}.pb").write_bytes(value.SerializeToString())


def write_about(folder, case):
    about = {"kind": case.kind, "rtol": case.rtol, "atol": case.atol}
    (folder / "about.json").write_text(json.dumps(about))


def read_tensors(folder, side):
    """The tensors of one side in order."""
    paths = sorted(folder.glob(f"{side}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    arrays = (numpy_helper.to_array(onnx.load_tensor(path)) for path in paths)
    return [a.astype(object) if a.dtype.kind in "US" else a for a in arrays]


def data_sets(folder):
    return sorted(folder.glob("set_*"), key=lambda path: int(path.name.split("_")[1]))


# ── ONNX Runtime's half, in child processes, because some models may take the process down ───────────────────────────


def run_directly(root):
    """Writes `direct.json` for every case, and `direct_<j>.pb` for every data set that ran."""
    todo = [f.name for f in sorted(root.iterdir()) if not (f / "direct.json").exists()]
    while todo:
        chunk = todo[:CASES_PER_CHILD]
        command = [sys.executable, __file__, "--child", str(root), *chunk]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS_MAX)
            end = f"exit code {child.returncode}"
            if child.returncode == 1:
                raise RuntimeError(child.stderr)
        except subprocess.TimeoutExpired:
            end = f"silent for {CHILD_SECONDS_MAX} s"
        left = [name for name in chunk if not (root / name / "direct.json").exists()]
        if left:
            write_direct(root / left[0], status="crashed", reason=end)
        todo = left[1:] + todo[CASES_PER_CHILD:]


def write_direct(folder, **facts):
    (folder / "direct.json").write_text(json.dumps(facts))


def run_child(root, names):
    for name in names:
        write_direct(root / name, **direct_facts(root / name))


def direct_facts(folder):
    """What ONNX Runtime makes of one case: `plain`, `not plain` or `not loaded`, and how each data set ran."""
    try:
        model = Model(folder / "model.onnx")
    except Exception as error:
        return {"status": "not loaded", "reason": first_line(error)}
    ports = [*model.inputs, *model.outputs]
    strange = sorted({port.type for port in ports if datatype_of_onnx(port.type) is None})
    if strange:
        return {"status": "not plain", "reason": ", ".join(strange)}
    random = bool(operators(folder) & RANDOM_OPERATORS)
    sets = []
    for data_set in data_sets(folder):
        names = [port.name for port in model.inputs]
        feed = dict(zip(names, read_tensors(data_set, "input")))
        try:
            outputs, *more = (model.run(feed) for _ in range(RUNS_TO_SEE_CHANCE))
        except Exception as error:
            sets.append({"ran": False, "reason": first_line(error)})
            continue
        for j, array in enumerate(outputs.values()):
            (data_set / f"direct_{j}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
        random = random or not all(same(outputs[name], again[name]) for again in more for name in outputs)
        sets.append({"ran": True, "as expected": as_expected(folder, data_set, outputs)})
    return {
        "status": "plain",
        "inputs": [port.name for port in model.inputs],
        "outputs": [port.name for port in model.outputs],
        "random": random,
        "sets": sets,
    }


def operators(folder):
    """Every operator in the model, in its functions and in its subgraphs."""

    def walk(nodes):
        for node in nodes:
            yield node.op_type
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    yield from walk(graph.node)

    model = onnx.load(folder / "model.onnx", load_external_data=False)
    found = set(walk(model.graph.node))
    return found.union(*(walk(function.node) for function in model.functions))


def same(a, b):
    try:
        assert_same(a, b)
    except AssertionError:
        return False
    return True


def as_expected(folder, data_set, outputs):
    """Whether ONNX Runtime's own answer is the one that the ONNX project expects."""
    about = json.loads((folder / "about.json").read_text())
    expected = read_tensors(data_set, "output")
    if len(expected) != len(outputs):
        return False
    for got, wanted in zip(outputs.values(), expected):
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            return False
        if got.dtype == object:
            close = same(got, wanted)
        elif datatype(got) in FLOATS:
            a, b = got.astype(np.float64), wanted.astype(np.float64)
            close = np.allclose(a, b, about["rtol"], about["atol"], equal_nan=True)
        else:
            close = np.array_equal(got, wanted)
        if not close:
            return False
    return True


def first_line(error):
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


# ── Weir's half ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Findings:
    """What was counted, and every failure by name."""

    def __init__(self):
        self.counts = collections.Counter()
        self.failures = []

    def fail(self, name, reason):
        self.failures.append((name, reason))

    def table(self):
        width = max(map(len, self.counts), default=0)
        lines = [f"{what:{width}}  {count:6}" for what, count in sorted(self.counts.items())]
        lines += [f"{'failures':{width}}  {len(self.failures):6}"]
        return "\n".join(lines + [f"FAILED {name}: {reason}" for name, reason in self.failures])


def serve_all(root, names, findings):
    """Serves the named cases, some hundred at a time, and records what was found."""
    for at in range(0, len(names), MODELS_PER_SERVER):
        serve(root, names[at : at + MODELS_PER_SERVER], findings)


def serve(root, names, findings):
    """Serves these cases from one server. If it does not come up, halves find the case that stops it."""
    with tempfile.TemporaryDirectory(prefix="weir-conformance-") as repository:
        for name in names:
            lay_out(root / name, Path(repository) / name / "1")
        try:
            weir = StartedWeir(repository)
        except NotStarted as silence:
            if len(names) == 1:
                findings.fail(names[0], f"no server starts with this model: {silence}")
                return
            middle = len(names) // 2
            serve(root, names[:middle], findings)
            serve(root, names[middle:], findings)
            return
        with weir:
            left = ask_all(root, names, weir, findings)
    if left:
        serve(root, left, findings)


def lay_out(case, version):
    """The model and its external files, as a Triton repository has them."""
    version.mkdir(parents=True)
    for path in case.iterdir():
        if path.is_file() and path.suffix != ".json":
            shutil.copyfile(path, version / path.name)


def ask_all(root, names, weir, findings):
    """Checks each case against the server; gives those left unasked if one case ends the server."""
    with wire.Http(weir.http) as http:
        index = {entry["name"]: entry for entry in http.post("/v2/repository/index").json()}
    ways = {name: way(weir) for name, way in WAYS.items()}
    try:
        for i, name in enumerate(names):
            facts = json.loads((root / name / "direct.json").read_text())
            check_case(root / name, facts, index.get(name), ways, findings)
            if not weir.running:
                findings.fail(name, f"the server ended: {weir.last_words}")
                return names[i + 1 :]
    finally:
        for way in ways.values():
            way.close()
    return []


def check_case(folder, facts, entry, ways, findings):
    name, status = folder.name, facts["status"]
    if entry is None:
        findings.fail(name, "not in the repository index")
        return
    state, reason = entry.get("state"), entry.get("reason")
    findings.counts[f"model: {status} directly, {state} in Weir"] += 1
    if status != "plain":
        if state != "UNAVAILABLE" or not reason:
            findings.fail(name, f"{status} ({facts['reason']}), but {state} for the reason {reason!r}")
        return
    if state != "READY":
        findings.fail(name, f"ONNX Runtime runs it, but {state}: {reason}")
        return
    for data_set, ran in zip(data_sets(folder), facts["sets"]):
        feed = dict(zip(facts["inputs"], read_tensors(data_set, "input")))
        direct = dict(zip(facts["outputs"], read_tensors(data_set, "direct")))
        for way_name, way in ways.items():
            outcome = check_set(feed, direct, ran, facts["random"], name, way_name, way, findings)
            findings.counts[f"data set: {way_name}, {outcome}"] += 1


def check_set(feed, direct, ran, random, model, way_name, way, findings):
    """Serves one data set in one way; says in a word or two how it went."""
    where = f"{model} over {way_name}"
    if way_name == "json" and not all(map(speakable, feed.values())):
        return "not expressible"
    try:
        outputs = way.infer(model, feed)
    except wire.Refused as refusal:
        if not ran["ran"] and refusal.message:
            return "refused as directly"
        if way_name == "json" and not all(map(speakable, direct.values())):
            return "not expressible"
        findings.fail(where, str(refusal))
        return "refused"
    except Exception as error:
        findings.fail(where, first_line(error))
        return "broken"
    if not ran["ran"]:
        findings.fail(where, f"answered what ONNX Runtime refuses: {ran['reason']}")
        return "answered"
    try:
        assert outputs.keys() == direct.keys(), f"outputs {sorted(outputs)}, not {sorted(direct)}"
        for name, array in direct.items():
            if random:
                got = outputs[name]
                assert (got.dtype, got.shape) == (array.dtype, array.shape), f"{got.dtype}{got.shape}"
            elif way_name == "json" and not finite(array):
                # JSON has one null for NaN and both infinities.
                assert_same(outputs[name][np.isfinite(array)], array[np.isfinite(array)], name)
            else:
                assert_same(outputs[name], array, name)
    except AssertionError as difference:
        findings.fail(where, str(difference))
        return "different"
    return "of the same shape, random" if random else "equal"


def speakable(array):
    """Whether JSON can say it: finite numbers and UTF-8 text."""
    if array.dtype != object:
        return finite(array)
    try:
        wire.json_of(array)
    except UnicodeDecodeError:
        return False
    return True


# ── Entries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def prepared():
    """The folder of cases with ONNX Runtime's half done."""
    root = cache()
    if not root.exists():
        write_cases(root)
    run_directly(root)
    return root


def count_direct(root):
    """What ONNX Runtime's half found, as counts and names."""
    findings = Findings()
    for folder in sorted(root.iterdir()):
        facts = json.loads((folder / "direct.json").read_text())
        findings.counts["model: all"] += 1
        findings.counts[f"model: {facts['status']}"] += 1
        if facts["status"] == "crashed":
            findings.fail(folder.name, f"crashed: {facts['reason']}")
        if facts["status"] == "not plain":
            for onnx_type in facts["reason"].split(", "):
                findings.counts[f"model: not plain, with {onnx_type.split('(')[0]}(…)"] += 1
        if facts["status"] == "plain":
            findings.counts["model: plain, random"] += facts["random"]
            for ran in facts["sets"]:
                findings.counts["data set: all"] += 1
                findings.counts["data set: ran"] += ran["ran"]
                findings.counts["data set: ran, not as the ONNX project expects"] += not ran.get("as expected", True)
                if not ran["ran"]:
                    findings.fail(folder.name, f"did not run: {ran['reason']}")
    return findings


def servable(root):
    """All cases but those that crash ONNX Runtime itself."""
    names = (folder.name for folder in sorted(root.iterdir()))
    return [n for n in names if json.loads((root / n / "direct.json").read_text())["status"] != "crashed"]


@pytest.fixture(scope="module")
def onnx_findings():
    root, findings = prepared(), Findings()
    serve_all(root, servable(root), findings)
    print(findings.table())
    return findings


def test_every_onnx_conformance_model_is_served_as_onnx_runtime_runs_it_or_refused_with_a_reason(onnx_findings):
    assert sum(n for what, n in onnx_findings.counts.items() if what.startswith("model:")) > 2000
    assert not onnx_findings.failures, onnx_findings.table()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direct", action="store_true", help="do ONNX Runtime's half alone")
    parser.add_argument("--only", metavar="WORD", default="", help="serve the models with this in their name")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(Path(arguments.child[0]), arguments.child[1:])
        # Past destructors: a model that fails only when it is let go of has still answered.
        os._exit(0)
    root = prepared()
    print(count_direct(root).table(), flush=True)
    if arguments.direct:
        return 0
    findings = Findings()
    serve_all(root, [name for name in servable(root) if arguments.only in name], findings)
    print(findings.table())
    return 1 if findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())

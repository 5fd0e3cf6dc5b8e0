"""Writes ONNX files whose bytes depend only on the graph, and runs them.

Always: opset 17, IR version 8, first dimension named "N", producer "weir-train", no version, date or path in the file.
Not here: what any graph computes.
"""

import os

# One thread: sums are added in the same order on every run, so the trained weights are the same bytes.
# Set before numpy is imported, because BLAS reads it once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

OPSET = 17
IR_VERSION = 8
# Every bundled file stays below this, so that the whole repository can live in git.
FILE_BYTES_MAX = 300_000


def tensor(name, element_type, shape):
    """A graph input or output; a string in `shape` is a dynamic dimension, `[]` a scalar."""
    return helper.make_tensor_value_info(name, element_type, shape)


def constant(name, values):
    """An initializer."""
    return numpy_helper.from_array(np.asarray(values), name)


def graph(name, nodes, inputs, outputs, initializers=(), opset=OPSET):
    """A model made of `nodes`, given in the order they run."""
    made = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def bytes_of(model):
    """The model's bytes, without anything that changes from run to run."""
    model.ir_version = IR_VERSION
    model.producer_name = "weir-train"
    model.ClearField("producer_version")
    model.ClearField("domain")
    model.ClearField("model_version")
    model.ClearField("doc_string")
    model.graph.ClearField("doc_string")
    # skl2onnx lists the opsets in the order of a Python set, which changes with the interpreter's hash seed.
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return model.SerializeToString(deterministic=True)


def save(model, path):
    """Checks the model and writes it to `path`, making the folders."""
    data = bytes_of(model)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    assert len(data) < FILE_BYTES_MAX, f"{path} has {len(data)} bytes, more than {FILE_BYTES_MAX}"
    write(path, data)


def write(path, data):
    """Writes text or bytes to `path`, making the folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def session(path):
    """Opens a model on one CPU thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def signature(path):
    """The model's inputs and outputs, one per line, as ONNX Runtime reports them."""
    opened = session(path)
    lines = [f"    in  {i.name}: {i.type} {i.shape}" for i in opened.get_inputs()]
    lines += [f"    opt {i.name}: {i.type} {i.shape}" for i in opened.get_overridable_initializers()]
    lines += [f"    out {o.name}: {o.type} {o.shape}" for o in opened.get_outputs()]
    return "\n".join(lines)


def run(path, **inputs):
    """Runs the model once; answers by output name."""
    opened = session(path)
    names = [o.name for o in opened.get_outputs()]
    return dict(zip(names, opened.run(names, inputs)))


__all__ = [
    "OPSET", "TensorProto", "bytes_of", "constant", "graph", "helper", "np", "run", "save", "session", "signature",
    "tensor", "write",
]

"""Rebuilds the model repositories of the tests: `python models/.train/fixtures.py`.

Always: every model of tests/models loads and does what its README line says, checked here by ONNX Runtime.
Always: so does every file of tests/versions, which are no repository: tests put them together as versions of one model.
Always: every model of tests/models_broken but `ok` has one fault, named by its folder.
Not here: the bundled models, see train.py.
"""

import ctypes
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True  # this folder stays free of build output

from onnx_file import (  # noqa: E402
    OPSET, TensorProto, bytes_of, constant, graph, helper, np, run, save, session, signature, tensor, write,
)

import onnxruntime as ort  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from skl2onnx import to_onnx  # noqa: E402

TESTS = Path(__file__).resolve().parent.parent.parent / "tests"
GOOD = TESTS / "models"
BROKEN = TESTS / "models_broken"
VERSIONS = TESTS / "versions"

IDENTITY_TYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "bytes": TensorProto.STRING,
}

# About 30 ms on one core of a 2020s server: a step takes 1.2 microseconds.
SLOW_STEPS = 24_000
# 32x32 by 32x32 is below the size from which ONNX Runtime splits a product over threads
# (MLAS_SGEMM_THREAD_COMPLEXITY), so more threads do not make `slow` faster.
SLOW_SIDE = 32


def main():
    build_good()
    check_good()
    build_broken()
    check_broken()
    build_versions()
    check_versions()


# --- tests/models ------------------------------------------------------------------------------------------------


def build_good():
    for name, element_type in IDENTITY_TYPES.items():
        save(identity(element_type, ["N", "M"]), model_file(GOOD, f"identity_{name}"))
    save(identity(TensorProto.FLOAT, []), model_file(GOOD, "scalar_fp32"))

    save(slow(), model_file(GOOD, "slow"))
    write_config(GOOD, "slow", SLOW_CONFIG)

    # Both add up over axis 0, so a row's answer depends on the other rows, though [N,4] looks like a batch.
    save(
        one_to_one(
            "cumsum_batch",
            [helper.make_node("CumSum", ["INPUT0", "axis"], ["OUTPUT0"])],
            ["N", 4],
            [constant("axis", np.int64(0))],
        ),
        model_file(GOOD, "cumsum_batch"),
    )
    save(
        one_to_one(
            "mean_batch",
            [
                helper.make_node("ReduceMean", ["INPUT0"], ["mean"], axes=[0], keepdims=1),
                helper.make_node("Sub", ["INPUT0", "mean"], ["OUTPUT0"]),
            ],
            ["N", 4],
        ),
        model_file(GOOD, "mean_batch"),
    )

    double = [helper.make_node("Add", ["INPUT0", "INPUT0"], ["OUTPUT0"])]
    save(one_to_one("reshape_scalar", double, ["N"]), model_file(GOOD, "reshape_scalar"))
    write_config(GOOD, "reshape_scalar", RESHAPE_CONFIG)

    path = model_file(GOOD, "external_data")
    save_external(path, "weights.bin")
    write(path.parent / "weights.bin", EXTERNAL_WEIGHTS.tobytes())

    # `bias` is an input with a value of its own: ONNX Runtime calls it an overridable initializer.
    save(
        graph(
            "optional_input",
            [helper.make_node("Add", ["INPUT0", "bias"], ["OUTPUT0"])],
            [tensor("INPUT0", TensorProto.FLOAT, ["N", 4]), tensor("bias", TensorProto.FLOAT, [4])],
            [tensor("OUTPUT0", TensorProto.FLOAT, ["N", 4])],
            [constant("bias", np.array([1, 2, 3, 4], np.float32))],
        ),
        model_file(GOOD, "optional_input"),
    )
    write_config(GOOD, "optional_input", OPTIONAL_CONFIG)

    # An output that is the input itself shares the caller's memory in ONNX Runtime.
    save(
        graph(
            "echo_input",
            [helper.make_node("Neg", ["INPUT0"], ["OUTPUT0"])],
            [tensor("INPUT0", TensorProto.FLOAT, ["N", "M"])],
            [tensor("OUTPUT0", TensorProto.FLOAT, ["N", "M"]), tensor("INPUT0", TensorProto.FLOAT, ["N", "M"])],
        ),
        model_file(GOOD, "echo_input"),
    )

    save(text(), model_file(GOOD, "text"))
    write_config(GOOD, "text", TEXT_CONFIG)


def identity(element_type, shape):
    """INPUT0 to OUTPUT0, unchanged."""
    node = helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])
    return one_to_one("identity", [node], shape, element_type=element_type)


def one_to_one(name, nodes, shape, initializers=(), element_type=TensorProto.FLOAT):
    """A graph from INPUT0 to OUTPUT0, both of the same type and shape."""
    return graph(
        name,
        nodes,
        [tensor("INPUT0", element_type, shape)],
        [tensor("OUTPUT0", element_type, shape)],
        initializers,
    )


def slow():
    """OUTPUT0 = 1 * INPUT0 + 0 * burnt, where `burnt` costs the same for one row as for many.

    Every element of the matrix is 1/side; its square is itself, exactly, so nothing overflows however long it runs.
    """
    matrix = [SLOW_SIDE, SLOW_SIDE]
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_next"]),
            helper.make_node("MatMul", ["matrix", "matrix"], ["matrix_next"]),
        ],
        "step",
        [
            tensor("iteration", TensorProto.INT64, []),
            tensor("go_on", TensorProto.BOOL, []),
            tensor("matrix", TensorProto.FLOAT, matrix),
        ],
        [tensor("go_on_next", TensorProto.BOOL, []), tensor("matrix_next", TensorProto.FLOAT, matrix)],
    )
    element = helper.make_tensor("element", TensorProto.FLOAT, [1], [1 / SLOW_SIDE])
    nodes = [
        helper.make_node("ConstantOfShape", ["matrix_shape"], ["matrix_first"], value=element),
        helper.make_node("Loop", ["steps", "", "matrix_first"], ["matrix_last"], body=step),
        helper.make_node("ReduceMean", ["matrix_last"], ["burnt"], keepdims=0),
        helper.make_node("Mul", ["burnt", "zero"], ["nothing"]),
        helper.make_node("Mul", ["INPUT0", "one"], ["same"]),
        helper.make_node("Add", ["same", "nothing"], ["OUTPUT0"]),
    ]
    initializers = [
        constant("matrix_shape", np.array(matrix, np.int64)),
        constant("steps", np.int64(SLOW_STEPS)),
        constant("zero", np.float32(0)),
        constant("one", np.float32(1)),
    ]
    return one_to_one("slow", nodes, ["N", 4], initializers)


# Words that `text` knows, and numbers that stand for each place.
TEXT_WORDS, TEXT_WIDTH = 64, 8


def text():
    """One layer of attention, as an encoder of texts has it: an answer for each word, and one for the whole text.

    The mask counts the words for their positions, keeps padding out of the attention, and out of the mean.
    """
    random = np.random.default_rng(5)
    words = random.normal(size=(TEXT_WORDS, TEXT_WIDTH)).astype(np.float32)
    segments = random.normal(size=(2, TEXT_WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask_of_rows"]),
        helper.make_node("Unsqueeze", ["mask", "one"], ["mask_of_columns"]),
        helper.make_node("Gather", ["words", "input_ids"], ["meant"]),
        helper.make_node("Gather", ["segments", "token_type_ids"], ["segment"]),
        helper.make_node("CumSum", ["mask_of_rows", "axis"], ["position"]),
        helper.make_node("Mul", ["position", "tenth"], ["placed"]),
        helper.make_node("Sum", ["meant", "segment", "placed"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["embedded", "keys"], ["likeness"]),
        helper.make_node("Sub", ["mask_of_columns", "unit"], ["left_out"]),
        helper.make_node("Mul", ["left_out", "far"], ["penalty"]),
        helper.make_node("Add", ["likeness", "penalty"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["attention"], axis=2),
        helper.make_node("MatMul", ["attention", "embedded"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "mask_of_rows"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["pooled"]),
    ]
    inputs = [tensor(name, TensorProto.INT64, ["N", "length"]) for name in TEXT_INPUTS]
    outputs = [
        tensor("hidden", TensorProto.FLOAT, ["N", "length", TEXT_WIDTH]),
        tensor("pooled", TensorProto.FLOAT, ["N", TEXT_WIDTH]),
    ]
    constants = [
        constant("words", words),
        constant("segments", segments),
        constant("last", np.array([2], np.int64)),
        constant("one", np.array([1], np.int64)),
        constant("axis", np.int64(1)),
        constant("tenth", np.float32(0.1)),
        constant("unit", np.float32(1)),
        constant("far", np.float32(1e4)),
    ]
    return graph("text", nodes, inputs, outputs, constants)


TEXT_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]

EXTERNAL_WEIGHTS = np.arange(16, dtype=np.float32).reshape(4, 4)


def save_external(path, location):
    """INPUT0 times a 4x4 matrix that stands in another file.

    The checker is left out: it looks for that file, and refuses the locations that the broken models need.
    """
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4, 4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(EXTERNAL_WEIGHTS.nbytes))):
        weight.external_data.add(key=key, value=value)
    node = helper.make_node("MatMul", ["INPUT0", "weight"], ["OUTPUT0"])
    write(path, bytes_of(one_to_one("external_data", [node], ["N", 4], [weight])))


def check_good():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)

    for name, element_type in IDENTITY_TYPES.items():
        for shape in ([2, 3], [1, 1], [0, 3], [3, 0]):
            expect_identity(model_file(GOOD, f"identity_{name}"), element_type, shape)
    expect_identity(model_file(GOOD, "scalar_fp32"), TensorProto.FLOAT, [])

    opened = session(model_file(GOOD, "slow"))
    opened.run(None, {"INPUT0": x})
    seconds = []
    for rows in (x, x[:1], np.tile(x, (8, 1))):
        start = time.perf_counter()
        assert np.array_equal(opened.run(None, {"INPUT0": rows})[0], rows)
        seconds.append(time.perf_counter() - start)
    print("slow: ms for 3, 1 and 24 rows:", [round(1000 * s, 1) for s in seconds])
    expect_terminates(opened, x)

    for name in ("cumsum_batch", "mean_batch"):
        together = run(model_file(GOOD, name), INPUT0=x)["OUTPUT0"]
        alone = np.concatenate([run(model_file(GOOD, name), INPUT0=x[i:i + 1])["OUTPUT0"] for i in range(3)])
        assert not np.array_equal(together, alone), f"{name} must depend on the batch"
    assert np.array_equal(run(model_file(GOOD, "cumsum_batch"), INPUT0=x)["OUTPUT0"], x.cumsum(axis=0))
    assert np.array_equal(run(model_file(GOOD, "mean_batch"), INPUT0=x)["OUTPUT0"], x - x.mean(axis=0))

    assert np.array_equal(run(model_file(GOOD, "reshape_scalar"), INPUT0=x[0])["OUTPUT0"], 2 * x[0])
    assert np.array_equal(run(model_file(GOOD, "external_data"), INPUT0=x)["OUTPUT0"], x @ EXTERNAL_WEIGHTS)

    path = model_file(GOOD, "optional_input")
    assert np.array_equal(run(path, INPUT0=x)["OUTPUT0"], x + np.array([1, 2, 3, 4], np.float32))
    assert np.array_equal(run(path, INPUT0=x, bias=np.zeros(4, np.float32))["OUTPUT0"], x)

    echoed = run(model_file(GOOD, "echo_input"), INPUT0=x)
    assert np.array_equal(echoed["OUTPUT0"], -x) and np.array_equal(echoed["INPUT0"], x)

    ids = np.array([[5, 9, 33, 0, 0], [7, 7, 2, 61, 13]])
    segments = np.array([[0, 0, 1, 0, 0], [0, 1, 1, 1, 1]])
    both = run(model_file(GOOD, "text"), **dict(zip(TEXT_INPUTS, [ids, (ids > 0).astype(np.int64), segments])))
    first = [ids[:1, :3], np.ones((1, 3), np.int64), segments[:1, :3]]
    alone = run(model_file(GOOD, "text"), **dict(zip(TEXT_INPUTS, first)))
    assert np.allclose(both["hidden"][:1, :3], alone["hidden"], atol=1e-5), "padding must not change answers"
    assert np.allclose(both["pooled"][:1], alone["pooled"], atol=1e-5), "padding must not change answers"

    for path in sorted(GOOD.glob("*/*/model.onnx")):
        print(f"{path.relative_to(TESTS)}: {path.stat().st_size} bytes\n{signature(path)}")


def expect_terminates(opened, rows):
    """A run that is told to terminate must fail, not finish."""
    options = ort.RunOptions()
    timer = threading.Timer(0.005, lambda: setattr(options, "terminate", True))
    timer.start()
    try:
        opened.run(None, {"INPUT0": rows}, options)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has no type of its own for this
        assert "terminate" in str(error), error
    else:
        raise AssertionError("slow must stop when told to terminate")
    finally:
        timer.join()


def expect_identity(path, element_type, shape):
    """The model must answer with the bits it was asked with; they are read by address, as numpy has no BF16."""
    count = int(np.prod(shape))
    if element_type == TensorProto.STRING:
        texts = np.array(["漢字", "", "a\nb"] * count, object)[:count].reshape(shape)
        assert np.array_equal(run(path, INPUT0=texts)["OUTPUT0"], texts)
        return
    # BF16 goes in as the same bits in a 16-bit integer.
    is_bf16 = element_type == TensorProto.BFLOAT16
    dtype = np.dtype(np.uint16) if is_bf16 else helper.tensor_dtype_to_np_dtype(element_type)
    values = np.arange(count).reshape(shape).astype(dtype)
    given = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(values, element_type)
    answer = session(path).run_with_ort_values(["OUTPUT0"], {"INPUT0": given})[0]
    assert answer.element_type() == element_type and answer.shape() == shape
    assert ctypes.string_at(answer.data_ptr(), values.nbytes) == values.tobytes()


# --- tests/models_broken -----------------------------------------------------------------------------------------


def build_broken():
    good = bytes_of(identity(TensorProto.FLOAT, ["N", 4]))
    write(model_file(BROKEN, "ok"), good)

    write(model_file(BROKEN, "truncated"), good[:len(good) // 2])
    write(model_file(BROKEN, "not_onnx"), "This is a text file, not a model.\n")

    measured = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    classifier = LogisticRegression().fit(measured, [0, 0, 1, 1])
    opsets = {"": OPSET, "ai.onnx.ml": 3}
    write(model_file(BROKEN, "zipmap"), bytes_of(to_onnx(classifier, measured, target_opset=opsets, name="zipmap")))

    sequence = helper.make_tensor_sequence_value_info("OUTPUT0", TensorProto.FLOAT, ["N", 4])
    node = helper.make_node("SequenceConstruct", ["INPUT0", "INPUT0"], ["OUTPUT0"])
    inputs = [tensor("INPUT0", TensorProto.FLOAT, ["N", 4])]
    save(graph("sequence_output", [node], inputs, [sequence]), model_file(BROKEN, "sequence_output"))

    # Both files exist and are long enough, so that only a check of the location can refuse them.
    save_external(model_file(BROKEN, "escaping_data"), "../../outside.bin")
    write(BROKEN / "outside.bin", EXTERNAL_WEIGHTS.tobytes())
    save_external(model_file(BROKEN, "absolute_data"), "/etc/passwd")

    for name, (inputs, rest) in BROKEN_CONFIGS.items():
        write(model_file(BROKEN, name), good)
        write_config(BROKEN, name, one_to_one_config(name, inputs, rest))

    # Git keeps no empty folders: each of these two needs a file to exist at all.
    write(BROKEN / "ensemble/1/.gitkeep", "")
    write_config(BROKEN, "ensemble", ENSEMBLE_CONFIG)
    write_config(BROKEN, "empty", one_to_one_config("empty", INPUT0, "max_batch_size: 8\n"))


def check_broken():
    for path in sorted(BROKEN.glob("*/*/model.onnx")):
        try:
            answer = "loads: " + " ".join(signature(path).split())
        except Exception as error:  # noqa: BLE001 - what ONNX Runtime raises is what is shown
            answer = f"refused: {str(error).splitlines()[0][:120]}"
        print(f"{path.relative_to(TESTS)}: {path.stat().st_size} bytes, {answer}")


# --- tests/versions ----------------------------------------------------------------------------------------------

# The fourth number of a row from which `fails` cannot answer it.
FAILS_FROM = 1000
# Steps of `burns` that take a millisecond on one core of a 2020s server.
BURNT_STEPS_PER_MS = SLOW_STEPS / 30
# Added to a row's scores, after which the first is the highest of any that a test sends.
FIRST_WINS = np.array([1000, 0, 0, 0], np.float32)


def build_versions():
    for name, nodes, initializers in (
        ("same", [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])], []),
        ("double", [helper.make_node("Add", ["INPUT0", "INPUT0"], ["OUTPUT0"])], []),
        ("fails", FAILS, FAILS_CONSTANTS),
    ):
        save(one_to_one(name, nodes, ["N", 4], initializers), VERSIONS / f"{name}.onnx")
    save(burns(), VERSIONS / "burns.onnx")
    wide = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    save(one_to_one("wide", wide, ["N", 5]), VERSIONS / "wide.onnx")
    save(classes("highest", []), VERSIONS / "highest.onnx")
    save(classes("first", [constant("bias", FIRST_WINS)]), VERSIONS / "first.onnx")


# A table of one entry is asked for its first, or, for rows that shall fail, for its second.
FAILS = [
    helper.make_node("Gather", ["INPUT0", "fourth"], ["told"], axis=1),
    helper.make_node("GreaterOrEqual", ["told", "limit"], ["beyond"]),
    helper.make_node("Cast", ["beyond"], ["place"], to=TensorProto.INT64),
    helper.make_node("Gather", ["table", "place"], ["one"]),
    helper.make_node("Mul", ["INPUT0", "one"], ["OUTPUT0"]),
]
FAILS_CONSTANTS = [
    constant("fourth", np.array([3], np.int64)),
    constant("limit", np.float32(FAILS_FROM)),
    constant("table", np.array([1], np.float32)),
]


def burns():
    """OUTPUT0 = INPUT0, after as many milliseconds as the largest fourth number of a row says."""
    burnt = slow()
    nodes = [
        helper.make_node("Gather", ["INPUT0", "fourth"], ["told"], axis=1),
        helper.make_node("ReduceMax", ["told"], ["most"], keepdims=0),
        helper.make_node("Max", ["most", "zero"], ["milliseconds"]),
        helper.make_node("Mul", ["milliseconds", "per_ms"], ["steps_told"]),
        helper.make_node("Cast", ["steps_told"], ["steps"], to=TensorProto.INT64),
        *burnt.graph.node,
    ]
    kept = [tensor for tensor in burnt.graph.initializer if tensor.name != "steps"]
    fourth = constant("fourth", np.array([3], np.int64))
    return one_to_one("burns", nodes, ["N", 4], [*kept, fourth, constant("per_ms", np.float32(BURNT_STEPS_PER_MS))])


def classes(name, bias):
    """Scores of four classes and the highest one, after adding `bias` if there is one."""
    first = helper.make_node("Add", ["INPUT0", "bias"], ["biased"]) if bias else None
    biased = "biased" if bias else "INPUT0"
    nodes = [
        *([first] if first else []),
        helper.make_node("Softmax", [biased], ["scores"], axis=1),
        helper.make_node("ArgMax", [biased], ["label"], axis=1, keepdims=0),
    ]
    inputs = [tensor("INPUT0", TensorProto.FLOAT, ["N", 4])]
    outputs = [tensor("label", TensorProto.INT64, ["N"]), tensor("scores", TensorProto.FLOAT, ["N", 4])]
    return graph(name, nodes, inputs, outputs, bias)


def check_versions():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name, factor in (("same", 1), ("double", 2), ("fails", 1), ("burns", 1)):
        assert np.array_equal(run(VERSIONS / f"{name}.onnx", INPUT0=x)["OUTPUT0"], factor * x), name
    x[1, 3] = FAILS_FROM
    try:
        run(VERSIONS / "fails.onnx", INPUT0=x)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has no type of its own for this
        assert "out of data bounds" in str(error), error
    else:
        raise AssertionError("a row of `fails` must fail")
    start = time.perf_counter()
    run(VERSIONS / "burns.onnx", INPUT0=np.full((2, 4), 200, np.float32))
    print("burns: ms for 200:", round(1000 * (time.perf_counter() - start)))
    rows = np.array([[0, 1, 0, 0], [0, 0, 0, 9]], np.float32)
    for name, expected in (("highest", [1, 3]), ("first", [0, 0])):
        answer = run(VERSIONS / f"{name}.onnx", INPUT0=rows)
        assert answer["label"].tolist() == expected and answer["scores"].argmax(1).tolist() == expected, name


# --- what both share ---------------------------------------------------------------------------------------------


def model_file(root, name):
    return root / name / "1" / "model.onnx"


def write_config(root, name, text):
    write(root / name / "config.pbtxt", text)


def one_to_one_config(name, inputs, rest):
    """A config for the identity [N,4] with these `inputs`; `rest` are its further keys."""
    return f"""\
name: "{name}"
platform: "onnxruntime_onnx"
{inputs}output [
  {{
    name: "OUTPUT0"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }}
]
{rest}"""


def config_input(name="INPUT0", data_type="TYPE_FP32", dims="4"):
    return f"""\
input [
  {{
    name: "{name}"
    data_type: {data_type}
    dims: [ {dims} ]
  }}
]
"""


INPUT0 = config_input()
BATCH = "max_batch_size: 8\n"

BROKEN_CONFIGS = {
    "unknown_key": (INPUT0, "max_batchsize: 8\n"),
    "wrong_type": (config_input(data_type="TYPE_INT32"), BATCH),
    "wrong_dims": (config_input(dims="5"), BATCH),
    "missing_input": (INPUT0 + config_input(name="INPUT1"), BATCH),
    "gpu": (INPUT0, BATCH + "instance_group [ { count: 1 kind: KIND_GPU gpus: [ 0 ] } ]\n"),
    "sequence_batching": (
        INPUT0,
        BATCH + "sequence_batching {\n  max_sequence_idle_microseconds: 5000000\n  direct { }\n}\n",
    ),
}

ENSEMBLE_CONFIG = """\
name: "ensemble"
platform: "ensemble"
max_batch_size: 8
input [
  {
    name: "INPUT0"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
ensemble_scheduling {
  step [
    {
      model_name: "ok"
      model_version: -1
      input_map { key: "INPUT0" value: "INPUT0" }
      output_map { key: "OUTPUT0" value: "OUTPUT0" }
    }
  ]
}
"""

SLOW_CONFIG = """\
name: "slow"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {
    name: "INPUT0"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 8 ] }
"""

# The client sees [batch, 1]; the file sees [batch].
RESHAPE_CONFIG = """\
name: "reshape_scalar"
platform: "onnxruntime_onnx"
max_batch_size: 4
input [
  {
    name: "INPUT0"
    data_type: TYPE_FP32
    dims: [ 1 ]
    reshape { shape: [ ] }
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_FP32
    dims: [ 1 ]
    reshape { shape: [ ] }
  }
]
"""

# No batching: `bias` has no batch dimension.
OPTIONAL_CONFIG = """\
name: "optional_input"
platform: "onnxruntime_onnx"
max_batch_size: 0
input [
  {
    name: "INPUT0"
    data_type: TYPE_FP32
    dims: [ -1, 4 ]
  },
  {
    name: "bias"
    data_type: TYPE_FP32
    dims: [ 4 ]
    optional: true
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_FP32
    dims: [ -1, 4 ]
  }
]
"""

# Texts of about one length share batches.
TEXT_CONFIG = """\
name: "text"
platform: "onnxruntime_onnx"
max_batch_size: 16
dynamic_batching { }
parameters {
  key: "pad_inputs"
  value { string_value: "input_ids:0,attention_mask:mask,token_type_ids:0" }
}
"""

if __name__ == "__main__":
    main()

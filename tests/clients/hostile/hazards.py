"""Models that load well and are dangerous to run: what they divide by, loop over, or read at comes from the request.

Each is asked with values that break a careless kernel. 200 and 4xx are both right; a crash, a hang or 5xx is not.
"""

from .folders import HostileModel, ask
from .onnx_bytes import (
    BOOL,
    DOUBLE,
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT64,
    Tensor,
    file,
    graph,
    integers,
    node,
    port,
    scalar,
    tensor,
)

I64_MAX, I64_MIN = (1 << 63) - 1, -(1 << 63)
TYPES = {
    INT8: "INT8",
    INT16: "INT16",
    INT32: "INT32",
    INT64: "INT64",
    UINT8: "UINT8",
    UINT64: "UINT64",
    FLOAT: "FP32",
    DOUBLE: "FP64",
    STRING: "BYTES",
    BOOL: "BOOL",
}
BITS = {INT8: 8, INT16: 16, INT32: 32, INT64: 64}
HUGE = 1 << 40


def models():
    yield from _arithmetic()
    yield from _sizes()
    yield from _places()
    yield from _loops()


def hazard(name, nodes, inputs, asks, out=(FLOAT, None), initializers=(), opset=17):
    """`inputs` is (element, shape) by name; `asks` lists the values by name, flat or as (shape, flat)."""
    made = graph(nodes, [port(n, *kind) for n, kind in inputs.items()], [port("y", *out)], initializers)

    def as_ask(values):
        given = {}
        for n, flat in values.items():
            shape, flat = flat if isinstance(flat, tuple) else ([len(flat)] if inputs[n][1] != [] else [], flat)
            given[n] = (TYPES[inputs[n][0]], shape, flat)
        return ask(**given)

    return HostileModel(f"run_{name}", file(made, opset=opset), asks=tuple(map(as_ask, asks)))


def _arithmetic():
    for element, bits in BITS.items():
        least, text = -(1 << bits - 1), TYPES[element].lower()
        for operator in ("Div", "Mod"):
            yield hazard(
                f"{operator.lower()}_{text}",
                [node(operator, ["a", "b"], ["y"])],
                {"a": (element, ["N"]), "b": (element, ["N"])},
                [
                    {"a": [least, 7], "b": [-1, -1]},
                    {"a": [7], "b": [0]},
                    {"a": [least], "b": [0]},
                    {"a": [0], "b": [0]},
                ],
                out=(element, ["N"]),
            )
    yield hazard(
        "mod_uint8",
        [node("Mod", ["a", "b"], ["y"])],
        {"a": (UINT8, ["N"]), "b": (UINT8, ["N"])},
        [{"a": [7], "b": [0]}],
        (UINT8, ["N"]),
    )
    yield hazard(
        "div_uint64",
        [node("Div", ["a", "b"], ["y"])],
        {"a": (UINT64, ["N"]), "b": (UINT64, ["N"])},
        [{"a": [7], "b": [0]}],
        (UINT64, ["N"]),
    )
    constant = [integers("zero", 0)]
    yield hazard(
        "div_by_a_constant_zero",
        [node("Div", ["a", "zero"], ["y"])],
        {"a": (INT64, ["N"])},
        [{"a": [1]}],
        (INT64, ["N"]),
        constant,
    )
    minus = [integers("minus", -1)]
    yield hazard(
        "div_by_a_constant_minus_one",
        [node("Div", ["a", "minus"], ["y"])],
        {"a": (INT64, ["N"])},
        [{"a": [I64_MIN]}, {"a": [1]}],
        (INT64, ["N"]),
        minus,
    )
    yield hazard(
        "mod_by_a_shape",
        [node("Shape", ["a"], ["s"]), node("Mod", ["s", "a"], ["y"])],
        {"a": (INT64, ["N"])},
        [{"a": [0]}],
        (INT64, ["N"]),
    )
    inside = graph([node("Div", ["a", "b"], ["r"])], [], [port("r", INT32, None)])
    true = [tensor("c", BOOL, [], [True])]
    yield hazard(
        "div_in_a_branch",
        [node("If", ["c"], ["y"], then_branch=inside, else_branch=inside)],
        {"a": (INT32, ["N"]), "b": (INT32, ["N"])},
        [{"a": [-(1 << 31)], "b": [-1]}, {"a": [1], "b": [0]}],
        (INT32, ["N"]),
        true,
    )
    yield hazard(
        "pow_integers",
        [node("Pow", ["a", "b"], ["y"])],
        {"a": (INT64, ["N"]), "b": (INT64, ["N"])},
        [{"a": [0, 2, -1], "b": [-1, 1 << 40, I64_MIN]}],
        (INT64, ["N"]),
    )
    yield hazard(
        "abs_and_neg_of_least",
        [node("Neg", ["a"], ["n"]), node("Abs", ["n"], ["y"])],
        {"a": (INT64, ["N"])},
        [{"a": [I64_MIN]}],
        (INT64, ["N"]),
    )
    yield hazard(
        "shift_far",
        [node("BitShift", ["a", "b"], ["y"], direction="LEFT")],
        {"a": (UINT64, ["N"]), "b": (UINT64, ["N"])},
        [{"a": [1, 1], "b": [64, (1 << 64) - 1]}],
        (UINT64, ["N"]),
    )
    for element in (INT8, INT32, INT64, UINT8, BOOL):
        yield hazard(
            f"cast_to_{TYPES[element].lower()}",
            [node("Cast", ["x"], ["y"], to=element)],
            {"x": (FLOAT, ["N"])},
            [{"x": [1e38, -1e38, 3e9, None]}],
            (element, ["N"]),
        )
    yield hazard(
        "scale_zero",
        [node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        {"x": (FLOAT, ["N"]), "s": (FLOAT, []), "z": (UINT8, [])},
        [{"x": [1, 2], "s": [0], "z": [9]}, {"x": [None], "s": [None], "z": [0]}],
        (UINT8, ["N"]),
    )
    yield hazard(
        "multiply_integers_over",
        [node("CumSum", ["a", "axis"], ["s"]), node("Mul", ["s", "s"], ["y"])],
        {"a": (INT64, ["N"]), "axis": (INT64, [])},
        [{"a": [I64_MAX, I64_MAX], "axis": [0]}, {"a": [1], "axis": [9]}, {"a": [1], "axis": [I64_MIN]}],
        (INT64, ["N"]),
    )


# Sizes that no kernel can make, or that no machine has memory for.
SIZES = [[-1], [HUGE], [I64_MAX], [I64_MIN], [0], [1 << 33], []]


def _sizes():
    one = [tensor("one", FLOAT, [1], [1.0])]

    def sized(name, nodes, sizes=SIZES, initializers=one, out=(FLOAT, None), **more):
        return hazard(name, nodes, {"s": (INT64, ["N"])}, [{"s": s} for s in sizes], out, initializers, **more)

    yield sized(
        "constant_of_shape", [node("ConstantOfShape", ["s"], ["y"])], [*SIZES, [HUGE, HUGE], [1 << 16] * 4, [1] * 3000]
    )
    yield sized("expand", [node("Expand", ["one", "s"], ["y"])], [*SIZES, [HUGE, HUGE], [1] * 3000])
    yield sized("tile", [node("Tile", ["one", "s"], ["y"])])
    yield sized(
        "reshape", [node("Reshape", ["one", "s"], ["y"])], [*SIZES, [-1, -1], [-2], [1 << 32, 1 << 32], [I64_MAX, 2]]
    )
    yield sized(
        "reshape_of_nothing",
        [node("Reshape", ["none", "s"], ["y"], allowzero=1)],
        [[0, -1], [0, I64_MAX], [-1]],
        [tensor("none", FLOAT, [0], [])],
    )
    yield sized(
        "pad",
        [node("Pad", ["one", "s"], ["y"])],
        [[HUGE, 0], [-5, -5], [I64_MAX, I64_MAX], [1 << 33, 1 << 33], [1], []],
    )
    yield sized("pad_reflect", [node("Pad", ["one", "s"], ["y"], mode="reflect")], [[HUGE, 0], [9, 9], [-5, 0]])
    yield sized("pad_edge", [node("Pad", ["one", "s"], ["y"], mode="edge")], [[1 << 33, 0], [-5, 9]])
    yield sized(
        "random", [node("ConstantOfShape", ["s"], ["t"]), node("RandomNormalLike", ["t"], ["y"])], [[-1], [1 << 33]]
    )
    image = [tensor("image", FLOAT, [1, 1, 2, 2], [1.0] * 4)]
    for mode in ("nearest", "linear", "cubic"):
        yield sized(
            f"resize_{mode}",
            [node("Resize", ["image", "", "", "s"], ["y"], mode=mode)],
            [[1, 1, -1, 4], [1, 1, 1 << 20, 1 << 20], [1, 1, 0, 0], [1, 1], [I64_MAX] * 4, [HUGE, HUGE, HUGE, HUGE]],
            image,
        )
    yield hazard(
        "resize_by",
        [node("Resize", ["image", "", "k"], ["y"])],
        {"k": (FLOAT, ["N"])},
        [{"k": [1, 1, 1e18, 1e18]}, {"k": [1, 1, None, 1]}, {"k": [1, 1, -1, 0]}, {"k": []}],
        initializers=image,
    )
    values = [tensor("values", FLOAT, [2], [0.0, 1.0]), integers("at", 0)]
    yield hazard(
        "one_hot",
        [node("OneHot", ["at", "d", "values"], ["y"])],
        {"d": (INT64, [])},
        [{"d": [n]} for n in (-1, 0, HUGE, I64_MAX)],
        initializers=values,
    )
    yield hazard(
        "range",
        [node("Range", ["a", "b", "d"], ["y"])],
        {"a": (INT64, []), "b": (INT64, []), "d": (INT64, [])},
        [
            {"a": [0], "b": [HUGE], "d": [1]},
            {"a": [0], "b": [1], "d": [0]},
            {"a": [I64_MIN], "b": [I64_MAX], "d": [1]},
            {"a": [0], "b": [5], "d": [I64_MIN]},
        ],
        (INT64, None),
    )
    yield hazard(
        "range_of_floats",
        [node("Range", ["a", "b", "d"], ["y"])],
        {"a": (FLOAT, []), "b": (FLOAT, []), "d": (FLOAT, [])},
        [
            {"a": [0], "b": [1e30], "d": [1e-30]},
            {"a": [None], "b": [None], "d": [None]},
            {"a": [0], "b": [1], "d": [0]},
        ],
    )
    yield hazard(
        "top_k",
        [node("TopK", ["x", "k"], ["y", "i"])],
        {"x": (FLOAT, ["N"]), "k": (INT64, [1])},
        [{"x": [3, 1], "k": [n]} for n in (-1, 0, 3, I64_MAX, I64_MIN)],
    )
    yield hazard(
        "split",
        [node("Split", ["x", "s"], ["y", "z"])],
        {"x": (FLOAT, ["N"]), "s": (INT64, ["M"])},
        [{"x": [1, 2], "s": s} for s in ([-1, 3], [I64_MAX, 3], [1], [0, 0], [])],
    )
    yield hazard(
        "slice",
        [node("Slice", ["x", "b", "e", "a", "t"], ["y"])],
        {"x": (FLOAT, ["N"]), "b": (INT64, ["K"]), "e": (INT64, ["K"]), "a": (INT64, ["K"]), "t": (INT64, ["K"])},
        [
            {"x": [1, 2], "b": b, "e": e, "a": a, "t": t}
            for b, e, a, t in (
                ([0], [9], [0], [0]),
                ([I64_MIN], [I64_MAX], [0], [I64_MIN]),
                ([I64_MAX], [I64_MIN], [0], [-1]),
                ([0], [1], [9], [1]),
                ([0, 0], [1, 1], [0, 0], [1, 1]),
                ([0], [1], [0], [I64_MAX]),
            )
        ],
    )
    yield hazard(
        "squeeze",
        [node("Squeeze", ["x", "a"], ["y"])],
        {"x": (FLOAT, ["N"]), "a": (INT64, ["K"])},
        [{"x": [1], "a": a} for a in ([9], [-9], [0, 0], [I64_MIN])],
    )
    yield hazard(
        "unsqueeze",
        [node("Unsqueeze", ["x", "a"], ["y"])],
        {"x": (FLOAT, ["N"]), "a": (INT64, ["K"])},
        [{"x": [1], "a": a} for a in ([9], [-9], [0, 0], [I64_MAX], list(range(5000)))],
    )
    yield hazard(
        "centre_crop",
        [node("CenterCropPad", ["x", "s"], ["y"])],
        {"x": (FLOAT, ["N"]), "s": (INT64, ["K"])},
        [{"x": [1], "s": s} for s in ([-4], [HUGE], [1, 1])],
        opset=18,
    )
    yield hazard(
        "dropout_and_trilu",
        [node("Reshape", ["x", "s"], ["m"]), node("Trilu", ["m", "k"], ["y"])],
        {"x": (FLOAT, ["N"]), "k": (INT64, [])},
        [{"x": [1, 2, 3, 4], "k": [k]} for k in (I64_MAX, I64_MIN, 99)],
        initializers=[integers("s", 2, 2)],
    )
    boxes = {
        "boxes": (FLOAT, [1, "N", 4]),
        "scores": (FLOAT, [1, 1, "N"]),
        "most": (INT64, [1]),
        "iou": (FLOAT, [1]),
        "score": (FLOAT, [1]),
    }

    def nms(most, iou, score, box):
        return {
            "boxes": ([1, 2, 4], box),
            "scores": ([1, 1, 2], [0.9, 0.8]),
            "most": [most],
            "iou": [iou],
            "score": [score],
        }

    yield hazard(
        "non_max_suppression",
        [node("NonMaxSuppression", list(boxes), ["y"])],
        boxes,
        [
            nms(m, i, s, b)
            for m, i, s, b in (
                (I64_MAX, 0.5, 0, [0, 0, 1, 1] * 2),
                (I64_MIN, 0.5, 0, [0, 0, 1, 1] * 2),
                (3, None, None, [None] * 8),
                (3, 9, -9, [1e38, -1e38] * 4),
            )
        ],
        (INT64, None),
    )
    yield hazard(
        "window", [node("HannWindow", ["n"], ["y"])], {"n": (INT64, [])}, [{"n": [n]} for n in (-1, 0, HUGE, I64_MIN)]
    )
    yield hazard(
        "frames",
        [node("STFT", ["x", "step", "", "length"], ["y"])],
        {"x": (FLOAT, [1, "N", 1]), "step": (INT64, []), "length": (INT64, [])},
        [
            {"x": ([1, 4, 1], [1] * 4), "step": [s], "length": [n]}
            for s, n in ((0, 2), (-1, 2), (1, 0), (1, HUGE), (I64_MAX, 1))
        ],
    )
    yield hazard(
        "fourier",
        [node("DFT", ["x", "n"], ["y"], axis=1)],
        {"x": (FLOAT, [1, "N", 1]), "n": (INT64, [])},
        [{"x": ([1, 4, 1], [1] * 4), "n": [n]} for n in (-1, 0, 1 << 34, I64_MAX)],
    )
    yield hazard(
        "blocks_to_image",
        [node("Col2Im", ["x", "i", "b"], ["y"])],
        {"x": (FLOAT, [1, "M", "N"]), "i": (INT64, [2]), "b": (INT64, [2])},
        [
            {"x": ([1, 4, 1], [1] * 4), "i": i, "b": b}
            for i, b in (([2, 2], [2, 2]), ([HUGE, HUGE], [2, 2]), ([0, 0], [0, 0]), ([-1, -1], [-1, -1]))
        ],
        opset=18,
    )
    yield hazard(
        "mel",
        [node("MelWeightMatrix", ["b", "n", "r", "lo", "hi"], ["y"])],
        {"b": (INT64, []), "n": (INT64, []), "r": (INT64, []), "lo": (FLOAT, []), "hi": (FLOAT, [])},
        [
            {"b": [b], "n": [n], "r": [r], "lo": [0], "hi": [h]}
            for b, n, r, h in (
                (-1, 8, 8000, 4000),
                (8, -1, 8000, 4000),
                (8, 8, 0, 4000),
                (1 << 20, 1 << 24, 8000, 4000),
                (8, 16, 8000, 1e30),
                (8, 16, 8000, -5),
            )
        ],
    )
    pooled = {"x": (FLOAT, [1, 1, "N", "M"]), "i": (INT64, [1, 1, "N", "M"])}
    yield hazard(
        "unpool",
        [node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
        pooled,
        [{"x": ([1, 1, 1, 1], [5]), "i": ([1, 1, 1, 1], [i])} for i in (HUGE, -1, I64_MIN, 4)],
    )


# Places beside a tensor of three: just beyond, far, before, and where a product overflows.
PLACES = (3, 4, HUGE, -4, -HUGE, I64_MAX, I64_MIN)


def _places():
    table = [tensor("table", FLOAT, [3], [1.0, 2.0, 3.0])]
    at = {"i": (INT64, ["N"])}
    asks = [{"i": [p]} for p in PLACES]
    yield hazard("gather", [node("Gather", ["table", "i"], ["y"])], at, asks, initializers=table)
    yield hazard("gather_elements", [node("GatherElements", ["table", "i"], ["y"])], at, asks, initializers=table)
    yield hazard(
        "gather_nd",
        [node("GatherND", ["table", "i"], ["y"])],
        {"i": (INT64, ["N", 1])},
        [{"i": ([1, 1], [p])} for p in PLACES],
        initializers=table,
    )
    yield hazard(
        "scatter_elements",
        [node("ScatterElements", ["table", "i", "v"], ["y"])],
        at | {"v": (FLOAT, ["N"])},
        [{"i": [p], "v": [9]} for p in PLACES] + [{"i": [0, 1], "v": [9]}, {"i": [0] * 9, "v": [1] * 9}],
        initializers=table,
    )
    yield hazard(
        "scatter_nd",
        [node("ScatterND", ["table", "i", "v"], ["y"])],
        {"i": (INT64, ["N", "K"]), "v": (FLOAT, ["M"])},
        [{"i": ([1, 1], [p]), "v": [9]} for p in PLACES]
        + [{"i": ([1, 3], [0, 0, 0]), "v": [9]}, {"i": ([2, 1], [0, 1]), "v": [9]}],
        initializers=table,
    )
    yield hazard(
        "one_hot_at",
        [node("OneHot", ["i", "d", "values"], ["y"])],
        at,
        asks,
        initializers=[scalar("d", 3), tensor("values", FLOAT, [2], [0.0, 1.0])],
    )
    yield hazard(
        "array_feature_extractor",
        [node("ArrayFeatureExtractor", ["table2", "i"], ["y"], domain="ai.onnx.ml")],
        at,
        [*asks, {"i": []}],
        initializers=[tensor("table2", FLOAT, [1, 3], [1.0, 2.0, 3.0])],
    )
    yield hazard(
        "compress",
        [node("Compress", ["x", "c"], ["y"])],
        {"x": (FLOAT, ["N"]), "c": (BOOL, ["M"])},
        [{"x": [1], "c": [True] * 9}, {"x": [1, 2], "c": []}],
    )
    yield hazard(
        "reverse_sequence",
        [node("ReverseSequence", ["x", "n"], ["y"])],
        {"x": (FLOAT, ["T", "N"]), "n": (INT64, ["N"])},
        [{"x": ([2, 1], [1, 2]), "n": [p]} for p in (3, 0, -1, HUGE, I64_MIN)],
    )
    yield hazard(
        "region_align",
        [node("RoiAlign", ["x", "r", "b"], ["y"], output_height=2, output_width=2, sampling_ratio=0)],
        {"x": (FLOAT, [1, 1, "H", "W"]), "r": (FLOAT, ["N", 4]), "b": (INT64, ["N"])},
        [
            {"x": ([1, 1, 2, 2], [1] * 4), "r": ([1, 4], r), "b": [b]}
            for r, b in (
                ([0, 0, 1, 1], 1),
                ([0, 0, 1, 1], -1),
                ([0, 0, 1, 1], HUGE),
                ([0, 0, 1e9, 1e9], 0),
                ([None] * 4, 0),
                ([1e38, 1e38, -1e38, -1e38], 0),
            )
        ],
    )
    yield hazard(
        "region_pool",
        [node("MaxRoiPool", ["x", "r"], ["y"], pooled_shape=[2, 2])],
        {"x": (FLOAT, [1, 1, "H", "W"]), "r": (FLOAT, ["N", 5])},
        [
            {"x": ([1, 1, 2, 2], [1] * 4), "r": ([1, 5], [b, *r])}
            for b, *r in ((9, 0, 0, 1, 1), (-1, 0, 0, 1, 1), (0, -9, -9, 1e9, 1e9), (1e30, 0, 0, 1, 1))
        ],
    )
    yield hazard(
        "grid_sample",
        [node("GridSample", ["x", "g"], ["y"])],
        {"x": (FLOAT, [1, 1, "H", "W"]), "g": (FLOAT, [1, "A", "B", 2])},
        [{"x": ([1, 1, 2, 2], [1] * 4), "g": ([1, 1, 1, 2], g)} for g in ([None, None], [1e30, -1e30], [1e38, 3e38])],
    )
    yield hazard(
        "grid_sample_reflecting",
        [node("GridSample", ["x", "g"], ["y"], padding_mode="reflection", mode="bicubic")],
        {"x": (FLOAT, [1, 1, "H", "W"]), "g": (FLOAT, [1, "A", "B", 2])},
        [{"x": ([1, 1, 2, 2], [1] * 4), "g": ([1, 1, 1, 2], g)} for g in ([None, None], [1e30, -1e30], [3e38, 3e38])],
    )
    sequence = [node("SequenceConstruct", ["x", "x"], ["q"]), node("SequenceAt", ["q", "i"], ["y"])]
    yield hazard(
        "sequence_at", sequence, {"x": (FLOAT, ["N"]), "i": (INT64, [])}, [{"x": [1], "i": [p]} for p in PLACES]
    )
    yield hazard(
        "gather_blocks",
        [node("Gather", ["wide", "i"], ["y"], axis=1)],
        at,
        asks,
        initializers=[tensor("wide", FLOAT, [1, 3], [1.0] * 3)],
    )
    yield hazard(
        "loss",
        [node("NegativeLogLikelihoodLoss", ["x", "i"], ["y"])],
        {"x": (FLOAT, ["N", "C"]), "i": (INT64, ["N"])},
        [{"x": ([1, 3], [1, 2, 3]), "i": [p]} for p in PLACES],
    )
    yield hazard(
        "loss_softmax",
        [node("SoftmaxCrossEntropyLoss", ["x", "i"], ["y"])],
        {"x": (FLOAT, ["N", "C"]), "i": (INT64, ["N"])},
        [{"x": ([1, 3], [1, 2, 3]), "i": [p]} for p in PLACES],
    )
    yield hazard(
        "recurrent_lengths",
        [node("GRU", ["x", "w", "r", "", "n"], ["y"], hidden_size=1)],
        {"x": (FLOAT, ["T", 1, 1]), "n": (INT32, [1])},
        [{"x": ([2, 1, 1], [1, 2]), "n": [p]} for p in (3, -1, 1 << 30, -(1 << 31))],
        initializers=[tensor("w", FLOAT, [1, 3, 1], [1.0] * 3), tensor("r", FLOAT, [1, 3, 1], [1.0] * 3)],
    )
    yield hazard(
        "lstm_lengths",
        [node("LSTM", ["x", "w", "r", "", "n"], ["y"], hidden_size=1)],
        {"x": (FLOAT, ["T", 1, 1]), "n": (INT32, [1])},
        [{"x": ([2, 1, 1], [1, 2]), "n": [p]} for p in (3, -1, 1 << 30, -(1 << 31))],
        initializers=[tensor("w", FLOAT, [1, 4, 1], [1.0] * 4), tensor("r", FLOAT, [1, 4, 1], [1.0] * 4)],
    )


def _loops():
    body = graph(
        [node("Identity", ["go_on"], ["go_on_next"]), node("Neg", ["v_in"], ["v_out"])],
        [port("i", INT64, []), port("go_on", BOOL, []), port("v_in", FLOAT, None)],
        [port("go_on_next", BOOL, []), port("v_out", FLOAT, None)],
    )
    inputs = {"n": (INT64, []), "x": (FLOAT, ["N"])}
    yield hazard(
        "loop_count_of_request",
        [node("Loop", ["n", "", "x"], ["y"], body=body)],
        inputs,
        [{"n": [n], "x": [1]} for n in (0, -1, I64_MIN, 3, HUGE, I64_MAX)],
        (FLOAT, None),
    )
    yield hazard(
        "loop_condition_of_request",
        [node("Loop", ["", "c", "x"], ["y"], body=body)],
        {"c": (BOOL, []), "x": (FLOAT, ["N"])},
        [{"c": [False], "x": [1]}, {"c": [True], "x": [1]}],
        (FLOAT, None),
    )
    growing = graph(
        [node("Identity", ["go_on"], ["go_on_next"]), node("Concat", ["v_in", "v_in"], ["v_out"], axis=0)],
        [port("i", INT64, []), port("go_on", BOOL, []), port("v_in", FLOAT, None)],
        [port("go_on_next", BOOL, []), port("v_out", FLOAT, None)],
    )
    yield hazard(
        "loop_growing",
        [node("Loop", ["n", "", "x"], ["y"], body=growing)],
        inputs,
        [{"n": [n], "x": [1]} for n in (3, 60)],
        (FLOAT, None),
    )
    true = [tensor("true", BOOL, [], [True])]
    element = Tensor(tensor("", FLOAT, [1], [1.0]))
    quadratic = [
        node("ConstantOfShape", ["s"], ["m"], value=element),
        node("MatMul", ["m", "m"], ["a"]),
        node("MatMul", ["a", "m"], ["b"]),
        node("ReduceMax", ["b"], ["y"]),
    ]
    yield hazard(
        "work_of_request", quadratic, {"s": (INT64, [2])}, [{"s": [4, 4]}, {"s": [1 << 13, 1 << 13]}], initializers=true
    )
    steps = [node("Expand", ["x", "s"], ["e"]), node("Sin", ["e"], ["f"]), node("ReduceSum", ["f"], ["y"], keepdims=0)]
    yield hazard(
        "memory_of_request",
        steps,
        {"x": (FLOAT, ["N"]), "s": (INT64, ["K"])},
        [{"x": [1], "s": [1 << 20]}, {"x": [1], "s": [3 << 30]}, {"x": [1], "s": [1 << 38]}],
    )

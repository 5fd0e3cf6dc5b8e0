"""Models that load well and are dangerous to run: what they divide by, loop over, or read at comes from the request.

Each is asked with values that break a careless kernel. 200 and 4xx are both right; a crash, a hang or 5xx is not.
"""

from .folders import HostileModel, ask
from .onnx_bytes import (
    BOOL, DOUBLE, FLOAT, INT8, INT16, INT32, INT64, STRING, UINT8, UINT64, Tensor, file, graph, integers, node, port,
    scalar, tensor,
)

I64_MAX, I64_MIN = (1 << 63) - 1, -(1 << 63)
TYPES = {INT8: "INT8", INT16: "INT16", INT32: "INT32", INT64: "INT64", UINT8: "UINT8", UINT64: "UINT64", FLOAT: "FP32",
         DOUBLE: "FP64", STRING: "BYTES", BOOL: "BOOL"}  # fmt: skip
BITS = {INT8: 8, INT16: 16, INT32: 32, INT64: 64}
HUGE = 1 << 40


def models():
    yield from _arithmetic()
    yield from _sizes()
    yield from _places()
    yield from _strings()
    yield from _attributes()
    yield from _classical()
    yield from _contributed()
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
                f"{operator.lower()}_{text}", [node(operator, ["a", "b"], ["y"])],
                {"a": (element, ["N"]), "b": (element, ["N"])},
                [{"a": [least, 7], "b": [-1, -1]}, {"a": [7], "b": [0]}, {"a": [least], "b": [0]}, {"a": [0], "b": [0]}],
                out=(element, ["N"]),
            )  # fmt: skip
    yield hazard("mod_uint8", [node("Mod", ["a", "b"], ["y"])], {"a": (UINT8, ["N"]), "b": (UINT8, ["N"])}, [{"a": [7], "b": [0]}], (UINT8, ["N"]))
    yield hazard("div_uint64", [node("Div", ["a", "b"], ["y"])], {"a": (UINT64, ["N"]), "b": (UINT64, ["N"])}, [{"a": [7], "b": [0]}], (UINT64, ["N"]))
    constant = [integers("zero", 0)]
    yield hazard("div_by_a_constant_zero", [node("Div", ["a", "zero"], ["y"])], {"a": (INT64, ["N"])}, [{"a": [1]}], (INT64, ["N"]), constant)
    minus = [integers("minus", -1)]
    yield hazard("div_by_a_constant_minus_one", [node("Div", ["a", "minus"], ["y"])], {"a": (INT64, ["N"])}, [{"a": [I64_MIN]}, {"a": [1]}], (INT64, ["N"]), minus)
    yield hazard("mod_by_a_shape", [node("Shape", ["a"], ["s"]), node("Mod", ["s", "a"], ["y"])], {"a": (INT64, ["N"])}, [{"a": [0]}], (INT64, ["N"]))
    inside = graph([node("Div", ["a", "b"], ["r"])], [], [port("r", INT32, None)])
    true = [tensor("c", BOOL, [], [True])]
    yield hazard("div_in_a_branch", [node("If", ["c"], ["y"], then_branch=inside, else_branch=inside)],
                 {"a": (INT32, ["N"]), "b": (INT32, ["N"])}, [{"a": [-(1 << 31)], "b": [-1]}, {"a": [1], "b": [0]}], (INT32, ["N"]), true)  # fmt: skip
    yield hazard("pow_integers", [node("Pow", ["a", "b"], ["y"])], {"a": (INT64, ["N"]), "b": (INT64, ["N"])},
                 [{"a": [0, 2, -1], "b": [-1, 1 << 40, I64_MIN]}], (INT64, ["N"]))  # fmt: skip
    yield hazard("abs_and_neg_of_least", [node("Neg", ["a"], ["n"]), node("Abs", ["n"], ["y"])], {"a": (INT64, ["N"])}, [{"a": [I64_MIN]}], (INT64, ["N"]))
    yield hazard("shift_far", [node("BitShift", ["a", "b"], ["y"], direction="LEFT")], {"a": (UINT64, ["N"]), "b": (UINT64, ["N"])},
                 [{"a": [1, 1], "b": [64, (1 << 64) - 1]}], (UINT64, ["N"]))  # fmt: skip
    for element in (INT8, INT32, INT64, UINT8, BOOL):
        yield hazard(f"cast_to_{TYPES[element].lower()}", [node("Cast", ["x"], ["y"], to=element)], {"x": (FLOAT, ["N"])},
                     [{"x": [1e38, -1e38, 3e9, None]}], (element, ["N"]))  # fmt: skip
    yield hazard("scale_zero", [node("QuantizeLinear", ["x", "s", "z"], ["y"])], {"x": (FLOAT, ["N"]), "s": (FLOAT, []), "z": (UINT8, [])},
                 [{"x": [1, 2], "s": [0], "z": [9]}, {"x": [None], "s": [None], "z": [0]}], (UINT8, ["N"]))  # fmt: skip
    yield hazard("multiply_integers_over", [node("CumSum", ["a", "axis"], ["s"]), node("Mul", ["s", "s"], ["y"])], {"a": (INT64, ["N"]), "axis": (INT64, [])},
                 [{"a": [I64_MAX, I64_MAX], "axis": [0]}, {"a": [1], "axis": [9]}, {"a": [1], "axis": [I64_MIN]}], (INT64, ["N"]))  # fmt: skip


# Sizes that no kernel can make, or that no machine has memory for.
SIZES = [[-1], [HUGE], [I64_MAX], [I64_MIN], [0], [1 << 33], []]


def _sizes():
    one = [tensor("one", FLOAT, [1], [1.0])]
    def sized(name, nodes, sizes=SIZES, initializers=one, out=(FLOAT, None), **more):
        return hazard(name, nodes, {"s": (INT64, ["N"])}, [{"s": s} for s in sizes], out, initializers, **more)

    yield sized("constant_of_shape", [node("ConstantOfShape", ["s"], ["y"])], [*SIZES, [HUGE, HUGE], [1 << 16] * 4, [1] * 3000])
    yield sized("expand", [node("Expand", ["one", "s"], ["y"])], [*SIZES, [HUGE, HUGE], [1] * 3000])
    yield sized("tile", [node("Tile", ["one", "s"], ["y"])])
    yield sized("reshape", [node("Reshape", ["one", "s"], ["y"])], [*SIZES, [-1, -1], [-2], [1 << 32, 1 << 32], [I64_MAX, 2]])
    yield sized("reshape_of_nothing", [node("Reshape", ["none", "s"], ["y"], allowzero=1)], [[0, -1], [0, I64_MAX], [-1]], [tensor("none", FLOAT, [0], [])])
    yield sized("pad", [node("Pad", ["one", "s"], ["y"])], [[HUGE, 0], [-5, -5], [I64_MAX, I64_MAX], [1 << 33, 1 << 33], [1], []])
    yield sized("pad_reflect", [node("Pad", ["one", "s"], ["y"], mode="reflect")], [[HUGE, 0], [9, 9], [-5, 0]])
    yield sized("pad_edge", [node("Pad", ["one", "s"], ["y"], mode="edge")], [[1 << 33, 0], [-5, 9]])
    yield sized("random", [node("ConstantOfShape", ["s"], ["t"]), node("RandomNormalLike", ["t"], ["y"])], [[-1], [1 << 33]])
    image = [tensor("image", FLOAT, [1, 1, 2, 2], [1.0] * 4)]
    for mode in ("nearest", "linear", "cubic"):
        yield sized(f"resize_{mode}", [node("Resize", ["image", "", "", "s"], ["y"], mode=mode)],
                    [[1, 1, -1, 4], [1, 1, 1 << 20, 1 << 20], [1, 1, 0, 0], [1, 1], [I64_MAX] * 4, [HUGE, HUGE, HUGE, HUGE]], image)  # fmt: skip
    yield hazard("resize_by", [node("Resize", ["image", "", "k"], ["y"])], {"k": (FLOAT, ["N"])},
                 [{"k": [1, 1, 1e18, 1e18]}, {"k": [1, 1, None, 1]}, {"k": [1, 1, -1, 0]}, {"k": []}], initializers=image)  # fmt: skip
    values = [tensor("values", FLOAT, [2], [0.0, 1.0]), integers("at", 0)]
    yield hazard("one_hot", [node("OneHot", ["at", "d", "values"], ["y"])], {"d": (INT64, [])}, [{"d": [n]} for n in (-1, 0, HUGE, I64_MAX)], initializers=values)
    yield hazard("range", [node("Range", ["a", "b", "d"], ["y"])], {"a": (INT64, []), "b": (INT64, []), "d": (INT64, [])},
                 [{"a": [0], "b": [HUGE], "d": [1]}, {"a": [0], "b": [1], "d": [0]}, {"a": [I64_MIN], "b": [I64_MAX], "d": [1]}, {"a": [0], "b": [5], "d": [I64_MIN]}],
                 (INT64, None))  # fmt: skip
    yield hazard("range_of_floats", [node("Range", ["a", "b", "d"], ["y"])], {"a": (FLOAT, []), "b": (FLOAT, []), "d": (FLOAT, [])},
                 [{"a": [0], "b": [1e30], "d": [1e-30]}, {"a": [None], "b": [None], "d": [None]}, {"a": [0], "b": [1], "d": [0]}])  # fmt: skip
    yield hazard("top_k", [node("TopK", ["x", "k"], ["y", "i"])], {"x": (FLOAT, ["N"]), "k": (INT64, [1])},
                 [{"x": [3, 1], "k": [n]} for n in (-1, 0, 3, I64_MAX, I64_MIN)])  # fmt: skip
    yield hazard("split", [node("Split", ["x", "s"], ["y", "z"])], {"x": (FLOAT, ["N"]), "s": (INT64, ["M"])},
                 [{"x": [1, 2], "s": s} for s in ([-1, 3], [I64_MAX, 3], [1], [0, 0], [])])  # fmt: skip
    yield hazard("slice", [node("Slice", ["x", "b", "e", "a", "t"], ["y"])],
                 {"x": (FLOAT, ["N"]), "b": (INT64, ["K"]), "e": (INT64, ["K"]), "a": (INT64, ["K"]), "t": (INT64, ["K"])},
                 [{"x": [1, 2], "b": b, "e": e, "a": a, "t": t} for b, e, a, t in
                  (([0], [9], [0], [0]), ([I64_MIN], [I64_MAX], [0], [I64_MIN]), ([I64_MAX], [I64_MIN], [0], [-1]), ([0], [1], [9], [1]),
                   ([0, 0], [1, 1], [0, 0], [1, 1]), ([0], [1], [0], [I64_MAX]))])  # fmt: skip
    yield hazard("squeeze", [node("Squeeze", ["x", "a"], ["y"])], {"x": (FLOAT, ["N"]), "a": (INT64, ["K"])},
                 [{"x": [1], "a": a} for a in ([9], [-9], [0, 0], [I64_MIN])])  # fmt: skip
    yield hazard("unsqueeze", [node("Unsqueeze", ["x", "a"], ["y"])], {"x": (FLOAT, ["N"]), "a": (INT64, ["K"])},
                 [{"x": [1], "a": a} for a in ([9], [-9], [0, 0], [I64_MAX], list(range(5000)))])  # fmt: skip
    yield hazard("centre_crop", [node("CenterCropPad", ["x", "s"], ["y"])], {"x": (FLOAT, ["N"]), "s": (INT64, ["K"])},
                 [{"x": [1], "s": s} for s in ([-4], [HUGE], [1, 1])], opset=18)  # fmt: skip
    yield hazard("dropout_and_trilu", [node("Reshape", ["x", "s"], ["m"]), node("Trilu", ["m", "k"], ["y"])],
                 {"x": (FLOAT, ["N"]), "k": (INT64, [])}, [{"x": [1, 2, 3, 4], "k": [k]} for k in (I64_MAX, I64_MIN, 99)], initializers=[integers("s", 2, 2)])  # fmt: skip
    boxes = {"boxes": (FLOAT, [1, "N", 4]), "scores": (FLOAT, [1, 1, "N"]), "most": (INT64, [1]), "iou": (FLOAT, [1]), "score": (FLOAT, [1])}
    def nms(most, iou, score, box):
        return {"boxes": ([1, 2, 4], box), "scores": ([1, 1, 2], [0.9, 0.8]), "most": [most], "iou": [iou], "score": [score]}
    yield hazard("non_max_suppression", [node("NonMaxSuppression", list(boxes), ["y"])], boxes,
                 [nms(m, i, s, b) for m, i, s, b in ((I64_MAX, 0.5, 0, [0, 0, 1, 1] * 2), (I64_MIN, 0.5, 0, [0, 0, 1, 1] * 2), (3, None, None, [None] * 8), (3, 9, -9, [1e38, -1e38] * 4))],
                 (INT64, None))  # fmt: skip
    yield hazard("window", [node("HannWindow", ["n"], ["y"])], {"n": (INT64, [])}, [{"n": [n]} for n in (-1, 0, HUGE, I64_MIN)])
    yield hazard("frames", [node("STFT", ["x", "step", "", "length"], ["y"])], {"x": (FLOAT, [1, "N", 1]), "step": (INT64, []), "length": (INT64, [])},
                 [{"x": ([1, 4, 1], [1] * 4), "step": [s], "length": [n]} for s, n in ((0, 2), (-1, 2), (1, 0), (1, HUGE), (I64_MAX, 1))])  # fmt: skip
    yield hazard("fourier", [node("DFT", ["x", "n"], ["y"], axis=1)], {"x": (FLOAT, [1, "N", 1]), "n": (INT64, [])},
                 [{"x": ([1, 4, 1], [1] * 4), "n": [n]} for n in (-1, 0, 1 << 34, I64_MAX)])  # fmt: skip
    yield hazard("blocks_to_image", [node("Col2Im", ["x", "i", "b"], ["y"])], {"x": (FLOAT, [1, "M", "N"]), "i": (INT64, [2]), "b": (INT64, [2])},
                 [{"x": ([1, 4, 1], [1] * 4), "i": i, "b": b} for i, b in (([2, 2], [2, 2]), ([HUGE, HUGE], [2, 2]), ([0, 0], [0, 0]), ([-1, -1], [-1, -1]))], opset=18)  # fmt: skip
    yield hazard("mel", [node("MelWeightMatrix", ["b", "n", "r", "lo", "hi"], ["y"])],
                 {"b": (INT64, []), "n": (INT64, []), "r": (INT64, []), "lo": (FLOAT, []), "hi": (FLOAT, [])},
                 [{"b": [b], "n": [n], "r": [r], "lo": [0], "hi": [h]} for b, n, r, h in ((-1, 8, 8000, 4000), (8, -1, 8000, 4000), (8, 8, 0, 4000), (1 << 20, 1 << 24, 8000, 4000), (8, 16, 8000, 1e30), (8, 16, 8000, -5))])  # fmt: skip
    pooled = {"x": (FLOAT, [1, 1, "N", "M"]), "i": (INT64, [1, 1, "N", "M"])}
    yield hazard("unpool", [node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], pooled,
                 [{"x": ([1, 1, 1, 1], [5]), "i": ([1, 1, 1, 1], [i])} for i in (HUGE, -1, I64_MIN, 4)])  # fmt: skip


# Places beside a tensor of three: just beyond, far, before, and where a product overflows.
PLACES = (3, 4, HUGE, -4, -HUGE, I64_MAX, I64_MIN)


def _places():
    table = [tensor("table", FLOAT, [3], [1.0, 2.0, 3.0])]
    at = {"i": (INT64, ["N"])}
    asks = [{"i": [p]} for p in PLACES]
    yield hazard("gather", [node("Gather", ["table", "i"], ["y"])], at, asks, initializers=table)
    yield hazard("gather_elements", [node("GatherElements", ["table", "i"], ["y"])], at, asks, initializers=table)
    yield hazard("gather_nd", [node("GatherND", ["table", "i"], ["y"])], {"i": (INT64, ["N", 1])}, [{"i": ([1, 1], [p])} for p in PLACES], initializers=table)
    yield hazard("scatter_elements", [node("ScatterElements", ["table", "i", "v"], ["y"])], at | {"v": (FLOAT, ["N"])},
                 [{"i": [p], "v": [9]} for p in PLACES] + [{"i": [0, 1], "v": [9]}, {"i": [0] * 9, "v": [1] * 9}], initializers=table)  # fmt: skip
    yield hazard("scatter_nd", [node("ScatterND", ["table", "i", "v"], ["y"])], {"i": (INT64, ["N", "K"]), "v": (FLOAT, ["M"])},
                 [{"i": ([1, 1], [p]), "v": [9]} for p in PLACES] + [{"i": ([1, 3], [0, 0, 0]), "v": [9]}, {"i": ([2, 1], [0, 1]), "v": [9]}], initializers=table)  # fmt: skip
    yield hazard("one_hot_at", [node("OneHot", ["i", "d", "values"], ["y"])], at, asks,
                 initializers=[scalar("d", 3), tensor("values", FLOAT, [2], [0.0, 1.0])])  # fmt: skip
    yield hazard("array_feature_extractor", [node("ArrayFeatureExtractor", ["table2", "i"], ["y"], domain="ai.onnx.ml")], at, [*asks, {"i": []}],
                 initializers=[tensor("table2", FLOAT, [1, 3], [1.0, 2.0, 3.0])])  # fmt: skip
    yield hazard("compress", [node("Compress", ["x", "c"], ["y"])], {"x": (FLOAT, ["N"]), "c": (BOOL, ["M"])},
                 [{"x": [1], "c": [True] * 9}, {"x": [1, 2], "c": []}])  # fmt: skip
    yield hazard("reverse_sequence", [node("ReverseSequence", ["x", "n"], ["y"])], {"x": (FLOAT, ["T", "N"]), "n": (INT64, ["N"])},
                 [{"x": ([2, 1], [1, 2]), "n": [p]} for p in (3, 0, -1, HUGE, I64_MIN)])  # fmt: skip
    yield hazard("region_align", [node("RoiAlign", ["x", "r", "b"], ["y"], output_height=2, output_width=2, sampling_ratio=0)],
                 {"x": (FLOAT, [1, 1, "H", "W"]), "r": (FLOAT, ["N", 4]), "b": (INT64, ["N"])},
                 [{"x": ([1, 1, 2, 2], [1] * 4), "r": ([1, 4], r), "b": [b]} for r, b in
                  (([0, 0, 1, 1], 1), ([0, 0, 1, 1], -1), ([0, 0, 1, 1], HUGE), ([0, 0, 1e9, 1e9], 0), ([None] * 4, 0), ([1e38, 1e38, -1e38, -1e38], 0))])  # fmt: skip
    yield hazard("region_pool", [node("MaxRoiPool", ["x", "r"], ["y"], pooled_shape=[2, 2])], {"x": (FLOAT, [1, 1, "H", "W"]), "r": (FLOAT, ["N", 5])},
                 [{"x": ([1, 1, 2, 2], [1] * 4), "r": ([1, 5], [b, *r])} for b, *r in ((9, 0, 0, 1, 1), (-1, 0, 0, 1, 1), (0, -9, -9, 1e9, 1e9), (1e30, 0, 0, 1, 1))])  # fmt: skip
    yield hazard("grid_sample", [node("GridSample", ["x", "g"], ["y"])], {"x": (FLOAT, [1, 1, "H", "W"]), "g": (FLOAT, [1, "A", "B", 2])},
                 [{"x": ([1, 1, 2, 2], [1] * 4), "g": ([1, 1, 1, 2], g)} for g in ([None, None], [1e30, -1e30], [1e38, 3e38])])  # fmt: skip
    yield hazard("grid_sample_reflecting", [node("GridSample", ["x", "g"], ["y"], padding_mode="reflection", mode="bicubic")],
                 {"x": (FLOAT, [1, 1, "H", "W"]), "g": (FLOAT, [1, "A", "B", 2])},
                 [{"x": ([1, 1, 2, 2], [1] * 4), "g": ([1, 1, 1, 2], g)} for g in ([None, None], [1e30, -1e30], [3e38, 3e38])])  # fmt: skip
    sequence = [node("SequenceConstruct", ["x", "x"], ["q"]), node("SequenceAt", ["q", "i"], ["y"])]
    yield hazard("sequence_at", sequence, {"x": (FLOAT, ["N"]), "i": (INT64, [])}, [{"x": [1], "i": [p]} for p in PLACES])
    yield hazard("gather_blocks", [node("Gather", ["wide", "i"], ["y"], axis=1)], at, asks, initializers=[tensor("wide", FLOAT, [1, 3], [1.0] * 3)])
    yield hazard("loss", [node("NegativeLogLikelihoodLoss", ["x", "i"], ["y"])], {"x": (FLOAT, ["N", "C"]), "i": (INT64, ["N"])},
                 [{"x": ([1, 3], [1, 2, 3]), "i": [p]} for p in PLACES])  # fmt: skip
    yield hazard("loss_softmax", [node("SoftmaxCrossEntropyLoss", ["x", "i"], ["y"])], {"x": (FLOAT, ["N", "C"]), "i": (INT64, ["N"])},
                 [{"x": ([1, 3], [1, 2, 3]), "i": [p]} for p in PLACES])  # fmt: skip
    yield hazard("recurrent_lengths", [node("GRU", ["x", "w", "r", "", "n"], ["y"], hidden_size=1)], {"x": (FLOAT, ["T", 1, 1]), "n": (INT32, [1])},
                 [{"x": ([2, 1, 1], [1, 2]), "n": [p]} for p in (3, -1, 1 << 30, -(1 << 31))],
                 initializers=[tensor("w", FLOAT, [1, 3, 1], [1.0] * 3), tensor("r", FLOAT, [1, 3, 1], [1.0] * 3)])  # fmt: skip
    yield hazard("lstm_lengths", [node("LSTM", ["x", "w", "r", "", "n"], ["y"], hidden_size=1)], {"x": (FLOAT, ["T", 1, 1]), "n": (INT32, [1])},
                 [{"x": ([2, 1, 1], [1, 2]), "n": [p]} for p in (3, -1, 1 << 30, -(1 << 31))],
                 initializers=[tensor("w", FLOAT, [1, 4, 1], [1.0] * 4), tensor("r", FLOAT, [1, 4, 1], [1.0] * 4)])  # fmt: skip


TEXTS = ["", "\0", "a" * 100_000, "\udcff", "é\u0301\u202e", "😀" * 1000, "\n\r\x1b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"]


def _strings():
    texts = {"x": (STRING, ["N"])}
    asks = [{"x": [t.encode("utf-8", "replace").decode()]} for t in TEXTS] + [{"x": []}]
    yield hazard("cast_from_text", [node("Cast", ["x"], ["y"], to=INT64)], texts, [*asks, {"x": ["99999999999999999999"]}, {"x": ["0x"]}], (INT64, ["N"]))
    yield hazard("cast_text_to_float", [node("Cast", ["x"], ["y"], to=FLOAT)], texts, [*asks, {"x": ["1e999"]}, {"x": ["nan(99)"]}])
    yield hazard("text_joined", [node("StringConcat", ["x", "x"], ["y"])], texts, asks, (STRING, ["N"]), opset=20)
    doubling = [node("StringConcat", ["x" if i == 0 else f"s{i}"] * 2, ["y" if i == 39 else f"s{i + 1}"]) for i in range(40)]
    yield hazard("text_doubled_40_times", doubling, texts, [{"x": ["ab"]}], (STRING, ["N"]), opset=20)
    for name, pattern in {"evil": "(a|a)*$", "nested": "((a+)+)+$", "broken": "(((", "giant": "a{1000}{1000}", "empty": "", "not_utf8": b"\xff"}.items():
        yield hazard(f"regex_{name}", [node("RegexFullMatch", ["x"], ["y"], pattern=pattern)], texts, asks, (BOOL, ["N"]), opset=20)
    yield hazard("text_split", [node("StringSplit", ["x"], ["y", "n"], delimiter="a")], texts, asks, (STRING, None), opset=20)
    yield hazard("text_split_by_nothing", [node("StringSplit", ["x"], ["y", "n"], delimiter="")], texts, asks, (STRING, None), opset=20)
    for locale in ("", "C", "xx_XX", "../../etc", "\0"):
        name = {"": "none", "C": "c", "\0": "nul", "../../etc": "path"}.get(locale, "unknown")
        yield hazard(f"normalizer_locale_{name}", [node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER", locale=locale)], texts, asks, (STRING, None))
    words = {"pad_value": "#", "mark": 1, "mincharnum": 1}
    for name, more in {"regex_evil": {"tokenexp": "(a|a)*b"}, "regex_broken": {"tokenexp": "((("}, "separator_evil": {"separators": ["(a*)*"]},
                       "separator_empty": {"separators": [""]}, "min_huge": {"tokenexp": ".", "mincharnum": 1 << 40},
                       "min_negative": {"tokenexp": ".", "mincharnum": -1}, "nothing": {}}.items():  # fmt: skip
        yield hazard(f"tokenizer_{name}", [node("Tokenizer", ["x"], ["y"], domain="com.microsoft", **(words | more))], texts, asks, (STRING, None))
    for name, counts, indexes, pool in (
        ("good", [0], [0], [5]), ("counts_beyond", [0, 99], [0], [5]), ("counts_negative", [-7], [0], [5]), ("indexes_huge", [0], [HUGE], [5]),
        ("indexes_negative", [0], [-1], [5]), ("pool_empty", [0], [0], [0] * 0 or [0]), ("counts_backwards", [3, 1, 0], [0, 1, 2], [1, 2, 3]),
    ):  # fmt: skip
        made = node("TfIdfVectorizer", ["i"], ["y"], mode="TF", min_gram_length=1, max_gram_length=3, max_skip_count=5,
                    ngram_counts=counts, ngram_indexes=indexes, pool_int64s=pool)  # fmt: skip
        yield hazard(f"grams_{name}", [made], {"i": (INT64, ["N"])}, [{"i": [5, 5, I64_MIN]}, {"i": []}])
    giant = node("TfIdfVectorizer", ["i"], ["y"], mode="TF", min_gram_length=1, max_gram_length=1 << 40, max_skip_count=1 << 40,
                 ngram_counts=[0], ngram_indexes=[0], pool_int64s=[5])  # fmt: skip
    yield hazard("grams_giant", [giant], {"i": (INT64, ["N"])}, [{"i": [5] * 64}])


def _attributes():
    x = {"x": (FLOAT, ["N"])}
    one = [{"x": [1, 2]}]
    image, asks = {"x": (FLOAT, [1, 1, "H", "W"])}, [{"x": ([1, 1, 2, 2], [1] * 4)}, {"x": ([1, 1, 0, 0], [])}]
    for name, made in {
        "pool_kernel_huge": node("MaxPool", ["x"], ["y"], kernel_shape=[1 << 30, 1 << 30], pads=[(1 << 30) - 1] * 4),
        "pool_kernel_int64_max": node("AveragePool", ["x"], ["y"], kernel_shape=[I64_MAX, I64_MAX]),
        "pool_pads_huge": node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[HUGE] * 4),
        "pool_pads_negative": node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[-9] * 4),
        "pool_kernel_zero": node("AveragePool", ["x"], ["y"], kernel_shape=[0, 0]),
        "pool_stride_zero": node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides=[0, 0]),
        "pool_dilation_huge": node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[HUGE, HUGE]),
        "lp_pool_of_zero": node("LpPool", ["x"], ["y"], kernel_shape=[1, 1], p=0),
        "lrn_size_huge": node("LRN", ["x"], ["y"], size=HUGE + 1), "lrn_size_even": node("LRN", ["x"], ["y"], size=2),
        "depth_to_space_zero": node("DepthToSpace", ["x"], ["y"], blocksize=0), "space_to_depth_zero": node("SpaceToDepth", ["x"], ["y"], blocksize=0),
        "space_to_depth_minus": node("SpaceToDepth", ["x"], ["y"], blocksize=-1), "flatten_far": node("Flatten", ["x"], ["y"], axis=99),
        "flatten_before": node("Flatten", ["x"], ["y"], axis=I64_MIN), "softmax_far": node("Softmax", ["x"], ["y"], axis=I64_MIN),
        "instance_norm": node("InstanceNormalization", ["x", "x", "x"], ["y"]), "grid_groups": node("GroupNormalization", ["x", "x", "x"], ["y"], num_groups=0),
        "concat_far": node("Concat", ["x", "x"], ["y"], axis=I64_MIN), "arg_max_far": node("ArgMax", ["x"], ["y"], axis=I64_MAX),
        "reduce_far": node("ReduceSum", ["x", ""], ["y"], axes=[I64_MIN]), "hardmax_far": node("Hardmax", ["x"], ["y"], axis=77),
        "lp_norm_of_9": node("LpNormalization", ["x"], ["y"], p=9, axis=77), "shape_slices": node("Shape", ["x"], ["y"], start=I64_MIN, end=I64_MAX),
        "transposed_giant": node("ConvTranspose", ["x", "x"], ["y"], strides=[1 << 30, 1 << 30]),
        "convolution_of_itself_grouped": node("Conv", ["x", "x"], ["y"], group=-1),
        "einsum_odd": node("Einsum", ["x", "x"], ["y"], equation="ab...,...->" + "z" * 60), "einsum_empty": node("Einsum", ["x"], ["y"], equation=""),
        "einsum_giant": node("Einsum", ["x"] * 6, ["y"], equation="abcd,efgh,ijkl,mnop,qrst,uvwx->" + "abcdefghijklmnopqrstuvwx"),
    }.items():  # fmt: skip
        yield hazard(name, [made], image, asks)
    for name, made in {
        "multinomial_huge": node("Multinomial", ["x2"], ["y"], sample_size=(1 << 31) - 1), "multinomial_negative": node("Multinomial", ["x2"], ["y"], sample_size=-1),
        "bernoulli": node("Bernoulli", ["x2"], ["y"]), "random_uniform_giant": node("RandomUniform", [], ["y"], shape=[1 << 40]),
        "split_in_zero": node("Split", ["x2"], ["y"], num_outputs=0), "split_in_billion": node("Split", ["x2"], ["y"], num_outputs=1 << 40),
    }.items():  # fmt: skip
        nodes = [node("Unsqueeze", ["x", "zero"], ["x2"]), *([node("Identity", ["x"], ["unused"])]), made]
        yield hazard(name, nodes, x, [*one, {"x": [None, -5]}], initializers=[integers("zero", 0)], opset=18 if "split" in name else 17)
    recurrent = {"huge": HUGE, "negative": -1, "zero": 0}
    for name, size in recurrent.items():
        made = node("LSTM", ["x3", "w", "r"], ["y"], hidden_size=size)
        nodes = [node("Unsqueeze", ["x", "axes"], ["x3"]), made]
        weights = [tensor("w", FLOAT, [1, 4, 1], [1.0] * 4), tensor("r", FLOAT, [1, 4, 1], [1.0] * 4), integers("axes", 1, 2)]
        yield hazard(f"lstm_hidden_{name}", nodes, x, one, initializers=weights)


def _classical():
    """ai.onnx.ml: attributes that contradict each other."""
    x = {"x": (FLOAT, ["N", 2])}
    asks = [{"x": ([1, 2], [1, 2])}, {"x": ([1, 2], [None, None])}, {"x": ([0, 2], [])}]

    def ml(name, op, out=FLOAT, outputs=("y",), **attributes):
        return hazard(f"ml_{name}", [node(op, ["x"], list(outputs), domain="ai.onnx.ml", **attributes)], x, asks, out=(out, None))

    def tree(**changes):
        """One split with two leaves, of regression or of two classes, with one thing wrong."""
        made = {
            "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_values": [0.5, 0.0, 0.0], "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
            "nodes_missing_value_tracks_true": [0, 0, 0], "nodes_hitrates": [1.0, 1.0, 1.0],
        }  # fmt: skip
        return made | changes

    leaves = {"target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0], "n_targets": 1}
    classes = {"class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 1], "class_weights": [1.0, 2.0], "classlabels_int64s": [0, 1]}
    wrongs = {
        "good": {}, "root_is_its_own_child": {"nodes_truenodeids": [0, 0, 0]},
        "cycle": {"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0]},
        "child_beyond": {"nodes_truenodeids": [99, 0, 0]}, "child_negative": {"nodes_truenodeids": [-1, 0, 0]},
        "child_huge": {"nodes_falsenodeids": [HUGE, 0, 0]}, "feature_beyond": {"nodes_featureids": [1000, 0, 0]},
        "feature_far": {"nodes_featureids": [1 << 30, 0, 0]}, "feature_negative": {"nodes_featureids": [-1, 0, 0]}, "feature_huge": {"nodes_featureids": [HUGE, 0, 0]},
        "lists_differ": {"nodes_values": [0.5]}, "lists_differ_in_modes": {"nodes_modes": ["LEAF"]}, "mode_unknown": {"nodes_modes": ["BRANCH_WAT", "LEAF", "LEAF"]},
        "ids_twice": {"nodes_nodeids": [0, 0, 0]}, "tree_ids_mixed": {"nodes_treeids": [0, 1, 0]}, "no_leaf": {"nodes_modes": ["BRANCH_EQ"] * 3},
        "all_children_the_root": {"nodes_modes": ["BRANCH_LEQ"] * 3}, "value_nan": {"nodes_values": [float("nan"), 0.0, 0.0]},
    }  # fmt: skip
    for name, wrong in wrongs.items():
        yield ml(f"trees_{name}", "TreeEnsembleRegressor", **tree(**wrong), **leaves)
    for name, wrong in {
        "target_beyond": {"target_ids": [99, 0]}, "target_negative": {"target_ids": [-1, 0]}, "targets_huge": {"n_targets": 1 << 40}, "targets_none": {"n_targets": 0},
        "targets_negative": {"n_targets": -3}, "leaf_nowhere": {"target_nodeids": [77, 78]}, "lists_differ": {"target_weights": [1.0]}, "tree_nowhere": {"target_treeids": [9, 9]},
        "far_target": {"target_ids": [1 << 40, 0]},
    }.items():  # fmt: skip
        yield ml(f"regressor_{name}", "TreeEnsembleRegressor", **tree(), **(leaves | wrong))
    for name, wrong in {
        "good": {}, "class_beyond": {"class_ids": [0, 99]}, "class_negative": {"class_ids": [-1, 1]}, "no_labels": {"classlabels_int64s": [0]},
        "lists_differ": {"class_weights": [1.0]}, "leaf_nowhere": {"class_nodeids": [77, 78]}, "class_huge": {"class_ids": [1 << 40, 1]},
    }.items():  # fmt: skip
        yield ml(f"classifier_{name}", "TreeEnsembleClassifier", INT64, ("y", "p"), **tree(), **(classes | wrong))
    deep = 100_000
    chain = {
        "nodes_treeids": [0] * (2 * deep + 1), "nodes_nodeids": list(range(2 * deep + 1)), "nodes_featureids": [0] * (2 * deep + 1),
        "nodes_modes": ["BRANCH_LEQ", "LEAF"] * deep + ["LEAF"], "nodes_values": [0.5] * (2 * deep + 1),
        "nodes_truenodeids": [i + 1 if i % 2 == 0 else 0 for i in range(2 * deep)] + [0],
        "nodes_falsenodeids": [i + 2 if i % 2 == 0 else 0 for i in range(2 * deep)] + [0],
    }  # fmt: skip
    yield ml("trees_100_000_deep", "TreeEnsembleRegressor", **chain, **(leaves | {"target_nodeids": [1, 2 * deep]}))
    for name, more in {"good": {}, "labels_of_strings": {"classlabels_strings": ["a", "b"]}, "coefficients_few": {"coefficients": [1.0]},
                       "coefficients_many": {"coefficients": [1.0] * 999}, "intercepts_many": {"intercepts": [1.0] * 999},
                       "labels_many": {"classlabels_ints": list(range(999))}, "labels_none": {"classlabels_ints": [0]}}.items():  # fmt: skip
        made = {"coefficients": [1.0, 2.0, 3.0, 4.0], "intercepts": [0.0, 0.0], "classlabels_ints": [0, 1]} | more
        yield ml(f"linear_{name}", "LinearClassifier", INT64, ("y", "p"), **made)
    for name, more in {"good": {}, "targets_many": {"targets": 999}, "targets_none": {"targets": 0}, "targets_negative": {"targets": -1}, "targets_huge": {"targets": 1 << 40}}.items():
        yield ml(f"linear_regressor_{name}", "LinearRegressor", **({"coefficients": [1.0, 2.0], "intercepts": [0.0], "targets": 1} | more))
    machine = {"kernel_type": "RBF", "kernel_params": [1.0, 0.0, 3.0], "coefficients": [1.0, 1.0], "support_vectors": [1.0, 2.0, 3.0, 4.0], "rho": [0.5],
               "vectors_per_class": [1, 1], "classlabels_ints": [0, 1]}  # fmt: skip
    for name, more in {"good": {}, "vectors_few": {"support_vectors": [1.0]}, "vectors_many_per_class": {"vectors_per_class": [1 << 30, 1 << 30]},
                       "vectors_negative": {"vectors_per_class": [-1, -1]}, "rho_none": {"rho": [0.5] * 0 or [0.0]}, "classes_many": {"classlabels_ints": list(range(99))},
                       "coefficients_few": {"coefficients": [1.0]}, "probabilities_few": {"prob_a": [1.0], "prob_b": [1.0], "classlabels_ints": [0, 1, 2], "vectors_per_class": [1, 1, 1]},
                       "parameters_few": {"kernel_params": [1.0]}}.items():  # fmt: skip
        yield ml(f"machine_{name}", "SVMClassifier", INT64, ("y", "p"), **(machine | more))
    for name, more in {"vectors_many": {"n_supports": 1 << 40}, "vectors_negative": {"n_supports": -1}, "vectors_few": {"support_vectors": [1.0], "n_supports": 2}}.items():
        made = {"kernel_type": "RBF", "kernel_params": [1.0, 0.0, 3.0], "coefficients": [1.0, 1.0], "support_vectors": [1.0, 2.0, 3.0, 4.0], "rho": [0.5]}
        yield ml(f"machine_regressor_{name}", "SVMRegressor", **(made | more))
    yield ml("scaler_few", "Scaler", offset=[1.0], scale=[1.0, 2.0, 3.0])
    yield ml("imputer_few", "Imputer", imputed_value_floats=[1.0, 2.0, 3.0, 4.0, 5.0])
    yield ml("vectorizer_sizes", "FeatureVectorizer", inputdimensions=[1 << 40])
    yield ml("vectorizer_negative", "FeatureVectorizer", inputdimensions=[-5])
    yield ml("vectorizer_many", "FeatureVectorizer", inputdimensions=[2, 2, 2])
    yield ml("binarizer", "Binarizer", threshold=float("nan"))
    yield ml("normalizer_unknown", "Normalizer", norm="L9")
    yield ml("encoder_differs", "LabelEncoder", keys_floats=[1.0, 2.0], values_floats=[1.0])
    yield ml("one_hot_of_none", "OneHotEncoder", cats_int64s=[1], zeros=0)
    encoder = node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_strings=["a"], values_int64s=[1, 2])
    yield hazard("ml_encoder_of_texts_differs", [encoder], {"x": (STRING, ["N"])}, [{"x": ["a"]}], (INT64, None))
    mapper = node("CategoryMapper", ["x"], ["y"], domain="ai.onnx.ml", cats_strings=["a", "b"], cats_int64s=[1])
    yield hazard("ml_mapper_differs", [mapper], {"x": (STRING, ["N"])}, [{"x": ["b"]}], (INT64, None))


def _contributed():
    """com.microsoft: operators that are built in and less looked at."""
    def ms(name, op, inputs, asks, out=(FLOAT, None), initializers=(), extra_outputs=(), node_inputs=None, **attributes):
        made = node(op, node_inputs or list(inputs), ["y", *extra_outputs], domain="com.microsoft", **attributes)
        return hazard(f"ms_{name}", [made], inputs, asks, out, initializers)

    table = [tensor("words", FLOAT, [4, 8], [0.5] * 32), tensor("places", FLOAT, [4, 8], [0.5] * 32), tensor("segments", FLOAT, [2, 8], [0.5] * 16),
             tensor("g", FLOAT, [8], [1.0] * 8), tensor("b", FLOAT, [8], [0.0] * 8)]  # fmt: skip
    ids = {"i": (INT32, ["N", "L"]), "s": (INT32, ["N", "L"])}
    wrong = [(p, s) for p in (4, -1, (1 << 31) - 1, -(1 << 31), 0) for s in (0, 2, -1, (1 << 31) - 1)]
    yield ms("embed_layer_norm", "EmbedLayerNormalization", ids, [{"i": ([1, 1], [p]), "s": ([1, 1], [s])} for p, s in wrong] + [{"i": ([1, 9], [0] * 9), "s": ([1, 9], [0] * 9)}],
             initializers=table, extra_outputs=("m",), node_inputs=["i", "s", "words", "places", "segments", "g", "b"])  # fmt: skip
    weights = [tensor("w", FLOAT, [4, 12], [0.1] * 48), tensor("bias", FLOAT, [12], [0.1] * 12)]
    mask = {"x": (FLOAT, ["B", "S", 4]), "mask": (INT32, None)}
    yield ms("attention_mask", "Attention", mask, [{"x": ([1, 2, 4], [1] * 8), "mask": (s, [v] * n)} for s, n in (([1], 1), ([2], 2), ([1, 2], 2), ([1, 9], 9), ([3], 3)) for v in (-5, 1 << 30)],
             initializers=weights, node_inputs=["x", "w", "bias", "mask"], num_heads=2)  # fmt: skip
    for name, heads in {"zero": 0, "negative": -1, "huge": 1 << 40, "three": 3}.items():
        yield ms(f"attention_heads_{name}", "Attention", {"x": (FLOAT, ["B", "S", 4])}, [{"x": ([1, 2, 4], [1] * 8)}], initializers=weights, node_inputs=["x", "w", "bias"], num_heads=heads)
    rotary = [tensor("cos", FLOAT, [2, 2], [1.0] * 4), tensor("sin", FLOAT, [2, 2], [0.0] * 4)]
    yield ms("rotary_positions", "RotaryEmbedding", {"x": (FLOAT, [1, "S", 4]), "p": (INT64, None)}, [{"x": ([1, 1, 4], [1] * 4), "p": ([1], [p])} for p in PLACES] + [{"x": ([1, 1, 4], [1] * 4), "p": ([1, 1], [p])} for p in PLACES],
             initializers=rotary, node_inputs=["x", "p", "cos", "sin"])  # fmt: skip
    quantised = [tensor("q", UINT8, [2, 8], [1] * 16), tensor("scales", FLOAT, [2], [1.0] * 2)]
    for name, k, n, block, bits in (("good", 16, 2, 16, 4), ("k_wrong", 1 << 20, 2, 16, 4), ("n_wrong", 16, 1 << 20, 16, 4), ("block_zero", 16, 2, 0, 4), ("bits_three", 16, 2, 16, 3), ("k_negative", -16, 2, 16, 4)):
        yield ms(f"mat_mul_4_bits_{name}", "MatMulNBits", {"x": (FLOAT, ["M", 16])}, [{"x": ([1, 16], [1] * 16)}], initializers=[tensor("q", UINT8, [2, 1, 8], [1] * 16), quantised[1]], node_inputs=["x", "q", "scales"], K=k, N=n, block_size=block, bits=bits)
    yield ms("gather_quantised", "GatherBlockQuantized", {"i": (INT64, ["N"])}, [{"i": [p]} for p in PLACES], initializers=quantised, node_inputs=["q", "i", "scales"], block_size=16)
    yield ms("gather_nd_ms", "GatherND", {"i": (INT64, ["N", 1])}, [{"i": ([1, 1], [p])} for p in PLACES], initializers=[tensor("t", FLOAT, [3], [1.0] * 3)], node_inputs=["t", "i"])
    yield ms("n_gram_repeat", "NGramRepeatBlock", {"i": (INT64, ["B", "L"]), "x": (FLOAT, ["B", "V"])},
             [{"i": ([1, 3], [p, p, p]), "x": ([1, 3], [1, 2, 3])} for p in PLACES], ngram_size=1)  # fmt: skip
    yield ms("crop_and_resize", "CropAndResize", {"x": (FLOAT, [1, 1, 2, 2]), "r": (FLOAT, ["N", 4]), "b": (INT32, ["N"]), "s": (INT32, [2])},
             [{"x": ([1, 1, 2, 2], [1] * 4), "r": ([1, 4], [0, 0, 1, 1]), "b": [b], "s": s} for b, s in ((9, [2, 2]), (-1, [2, 2]), (0, [-1, -1]), (0, [1 << 30, 1 << 30]), (0, [0, 0]))])  # fmt: skip
    yield ms("word_conv", "WordConvEmbedding", {"i": (INT32, ["N", "L"])}, [{"i": ([1, 2], [p, p])} for p in (9, -1, 1 << 30)],
             initializers=[tensor("cw", FLOAT, [1, 1, 2, 2], [1.0] * 4), tensor("cb", FLOAT, [1], [1.0]), tensor("ce", FLOAT, [3, 2], [1.0] * 6)], node_inputs=["i", "cw", "cb", "ce"],
             embedding_size=1, conv_window_size=2, char_embedding_size=2)  # fmt: skip
    yield ms("murmur_hash", "MurmurHash3", {"x": (STRING, ["N"])}, [{"x": ["", "\0", "é"]}], (UINT64, None))
    yield ms("unfold", "UnfoldTensor", {"x": (FLOAT, ["N"])}, [{"x": [1, 2]}], dim=9, size=1 << 40, step=0)
    yield ms("range_ms", "Range", {"a": (INT64, []), "b": (INT64, []), "d": (INT64, [])}, [{"a": [0], "b": [HUGE], "d": [1]}, {"a": [0], "b": [1], "d": [0]}], (INT64, None))
    yield ms("pad_ms", "Pad", {"x": (FLOAT, ["N"]), "p": (INT64, ["K"])}, [{"x": [1], "p": p} for p in ([HUGE, 0], [-5, -5], [1])])
    yield ms("expand_dims", "ExpandDims", {"x": (FLOAT, ["N"]), "a": (INT32, [])}, [{"x": [1], "a": [a]} for a in (9, -9, 1 << 30, -(1 << 31))])
    yield ms("dynamic_time_warping", "DynamicTimeWarping", {"x": (FLOAT, [1, "M", "N"])}, [{"x": ([1, 0, 0], [])}, {"x": ([1, 1, 2], [None, None])}], (INT32, None))
    yield ms("sample_op", "SampleOp", {"x": (FLOAT, ["N"])}, [{"x": []}])
    yield ms("bifurcation", "BifurcationDetector", {"i": (INT64, ["N"]), "c": (INT64, ["M"]), "m": (INT64, [])}, [{"i": [1, 2], "c": [1], "m": [p]} for p in PLACES], (INT64, None), extra_outputs=("z",), node_inputs=["i", "c", "m"])
    yield ms("transpose_mat_mul", "FusedMatMul", {"x": (FLOAT, ["N", "M"])}, [{"x": ([1, 2], [1, 2])}, {"x": ([0, 0], [])}], node_inputs=["x", "x"], transA=7, transB=-1)


def _loops():
    body = graph(
        [node("Identity", ["go_on"], ["go_on_next"]), node("Neg", ["v_in"], ["v_out"])],
        [port("i", INT64, []), port("go_on", BOOL, []), port("v_in", FLOAT, None)],
        [port("go_on_next", BOOL, []), port("v_out", FLOAT, None)],
    )
    inputs = {"n": (INT64, []), "x": (FLOAT, ["N"])}
    yield hazard("loop_count_of_request", [node("Loop", ["n", "", "x"], ["y"], body=body)], inputs,
                 [{"n": [n], "x": [1]} for n in (0, -1, I64_MIN, 3, HUGE, I64_MAX)], (FLOAT, None))  # fmt: skip
    yield hazard("loop_condition_of_request", [node("Loop", ["", "c", "x"], ["y"], body=body)], {"c": (BOOL, []), "x": (FLOAT, ["N"])},
                 [{"c": [False], "x": [1]}, {"c": [True], "x": [1]}], (FLOAT, None))  # fmt: skip
    growing = graph(
        [node("Identity", ["go_on"], ["go_on_next"]), node("Concat", ["v_in", "v_in"], ["v_out"], axis=0)],
        [port("i", INT64, []), port("go_on", BOOL, []), port("v_in", FLOAT, None)],
        [port("go_on_next", BOOL, []), port("v_out", FLOAT, None)],
    )
    yield hazard("loop_growing", [node("Loop", ["n", "", "x"], ["y"], body=growing)], inputs, [{"n": [n], "x": [1]} for n in (3, 60)], (FLOAT, None))
    true = [tensor("true", BOOL, [], [True])]
    element = Tensor(tensor("", FLOAT, [1], [1.0]))
    quadratic = [node("ConstantOfShape", ["s"], ["m"], value=element), node("MatMul", ["m", "m"], ["a"]), node("MatMul", ["a", "m"], ["b"]), node("ReduceMax", ["b"], ["y"])]
    yield hazard("work_of_request", quadratic, {"s": (INT64, [2])}, [{"s": [4, 4]}, {"s": [1 << 13, 1 << 13]}], initializers=true)
    steps = [node("Expand", ["x", "s"], ["e"]), node("Sin", ["e"], ["f"]), node("ReduceSum", ["f"], ["y"], keepdims=0)]
    yield hazard("memory_of_request", steps, {"x": (FLOAT, ["N"]), "s": (INT64, ["K"])}, [{"x": [1], "s": [1 << 20]}, {"x": [1], "s": [3 << 30]}, {"x": [1], "s": [1 << 38]}])

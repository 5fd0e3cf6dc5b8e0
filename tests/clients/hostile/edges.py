"""One operator each, of those that seem harmless, asked with shapes at the edge: no elements, no dimensions, many,
unlike.

Kernels divide by sizes, and read what a shape promises: an empty axis or a scalar is where they forget to look.
"""

import itertools

from .folders import HostileModel, ask
from .hazards import TYPES
from .onnx_bytes import BOOL, FLOAT, INT8, INT32, INT64, STRING, UINT8, file, graph, integers, node, port, tensor

SHAPES = [
    [],
    [0],
    [1],
    [3],
    [0, 4],
    [4, 0],
    [0, 0],
    [2, 3],
    [1, 0, 2],
    [0, 1, 1, 1],
    [1, 0, 1, 1],
    [1, 1, 0, 0],
    [1, 1, 2, 2],
    [1, 4, 2, 2],
    [2, 2, 2],
    [1] * 9,
    [0] * 9,
    [1, 1, 1, 1, 1],
]
PAIRS = [
    ([], []),
    ([0], [0]),
    ([0], [1]),
    ([1], [0]),
    ([3], [2]),
    ([2, 3], [3, 2]),
    ([0, 3], [3, 2]),
    ([2, 0], [0, 2]),
    ([2, 3], [3, 0]),
    ([], [2, 3]),
    ([2, 3], []),
    ([1, 1, 2, 2], [1, 1, 1, 1]),
    ([1, 0, 2, 2], [1, 0, 1, 1]),
    ([1, 1, 2, 2], [0, 1, 1, 1]),
    ([1, 1, 0, 0], [1, 1, 1, 1]),
    ([1, 1, 2, 2], [1, 1, 0, 0]),
    ([1, 2, 2, 2], [3, 1, 1, 1]),
    ([2, 2, 2], [0, 2, 2]),
    ([1] * 9, [1] * 9),
]
VALUES = {
    FLOAT: [0, -1, None, 3e38],
    INT32: [0, -1, 2147483647, -2147483648],
    INT64: [0, -1, (1 << 63) - 1, -(1 << 63)],
    UINT8: [0, 255],
    INT8: [0, -128],
    BOOL: [False, True],
    STRING: ["", "a"],
}

# Of one input: operator, attributes, opset.
ONE = [
    ("ArgMax", {}, 17),
    ("ArgMin", {"axis": -1, "keepdims": 0}, 17),
    ("ArgMax", {"select_last_index": 1}, 17),
    ("AveragePool", {"kernel_shape": [1, 1]}, 17),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 0}, 17),
    ("MaxPool", {"kernel_shape": [1, 1]}, 17),
    ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [9, 9]}, 17),
    ("LpPool", {"kernel_shape": [1, 1]}, 17),
    ("GlobalAveragePool", {}, 17),
    ("GlobalMaxPool", {}, 17),
    ("LRN", {"size": 3}, 17),
    ("Softmax", {}, 17),
    ("Softmax", {"axis": 1}, 11),
    ("LogSoftmax", {"axis": 0}, 17),
    ("Hardmax", {}, 17),
    ("Hardmax", {"axis": 1}, 11),
    ("LpNormalization", {"axis": 0}, 17),
    ("MeanVarianceNormalization", {}, 17),
    ("DepthToSpace", {"blocksize": 2}, 17),
    ("SpaceToDepth", {"blocksize": 2}, 17),
    ("SpaceToDepth", {"blocksize": 3}, 17),
    ("Flatten", {"axis": 1}, 17),
    ("Flatten", {"axis": 0}, 17),
    ("Transpose", {}, 17),
    ("Transpose", {"perm": [1, 0]}, 17),
    ("NonZero", {}, 17),
    ("Shape", {"start": -9, "end": 9}, 17),
    ("Size", {}, 17),
    ("Trilu", {}, 17),
    ("Squeeze", {}, 17),
    ("Squeeze", {"axes": [0]}, 11),
    ("Unsqueeze", {"axes": [0, 2]}, 11),
    ("ReduceMean", {}, 17),
    ("ReduceMean", {"axes": [0]}, 17),
    ("ReduceMean", {"axes": [-1], "keepdims": 0}, 17),
    ("ReduceMax", {}, 17),
    ("ReduceMax", {"axes": [0]}, 17),
    ("ReduceMin", {"axes": [-1]}, 17),
    ("ReduceProd", {"axes": [0]}, 17),
    ("ReduceL1", {"axes": [0]}, 17),
    ("ReduceL2", {}, 17),
    ("ReduceLogSum", {"axes": [0]}, 17),
    ("ReduceLogSumExp", {"axes": [0]}, 17),
    ("ReduceSumSquare", {"axes": [0, 1]}, 17),
    ("ReduceSum", {"axes": [0]}, 11),
    ("ReduceMean", {"axes": [0, 2]}, 17),
    ("Split", {}, 17),
    ("Split", {"axis": -1, "split": [1, 2]}, 11),
    ("Slice", {"starts": [1], "ends": [9], "axes": [0]}, 9),
    ("TopK", {"k": 1}, 1),
    ("Dropout", {}, 17),
    ("DynamicQuantizeLinear", {}, 17),
    ("Cast", {"to": 1}, 17),
    ("Cast", {"to": 8}, 17),
    ("Cast", {"to": 7}, 17),
    ("Clip", {}, 17),
    ("Gelu", {}, 20),
    ("CumSum", {}, 17),
    ("Pow", {}, 17),
    ("Erf", {}, 17),
    ("Identity", {}, 17),
    ("InstanceNormalization", {}, 17),
    ("StringNormalizer", {}, 17),
    ("StringNormalizer", {"case_change_action": "LOWER", "stopwords": ["a"]}, 17),
    (
        "TfIdfVectorizer",
        {
            "mode": "TF",
            "min_gram_length": 1,
            "max_gram_length": 1,
            "max_skip_count": 0,
            "ngram_counts": [0],
            "ngram_indexes": [0],
            "pool_int64s": [0],
        },
        17,
    ),
    (
        "TfIdfVectorizer",
        {
            "mode": "IDF",
            "min_gram_length": 2,
            "max_gram_length": 2,
            "max_skip_count": 3,
            "ngram_counts": [0, 0],
            "ngram_indexes": [0],
            "pool_int64s": [0, 0],
        },
        17,
    ),
]
ONE_ML = [
    ("Binarizer", {}),
    ("FeatureVectorizer", {"inputdimensions": [3]}),
    ("Imputer", {"imputed_value_floats": [1.0, 2.0]}),
    ("Imputer", {"imputed_value_int64s": [1]}),
    ("LabelEncoder", {"keys_int64s": [0], "values_floats": [1.0]}),
    ("LabelEncoder", {"keys_floats": [0.0], "values_int64s": [1]}),
    ("LabelEncoder", {"keys_strings": ["a"], "values_int64s": [1]}),
    ("LinearClassifier", {"coefficients": [1.0, 2.0, 3.0, 4.0], "intercepts": [0.0, 0.0], "classlabels_ints": [0, 1]}),
    ("LinearClassifier", {"coefficients": [1.0, 2.0], "classlabels_ints": [0, 1], "post_transform": "LOGISTIC"}),
    ("LinearRegressor", {"coefficients": [1.0, 2.0, 3.0], "targets": 1}),
    ("Normalizer", {"norm": "L2"}),
    ("Normalizer", {"norm": "MAX"}),
    ("OneHotEncoder", {"cats_int64s": [0, 1], "zeros": 1}),
    ("OneHotEncoder", {"cats_strings": ["a"], "zeros": 1}),
    ("Scaler", {"offset": [1.0], "scale": [1.0]}),
    ("Scaler", {"offset": [1.0, 2.0, 3.0], "scale": [1.0, 2.0, 3.0]}),
    (
        "TreeEnsembleRegressor",
        {
            "nodes_treeids": [0, 0, 0],
            "nodes_nodeids": [0, 1, 2],
            "nodes_featureids": [2, 0, 0],
            "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_values": [0.5, 0.0, 0.0],
            "nodes_truenodeids": [1, 0, 0],
            "nodes_falsenodeids": [2, 0, 0],
            "target_treeids": [0, 0],
            "target_nodeids": [1, 2],
            "target_ids": [0, 0],
            "target_weights": [1.0, 2.0],
            "n_targets": 1,
        },
    ),
]
# Of two inputs.
TWO = [
    ("Add", {}, 17),
    ("Mul", {}, 17),
    ("Sub", {}, 17),
    ("Div", {}, 17),
    ("Pow", {}, 17),
    ("Max", {}, 17),
    ("Mean", {}, 17),
    ("MatMul", {}, 17),
    ("Gemm", {}, 17),
    ("Gemm", {"transA": 1, "transB": 1}, 17),
    ("Concat", {"axis": 0}, 17),
    ("Concat", {"axis": -1}, 17),
    ("Equal", {}, 17),
    ("PRelu", {}, 17),
    ("Conv", {}, 17),
    ("Conv", {"kernel_shape": [1, 1], "group": 2}, 17),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [3, 3]}, 17),
    ("MatMulInteger", {}, 17),
    ("ConvInteger", {}, 17),
    ("QuantizeLinear", {}, 17),
    ("DequantizeLinear", {}, 17),
    ("CastLike", {}, 17),
    ("LayerNormalization", {}, 17),
    ("LayerNormalization", {"axis": 0}, 17),
    ("CumSum", {}, 17),
    ("Gather", {}, 17),
    ("GatherElements", {}, 17),
    ("Reshape", {}, 17),
    ("Unsqueeze", {}, 17),
    ("Squeeze", {}, 17),
    ("Split", {}, 17),
    ("TopK", {}, 17),
    ("ReduceSum", {}, 17),
    ("ReduceMean", {}, 18),
    ("ReduceMax", {}, 18),
    ("RMSNormalization", {}, 23),
]
# The types of second inputs that are no data.
SECOND = {
    "CumSum": INT64,
    "Gather": INT64,
    "GatherElements": INT64,
    "Reshape": INT64,
    "Unsqueeze": INT64,
    "Squeeze": INT64,
    "Split": INT64,
    "TopK": INT64,
    "ReduceSum": INT64,
    "ReduceMean": INT64,
    "ReduceMax": INT64,
    "QuantizeLinear": FLOAT,
    "DequantizeLinear": FLOAT,
}
THREE = [
    ("InstanceNormalization", {}, 17),
    ("GroupNormalization", {"num_groups": 1}, 21),
    ("GroupNormalization", {"num_groups": 2}, 18),
    ("LayerNormalization", {}, 17),
    ("Where", {}, 17),
    ("Gemm", {}, 17),
    ("Conv", {}, 17),
    ("QuantizeLinear", {}, 17),
]
MICROSOFT = [
    ("BiasGelu", 2),
    ("FastGelu", 2),
    ("Gelu", 1),
    ("QuickGelu", 1),
    ("FusedMatMul", 2),
    ("FusedGemm", 2),
    ("FusedConv", 2),
    ("SkipLayerNormalization", 3),
    ("SimplifiedLayerNormalization", 2),
    ("DynamicQuantizeMatMul", 2),
]
TWO_OUTPUTS = ("Split", "TopK")


def models():
    counted = itertools.count()
    for element, (operator, attributes, opset) in itertools.product((FLOAT, INT32, INT64, UINT8, STRING), ONE):
        if (element == STRING) == (operator in ("StringNormalizer",)) or (
            element == STRING and operator in ("Identity", "Shape", "Squeeze", "Flatten", "Transpose", "Cast")
        ):
            yield one(counted, operator, element, attributes, opset)
    for element, (operator, attributes) in itertools.product((FLOAT, INT64, STRING), ONE_ML):
        yield one(counted, operator, element, attributes, 17, "ai.onnx.ml")
    for element, (operator, attributes, opset) in itertools.product((FLOAT, INT32, UINT8), TWO):
        yield several(counted, operator, [element, SECOND.get(operator, element)], attributes, opset)
    for operator, attributes, opset in THREE:
        yield several(
            counted,
            operator,
            [BOOL if operator == "Where" else FLOAT, FLOAT, UINT8 if operator == "QuantizeLinear" else FLOAT],
            attributes,
            opset,
        )
    yield from _hidden_ranks()
    yield from _ranks_of_values()
    for operator, inputs in MICROSOFT:
        second = UINT8 if operator == "DynamicQuantizeMatMul" else FLOAT
        yield several(counted, operator, [FLOAT, second, FLOAT][:inputs], {}, 17, "com.microsoft")


def _hidden_ranks():
    """A rank that the file says and a request undoes: Squeeze drops each size of 1. ONNX Runtime's convolutions end the
    process where both their inputs have fewer than two dimensions."""
    shapes = [[2, 2, 2, 2], [1, 1, 1, 1], [1, 1, 1, 3], [0, 1, 1, 1], [1, 2, 3, 1], [1, 1, 4, 1]]
    squeezed = node("Squeeze", ["a"], ["s"])
    for name, operator, attributes in (
        ("convolution", "Conv", {}),
        ("pool", "MaxPool", {"kernel_shape": [1, 1]}),
        ("mean_pool", "GlobalAveragePool", {}),
        ("transposed", "ConvTranspose", {}),
        ("instances", "InstanceNormalization", {}),
        ("product", "MatMul", {}),
        ("gemm", "Gemm", {}),
        ("rows", "Gather", {}),
        ("blocks", "SpaceToDepth", {"blocksize": 1}),
        ("layer", "LayerNormalization", {}),
        ("skip", "SkipLayerNormalization", {}),
        ("softmax", "Softmax", {"axis": 1}),
        ("lrn", "LRN", {"size": 1}),
        ("trilu", "Trilu", {}),
        ("split", "Split", {}),
        ("labels", "LinearRegressor", {"coefficients": [1.0, 2.0], "targets": 1}),
        ("scaler", "Scaler", {"offset": [1.0, 2.0], "scale": [1.0, 2.0]}),
        ("normal", "Normalizer", {"norm": "L2"}),
        ("features", "FeatureVectorizer", {"inputdimensions": [2]}),
        ("batch", "BatchNormalization", {}),
    ):
        inputs = ["s"] * {
            "Conv": 2,
            "ConvTranspose": 2,
            "InstanceNormalization": 3,
            "MatMul": 2,
            "Gemm": 3,
            "Gather": 1,
            "LayerNormalization": 3,
            "SkipLayerNormalization": 3,
            "BatchNormalization": 5,
        }.get(operator, 1)
        domain = {
            "LinearRegressor": "ai.onnx.ml",
            "Scaler": "ai.onnx.ml",
            "Normalizer": "ai.onnx.ml",
            "FeatureVectorizer": "ai.onnx.ml",
            "SkipLayerNormalization": "com.microsoft",
        }.get(operator, "")
        made = node(operator, inputs, ["y"], domain, **attributes)
        graph_proto = graph([squeezed, made], [port("a", FLOAT, ["p", "q", "r", "s"])], [port("y", FLOAT, None)])
        asks = tuple(ask(a=_filled(FLOAT, shape, 1)) for shape in shapes)
        yield HostileModel(f"edge_hidden_rank_{name}", file(graph_proto), asks=asks)


def _ranks_of_values():
    """A rank that hangs on how many values are not 0: 3 for four of them, none for a single one. The input's sizes are
    fixed, and every operator is bounded by its inputs' sizes. ONNX Runtime's Conv and Concat end the process."""
    axes = [integers("a12", 1, 2), integers("a02", 0, 2), integers("a01", 0, 1), integers("first", 0)]
    cube = [
        node("NonZero", ["a"], ["places"]),
        node("Cast", ["places"], ["numbers"], to=FLOAT),
        node("Squeeze", ["numbers", "first"], ["row"]),
        node("Unsqueeze", ["row", "a12"], ["u"]),
        node("Unsqueeze", ["row", "a02"], ["v"]),
        node("Unsqueeze", ["row", "a01"], ["w"]),
        node("Add", ["u", "v"], ["uv"]),
        node("Add", ["uv", "w"], ["uvw"]),
        node("Squeeze", ["uvw"], ["s"]),
    ]
    weight = tensor("kernel", FLOAT, [1, 1, 1], [1.0])
    for name, made in {
        "convolution": node("Conv", ["s", "s"], ["c"]),
        "convolution_of_one": node("Conv", ["s", "kernel"], ["c"]),
        "joined": node("Concat", ["kernel", "s"], ["c"], axis=2),
        "joined_first": node("Concat", ["s", "kernel"], ["c"], axis=0),
        "joined_last": node("Concat", ["row", "s"], ["c"], axis=-1),
        "pool": node("MaxPool", ["s"], ["c"], kernel_shape=[1]),
        "mean_pool": node("GlobalAveragePool", ["s"], ["c"]),
        "product": node("MatMul", ["s", "s"], ["c"]),
        "gemm": node("Gemm", ["s", "s"], ["c"]),
        "instances": node("InstanceNormalization", ["s", "s", "s"], ["c"]),
        "layer": node("LayerNormalization", ["s", "s"], ["c"]),
        "lrn": node("LRN", ["s"], ["c"], size=1),
        "skip": node("SkipLayerNormalization", ["s", "s", "s"], ["c"], "com.microsoft"),
        "fused": node("FusedConv", ["s", "s"], ["c"], "com.microsoft"),
        "transposed": node("Transpose", ["s"], ["c"], perm=[2, 1, 0]),
        "softmax": node("Softmax", ["s"], ["c"], axis=2),
        "features": node("FeatureVectorizer", ["s"], ["c"], "ai.onnx.ml", inputdimensions=[4]),
        "gathered": node("Gather", ["s", "first"], ["c"], axis=2),
    }.items():
        ending = node("ReduceMax", ["c"], ["y"], keepdims=0)
        graph_proto = graph([*cube, made, ending], [port("a", FLOAT, [4])], [port("y", FLOAT, [])], [*axes, weight])
        asks = tuple(
            ask(a=("FP32", [4], a)) for a in ([1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0])
        )
        yield HostileModel(f"edge_rank_of_values_{name}", file(graph_proto), asks=asks)


def _filled(element, shape, at):
    size = 1
    for dim in shape:
        size *= dim
    values = VALUES[element]
    return TYPES[element], shape, [values[(at + i) % len(values)] for i in range(size)]


def one(counted, operator, element, attributes, opset, domain=""):
    asks = [ask(a=_filled(element, shape, i)) for i, shape in enumerate(SHAPES)]
    return _model(counted, operator, [element], attributes, opset, domain, asks)


def several(counted, operator, elements, attributes, opset, domain=""):
    names = "abc"[: len(elements)]
    asks = []
    for i, (first, second) in enumerate(PAIRS):
        shapes = [first, second, second]
        asks.append(ask(**{n: _filled(e, s, i) for n, e, s in zip(names, elements, shapes)}))
    return _model(counted, operator, elements, attributes, opset, domain, asks)


def _model(counted, operator, elements, attributes, opset, domain, asks):
    names = "abc"[: len(elements)]
    outputs = ["y", "z"] if operator in TWO_OUTPUTS else ["y"]
    made = node(operator, list(names), outputs, domain, **attributes)
    ports = [port(n, e, None) for n, e in zip(names, elements)]
    # The output's type is left to be found: a file may say no more than its name.
    graph_proto = graph([made], ports, [b"\x0a\x01y"])
    name = f"edge_{next(counted)}_{operator.lower()}_{TYPES[elements[0]].lower()}"
    return HostileModel(name, file(graph_proto, opset), asks=tuple(asks))

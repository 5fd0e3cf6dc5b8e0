"""More models that load well and are dangerous to run: texts, attributes that no kernel was made for, and the
operators of ai.onnx.ml and com.microsoft, which are less looked at than others."""

from .hazards import HUGE, I64_MAX, I64_MIN, PLACES, hazard
from .onnx_bytes import (
    BOOL,
    FLOAT,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT64,
    integers,
    node,
    tensor,
)


def models():
    yield from _strings()
    yield from _attributes()
    yield from _classical()
    yield from _contributed()


TEXTS = [
    "",
    "\0",
    "a" * 100_000,
    "\udcff",
    "é\u0301\u202e",
    "😀" * 1000,
    "\n\r\x1b",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
]


def _strings():
    texts = {"x": (STRING, ["N"])}
    asks = [{"x": [t.encode("utf-8", "replace").decode()]} for t in TEXTS] + [{"x": []}]
    yield hazard(
        "cast_from_text",
        [node("Cast", ["x"], ["y"], to=INT64)],
        texts,
        [*asks, {"x": ["99999999999999999999"]}, {"x": ["0x"]}],
        (INT64, ["N"]),
    )
    yield hazard(
        "cast_text_to_float",
        [node("Cast", ["x"], ["y"], to=FLOAT)],
        texts,
        [*asks, {"x": ["1e999"]}, {"x": ["nan(99)"]}],
    )
    yield hazard("text_joined", [node("StringConcat", ["x", "x"], ["y"])], texts, asks, (STRING, ["N"]), opset=20)
    doubling = [
        node("StringConcat", ["x" if i == 0 else f"s{i}"] * 2, ["y" if i == 39 else f"s{i + 1}"]) for i in range(40)
    ]
    yield hazard("text_doubled_40_times", doubling, texts, [{"x": ["ab"]}], (STRING, ["N"]), opset=20)
    for name, pattern in {
        "evil": "(a|a)*$",
        "nested": "((a+)+)+$",
        "broken": "(((",
        "giant": "a{1000}{1000}",
        "empty": "",
        "not_utf8": b"\xff",
    }.items():
        yield hazard(
            f"regex_{name}",
            [node("RegexFullMatch", ["x"], ["y"], pattern=pattern)],
            texts,
            asks,
            (BOOL, ["N"]),
            opset=20,
        )
    yield hazard(
        "text_split", [node("StringSplit", ["x"], ["y", "n"], delimiter="a")], texts, asks, (STRING, None), opset=20
    )
    yield hazard(
        "text_split_by_nothing",
        [node("StringSplit", ["x"], ["y", "n"], delimiter="")],
        texts,
        asks,
        (STRING, None),
        opset=20,
    )
    for locale in ("", "C", "xx_XX", "../../etc", "\0"):
        name = {"": "none", "C": "c", "\0": "nul", "../../etc": "path"}.get(locale, "unknown")
        yield hazard(
            f"normalizer_locale_{name}",
            [node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER", locale=locale)],
            texts,
            asks,
            (STRING, None),
        )
    words = {"pad_value": "#", "mark": 1, "mincharnum": 1}
    for name, more in {
        "regex_evil": {"tokenexp": "(a|a)*b"},
        "regex_broken": {"tokenexp": "((("},
        "separator_evil": {"separators": ["(a*)*"]},
        "separator_empty": {"separators": [""]},
        "min_huge": {"tokenexp": ".", "mincharnum": 1 << 40},
        "min_negative": {"tokenexp": ".", "mincharnum": -1},
        "nothing": {},
    }.items():
        yield hazard(
            f"tokenizer_{name}",
            [node("Tokenizer", ["x"], ["y"], domain="com.microsoft", **(words | more))],
            texts,
            asks,
            (STRING, None),
        )
    for name, counts, indexes, pool in (
        ("good", [0, 1, 1], [0], [5]),
        ("counts_beyond", [0, 99], [0], [5]),
        ("counts_negative", [-7], [0], [5]),
        ("indexes_huge", [0], [HUGE], [5]),
        ("indexes_negative", [0], [-1], [5]),
        ("pool_empty", [0], [0], [0] * 0 or [0]),
        ("counts_backwards", [3, 1, 0], [0, 1, 2], [1, 2, 3]),
    ):
        made = node(
            "TfIdfVectorizer",
            ["i"],
            ["y"],
            mode="TF",
            min_gram_length=1,
            max_gram_length=3,
            max_skip_count=5,
            ngram_counts=counts,
            ngram_indexes=indexes,
            pool_int64s=pool,
        )
        yield hazard(f"grams_{name}", [made], {"i": (INT64, ["N"])}, [{"i": [5, 5, I64_MIN]}, {"i": []}])
    giant = node(
        "TfIdfVectorizer",
        ["i"],
        ["y"],
        mode="TF",
        min_gram_length=1,
        max_gram_length=1 << 40,
        max_skip_count=1 << 40,
        ngram_counts=[0],
        ngram_indexes=[0],
        pool_int64s=[5],
    )
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
        "lrn_size_huge": node("LRN", ["x"], ["y"], size=HUGE + 1),
        "lrn_size_even": node("LRN", ["x"], ["y"], size=2),
        "depth_to_space_zero": node("DepthToSpace", ["x"], ["y"], blocksize=0),
        "space_to_depth_zero": node("SpaceToDepth", ["x"], ["y"], blocksize=0),
        "space_to_depth_minus": node("SpaceToDepth", ["x"], ["y"], blocksize=-1),
        "flatten_far": node("Flatten", ["x"], ["y"], axis=99),
        "flatten_before": node("Flatten", ["x"], ["y"], axis=I64_MIN),
        "softmax_far": node("Softmax", ["x"], ["y"], axis=I64_MIN),
        "instance_norm": node("InstanceNormalization", ["x", "x", "x"], ["y"]),
        "grid_groups": node("GroupNormalization", ["x", "x", "x"], ["y"], num_groups=0),
        "concat_far": node("Concat", ["x", "x"], ["y"], axis=I64_MIN),
        "arg_max_far": node("ArgMax", ["x"], ["y"], axis=I64_MAX),
        "reduce_far": node("ReduceSum", ["x", ""], ["y"], axes=[I64_MIN]),
        "hardmax_far": node("Hardmax", ["x"], ["y"], axis=77),
        "lp_norm_of_9": node("LpNormalization", ["x"], ["y"], p=9, axis=77),
        "shape_slices": node("Shape", ["x"], ["y"], start=I64_MIN, end=I64_MAX),
        "transposed_giant": node("ConvTranspose", ["x", "x"], ["y"], strides=[1 << 30, 1 << 30]),
        "convolution_of_itself_grouped": node("Conv", ["x", "x"], ["y"], group=-1),
        "einsum_odd": node("Einsum", ["x", "x"], ["y"], equation="ab...,...->" + "z" * 60),
        "einsum_empty": node("Einsum", ["x"], ["y"], equation=""),
        "einsum_giant": node(
            "Einsum", ["x"] * 6, ["y"], equation="abcd,efgh,ijkl,mnop,qrst,uvwx->" + "abcdefghijklmnopqrstuvwx"
        ),
    }.items():
        yield hazard(name, [made], image, asks)
    for name, made in {
        "multinomial_huge": node("Multinomial", ["x2"], ["y"], sample_size=(1 << 31) - 1),
        "multinomial_negative": node("Multinomial", ["x2"], ["y"], sample_size=-1),
        "bernoulli": node("Bernoulli", ["x2"], ["y"]),
        "random_uniform_giant": node("RandomUniform", [], ["y"], shape=[1 << 40]),
        "split_in_zero": node("Split", ["x2"], ["y"], num_outputs=0),
        "split_in_billion": node("Split", ["x2"], ["y"], num_outputs=1 << 40),
    }.items():
        nodes = [node("Unsqueeze", ["x", "zero"], ["x2"]), *([node("Identity", ["x"], ["unused"])]), made]
        yield hazard(
            name,
            nodes,
            x,
            [*one, {"x": [None, -5]}],
            initializers=[integers("zero", 0)],
            opset=18 if "split" in name else 17,
        )
    recurrent = {"huge": HUGE, "negative": -1, "zero": 0}
    for name, size in recurrent.items():
        made = node("LSTM", ["x3", "w", "r"], ["y"], hidden_size=size)
        nodes = [node("Unsqueeze", ["x", "axes"], ["x3"]), made]
        weights = [
            tensor("w", FLOAT, [1, 4, 1], [1.0] * 4),
            tensor("r", FLOAT, [1, 4, 1], [1.0] * 4),
            integers("axes", 1, 2),
        ]
        yield hazard(f"lstm_hidden_{name}", nodes, x, one, initializers=weights)


def _classical():
    """ai.onnx.ml: attributes that contradict each other."""
    x = {"x": (FLOAT, ["N", 2])}
    asks = [{"x": ([1, 2], [1, 2])}, {"x": ([1, 2], [None, None])}, {"x": ([0, 2], [])}]

    def ml(name, op, out=FLOAT, outputs=("y",), **attributes):
        return hazard(
            f"ml_{name}", [node(op, ["x"], list(outputs), domain="ai.onnx.ml", **attributes)], x, asks, out=(out, None)
        )

    def tree(**changes):
        """One split with two leaves, of regression or of two classes, with one thing wrong."""
        made = {
            "nodes_treeids": [0, 0, 0],
            "nodes_nodeids": [0, 1, 2],
            "nodes_featureids": [0, 0, 0],
            "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_values": [0.5, 0.0, 0.0],
            "nodes_truenodeids": [1, 0, 0],
            "nodes_falsenodeids": [2, 0, 0],
            "nodes_missing_value_tracks_true": [0, 0, 0],
            "nodes_hitrates": [1.0, 1.0, 1.0],
        }
        return made | changes

    leaves = {
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    classes = {
        "class_treeids": [0, 0],
        "class_nodeids": [1, 2],
        "class_ids": [0, 1],
        "class_weights": [1.0, 2.0],
        "classlabels_int64s": [0, 1],
    }
    wrongs = {
        "good": {},
        "root_is_its_own_child": {"nodes_truenodeids": [0, 0, 0]},
        "cycle": {
            "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"],
            "nodes_truenodeids": [1, 0, 0],
            "nodes_falsenodeids": [2, 0, 0],
        },
        "child_beyond": {"nodes_truenodeids": [99, 0, 0]},
        "child_negative": {"nodes_truenodeids": [-1, 0, 0]},
        "child_huge": {"nodes_falsenodeids": [HUGE, 0, 0]},
        "feature_beyond": {"nodes_featureids": [1000, 0, 0]},
        "feature_far": {"nodes_featureids": [1 << 30, 0, 0]},
        "feature_negative": {"nodes_featureids": [-1, 0, 0]},
        "feature_huge": {"nodes_featureids": [HUGE, 0, 0]},
        "lists_differ": {"nodes_values": [0.5]},
        "lists_differ_in_modes": {"nodes_modes": ["LEAF"]},
        "mode_unknown": {"nodes_modes": ["BRANCH_WAT", "LEAF", "LEAF"]},
        "ids_twice": {"nodes_nodeids": [0, 0, 0]},
        "tree_ids_mixed": {"nodes_treeids": [0, 1, 0]},
        "no_leaf": {"nodes_modes": ["BRANCH_EQ"] * 3},
        "all_children_the_root": {"nodes_modes": ["BRANCH_LEQ"] * 3},
        "value_nan": {"nodes_values": [float("nan"), 0.0, 0.0]},
    }
    for name, wrong in wrongs.items():
        yield ml(f"trees_{name}", "TreeEnsembleRegressor", **tree(**wrong), **leaves)
    for name, wrong in {
        "target_beyond": {"target_ids": [99, 0]},
        "target_negative": {"target_ids": [-1, 0]},
        "targets_huge": {"n_targets": 1 << 40},
        "targets_none": {"n_targets": 0},
        "targets_negative": {"n_targets": -3},
        "leaf_nowhere": {"target_nodeids": [77, 78]},
        "lists_differ": {"target_weights": [1.0]},
        "tree_nowhere": {"target_treeids": [9, 9]},
        "far_target": {"target_ids": [1 << 40, 0]},
    }.items():
        yield ml(f"regressor_{name}", "TreeEnsembleRegressor", **tree(), **(leaves | wrong))
    for name, wrong in {
        "good": {},
        "class_beyond": {"class_ids": [0, 99]},
        "class_negative": {"class_ids": [-1, 1]},
        "no_labels": {"classlabels_int64s": [0]},
        "lists_differ": {"class_weights": [1.0]},
        "leaf_nowhere": {"class_nodeids": [77, 78]},
        "class_huge": {"class_ids": [1 << 40, 1]},
    }.items():
        yield ml(f"classifier_{name}", "TreeEnsembleClassifier", INT64, ("y", "p"), **tree(), **(classes | wrong))
    deep = 100_000
    chain = {
        "nodes_treeids": [0] * (2 * deep + 1),
        "nodes_nodeids": list(range(2 * deep + 1)),
        "nodes_featureids": [0] * (2 * deep + 1),
        "nodes_modes": ["BRANCH_LEQ", "LEAF"] * deep + ["LEAF"],
        "nodes_values": [0.5] * (2 * deep + 1),
        "nodes_truenodeids": [i + 1 if i % 2 == 0 else 0 for i in range(2 * deep)] + [0],
        "nodes_falsenodeids": [i + 2 if i % 2 == 0 else 0 for i in range(2 * deep)] + [0],
    }
    yield ml("trees_100_000_deep", "TreeEnsembleRegressor", **chain, **(leaves | {"target_nodeids": [1, 2 * deep]}))
    for name, more in {
        "good": {},
        "labels_of_strings": {"classlabels_strings": ["a", "b"]},
        "coefficients_few": {"coefficients": [1.0]},
        "coefficients_many": {"coefficients": [1.0] * 999},
        "intercepts_many": {"intercepts": [1.0] * 999},
        "labels_many": {"classlabels_ints": list(range(999))},
        "labels_none": {"classlabels_ints": [0]},
    }.items():
        made = {"coefficients": [1.0, 2.0, 3.0, 4.0], "intercepts": [0.0, 0.0], "classlabels_ints": [0, 1]} | more
        yield ml(f"linear_{name}", "LinearClassifier", INT64, ("y", "p"), **made)
    for name, more in {
        "good": {},
        "targets_many": {"targets": 999},
        "targets_none": {"targets": 0},
        "targets_negative": {"targets": -1},
        "targets_huge": {"targets": 1 << 40},
    }.items():
        yield ml(
            f"linear_regressor_{name}",
            "LinearRegressor",
            **({"coefficients": [1.0, 2.0], "intercepts": [0.0], "targets": 1} | more),
        )
    machine = {
        "kernel_type": "RBF",
        "kernel_params": [1.0, 0.0, 3.0],
        "coefficients": [1.0, 1.0],
        "support_vectors": [1.0, 2.0, 3.0, 4.0],
        "rho": [0.5],
        "vectors_per_class": [1, 1],
        "classlabels_ints": [0, 1],
    }
    for name, more in {
        "good": {},
        "vectors_few": {"support_vectors": [1.0]},
        "vectors_many_per_class": {"vectors_per_class": [1 << 30, 1 << 30]},
        "vectors_negative": {"vectors_per_class": [-1, -1]},
        "rho_none": {"rho": [0.5] * 0 or [0.0]},
        "classes_many": {"classlabels_ints": list(range(99))},
        "coefficients_few": {"coefficients": [1.0]},
        "probabilities_few": {
            "prob_a": [1.0],
            "prob_b": [1.0],
            "classlabels_ints": [0, 1, 2],
            "vectors_per_class": [1, 1, 1],
        },
        "parameters_few": {"kernel_params": [1.0]},
    }.items():
        yield ml(f"machine_{name}", "SVMClassifier", INT64, ("y", "p"), **(machine | more))
    for name, more in {
        "vectors_many": {"n_supports": 1 << 40},
        "vectors_negative": {"n_supports": -1},
        "vectors_few": {"support_vectors": [1.0], "n_supports": 2},
    }.items():
        made = {
            "kernel_type": "RBF",
            "kernel_params": [1.0, 0.0, 3.0],
            "coefficients": [1.0, 1.0],
            "support_vectors": [1.0, 2.0, 3.0, 4.0],
            "rho": [0.5],
        }
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

    def ms(
        name, op, inputs, asks, out=(FLOAT, None), initializers=(), extra_outputs=(), node_inputs=None, **attributes
    ):
        made = node(op, node_inputs or list(inputs), ["y", *extra_outputs], domain="com.microsoft", **attributes)
        return hazard(f"ms_{name}", [made], inputs, asks, out, initializers)

    table = [
        tensor("words", FLOAT, [4, 8], [0.5] * 32),
        tensor("places", FLOAT, [4, 8], [0.5] * 32),
        tensor("segments", FLOAT, [2, 8], [0.5] * 16),
        tensor("g", FLOAT, [8], [1.0] * 8),
        tensor("b", FLOAT, [8], [0.0] * 8),
    ]
    ids = {"i": (INT32, ["N", "L"]), "s": (INT32, ["N", "L"])}
    wrong = [(p, s) for p in (4, -1, (1 << 31) - 1, -(1 << 31), 0) for s in (0, 2, -1, (1 << 31) - 1)]
    yield ms(
        "embed_layer_norm",
        "EmbedLayerNormalization",
        ids,
        [{"i": ([1, 1], [p]), "s": ([1, 1], [s])} for p, s in wrong]
        + [{"i": ([1, 9], [0] * 9), "s": ([1, 9], [0] * 9)}],
        initializers=table,
        extra_outputs=("m",),
        node_inputs=["i", "s", "words", "places", "segments", "g", "b"],
    )
    weights = [tensor("w", FLOAT, [4, 12], [0.1] * 48), tensor("bias", FLOAT, [12], [0.1] * 12)]
    mask = {"x": (FLOAT, ["B", "S", 4]), "mask": (INT32, None)}
    yield ms(
        "attention_mask",
        "Attention",
        mask,
        [
            {"x": ([1, 2, 4], [1] * 8), "mask": (s, [v] * n)}
            for s, n in (([1], 1), ([2], 2), ([1, 2], 2), ([1, 9], 9), ([3], 3))
            for v in (-5, 1 << 30)
        ],
        initializers=weights,
        node_inputs=["x", "w", "bias", "mask"],
        num_heads=2,
    )
    for name, heads in {"zero": 0, "negative": -1, "huge": 1 << 40, "three": 3}.items():
        yield ms(
            f"attention_heads_{name}",
            "Attention",
            {"x": (FLOAT, ["B", "S", 4])},
            [{"x": ([1, 2, 4], [1] * 8)}],
            initializers=weights,
            node_inputs=["x", "w", "bias"],
            num_heads=heads,
        )
    rotary = [tensor("cos", FLOAT, [2, 2], [1.0] * 4), tensor("sin", FLOAT, [2, 2], [0.0] * 4)]
    yield ms(
        "rotary_positions",
        "RotaryEmbedding",
        {"x": (FLOAT, [1, "S", 4]), "p": (INT64, None)},
        [{"x": ([1, 1, 4], [1] * 4), "p": ([1], [p])} for p in PLACES]
        + [{"x": ([1, 1, 4], [1] * 4), "p": ([1, 1], [p])} for p in PLACES],
        initializers=rotary,
        node_inputs=["x", "p", "cos", "sin"],
    )
    quantised = [tensor("q", UINT8, [2, 8], [1] * 16), tensor("scales", FLOAT, [2], [1.0] * 2)]
    for name, k, n, block, bits in (
        ("good", 16, 2, 16, 4),
        ("k_wrong", 1 << 20, 2, 16, 4),
        ("n_wrong", 16, 1 << 20, 16, 4),
        ("block_zero", 16, 2, 0, 4),
        ("bits_three", 16, 2, 16, 3),
        ("k_negative", -16, 2, 16, 4),
    ):
        yield ms(
            f"mat_mul_4_bits_{name}",
            "MatMulNBits",
            {"x": (FLOAT, ["M", 16])},
            [{"x": ([1, 16], [1] * 16)}],
            initializers=[tensor("q", UINT8, [2, 1, 8], [1] * 16), quantised[1]],
            node_inputs=["x", "q", "scales"],
            K=k,
            N=n,
            block_size=block,
            bits=bits,
        )
    yield ms(
        "gather_quantised",
        "GatherBlockQuantized",
        {"i": (INT64, ["N"])},
        [{"i": [p]} for p in PLACES],
        initializers=quantised,
        node_inputs=["q", "i", "scales"],
        block_size=16,
    )
    yield ms(
        "gather_nd_ms",
        "GatherND",
        {"i": (INT64, ["N", 1])},
        [{"i": ([1, 1], [p])} for p in PLACES],
        initializers=[tensor("t", FLOAT, [3], [1.0] * 3)],
        node_inputs=["t", "i"],
    )
    yield ms(
        "n_gram_repeat",
        "NGramRepeatBlock",
        {"i": (INT64, ["B", "L"]), "x": (FLOAT, ["B", "V"])},
        [{"i": ([1, 3], [p, p, p]), "x": ([1, 3], [1, 2, 3])} for p in PLACES],
        ngram_size=1,
    )
    yield ms(
        "crop_and_resize",
        "CropAndResize",
        {"x": (FLOAT, [1, 1, 2, 2]), "r": (FLOAT, ["N", 4]), "b": (INT32, ["N"]), "s": (INT32, [2])},
        [
            {"x": ([1, 1, 2, 2], [1] * 4), "r": ([1, 4], [0, 0, 1, 1]), "b": [b], "s": s}
            for b, s in ((9, [2, 2]), (-1, [2, 2]), (0, [-1, -1]), (0, [1 << 30, 1 << 30]), (0, [0, 0]))
        ],
    )
    yield ms(
        "word_conv",
        "WordConvEmbedding",
        {"i": (INT32, ["N", "L"])},
        [{"i": ([1, 2], [p, p])} for p in (9, -1, 1 << 30)],
        initializers=[
            tensor("cw", FLOAT, [1, 1, 2, 2], [1.0] * 4),
            tensor("cb", FLOAT, [1], [1.0]),
            tensor("ce", FLOAT, [3, 2], [1.0] * 6),
        ],
        node_inputs=["i", "cw", "cb", "ce"],
        embedding_size=1,
        conv_window_size=2,
        char_embedding_size=2,
    )
    yield ms("murmur_hash", "MurmurHash3", {"x": (STRING, ["N"])}, [{"x": ["", "\0", "é"]}], (UINT64, None))
    yield ms("unfold", "UnfoldTensor", {"x": (FLOAT, ["N"])}, [{"x": [1, 2]}], dim=9, size=1 << 40, step=0)
    yield ms(
        "range_ms",
        "Range",
        {"a": (INT64, []), "b": (INT64, []), "d": (INT64, [])},
        [{"a": [0], "b": [HUGE], "d": [1]}, {"a": [0], "b": [1], "d": [0]}],
        (INT64, None),
    )
    yield ms(
        "pad_ms",
        "Pad",
        {"x": (FLOAT, ["N"]), "p": (INT64, ["K"])},
        [{"x": [1], "p": p} for p in ([HUGE, 0], [-5, -5], [1])],
    )
    yield ms(
        "expand_dims",
        "ExpandDims",
        {"x": (FLOAT, ["N"]), "a": (INT32, [])},
        [{"x": [1], "a": [a]} for a in (9, -9, 1 << 30, -(1 << 31))],
    )
    yield ms(
        "dynamic_time_warping",
        "DynamicTimeWarping",
        {"x": (FLOAT, [1, "M", "N"])},
        [{"x": ([1, 0, 0], [])}, {"x": ([1, 1, 2], [None, None])}],
        (INT32, None),
    )
    yield ms("sample_op", "SampleOp", {"x": (FLOAT, ["N"])}, [{"x": []}])
    yield ms(
        "bifurcation",
        "BifurcationDetector",
        {"i": (INT64, ["N"]), "c": (INT64, ["M"]), "m": (INT64, [])},
        [{"i": [1, 2], "c": [1], "m": [p]} for p in PLACES],
        (INT64, None),
        extra_outputs=("z",),
        node_inputs=["i", "c", "m"],
    )
    yield ms(
        "transpose_mat_mul",
        "FusedMatMul",
        {"x": (FLOAT, ["N", "M"])},
        [{"x": ([1, 2], [1, 2])}, {"x": ([0, 0], [])}],
        node_inputs=["x", "x"],
        transA=7,
        transB=-1,
    )

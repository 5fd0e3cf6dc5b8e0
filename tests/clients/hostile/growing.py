"""Models that are small and want much: functions that call functions, deep graphs, constants of gigabytes, endless
loops."""

from .damaged import FLOATS
from .folders import HostileModel
from .onnx_bytes import (
    BOOL,
    FLOAT,
    IDENTITY,
    INT64,
    Graph,
    Tensor,
    function,
    graph,
    integers,
    node,
    one_to_one,
    port,
    scalar,
    tensor,
)
from .protobuf import BYTES, num, tag, varint

GIB = 1 << 30


def models():
    yield from _functions()
    yield from _deep()
    yield from _loops()
    yield from _constants()
    yield from _answers()


def _functions():
    def calling(name, functions, first):
        made = one_to_one([node(first, ["x"], ["y"], domain="local")], functions=functions)
        return HostileModel(f"functions_{name}", made, asks=FLOATS)

    def chain(length, calls=1):
        """Each function calls the next, so many times; the last one negates."""
        for i in range(length):
            steps = ["a", *(f"s{j}" for j in range(1, calls)), "b"]
            nodes = [node(f"f{i + 1}", [p], [q], domain="local") for p, q in zip(steps, steps[1:])]
            yield function(f"f{i}", ["a"], ["b"], nodes)
        yield function(f"f{length}", ["a"], ["b"], [node("Neg", ["a"], ["b"])])

    yield calling("chain_of_100", list(chain(100)), "f0")
    yield calling("chain_of_3_000", list(chain(3_000)), "f0")
    yield calling("chain_of_30_000", list(chain(30_000)), "f0")
    yield calling("doubling_10_times", list(chain(10, 2)), "f0")
    yield calling("doubling_30_times", list(chain(30, 2)), "f0")
    yield calling("tenfold_9_times", list(chain(9, 10)), "f0")
    yield calling("calling_itself", [function("f", ["a"], ["b"], [node("f", ["a"], ["b"], domain="local")])], "f")
    yield calling(
        "calling_each_other",
        [
            function("f", ["a"], ["b"], [node("g", ["a"], ["b"], domain="local")]),
            function("g", ["a"], ["b"], [node("f", ["a"], ["b"], domain="local")]),
        ],
        "f",
    )
    yield calling("of_one_name_twice", [function("f", ["a"], ["b"], [node("Neg", ["a"], ["b"])])] * 2, "f")
    yield calling("without_nodes", [function("f", ["a"], ["b"], [])], "f")
    yield calling(
        "with_too_many_inputs", [function("f", ["a", "c", "d"], ["b"], [node("Sum", ["a", "c", "d"], ["b"])])], "f"
    )
    standard = one_to_one(
        [node("Neg", ["x"], ["y"])], functions=[function("Neg", ["a"], ["b"], [node("Neg", ["a"], ["b"])], domain="")]
    )
    yield HostileModel("functions_for_a_standard_operator", standard, asks=FLOATS)
    inner = graph([node("f", ["a"], ["q"], domain="local")], [], [port("q")])
    branch = node("If", ["c"], ["b"], then_branch=inner, else_branch=inner)
    through = function(
        "f", ["a"], ["b"], [node("Constant", [], ["c"], value=Tensor(tensor("", BOOL, [], [True]))), branch]
    )
    yield calling("calling_itself_in_a_branch", [through], "f")


def _branches(depth):
    """If in If in If, so deep, written from the inside in one pass: each level's head needs only the length of what
    it holds."""
    innermost = graph([node("Identity", ["x"], ["r"])], [], [port("r")])
    parts, size = [innermost], len(innermost)
    port_r, name_r = port("r"), b"\x12\x01g"
    for _ in range(depth):
        # Attribute then_branch = the graph so far; else_branch is a plain one.
        name = b"\x0a\x0bthen_branch"
        head = name + tag(6, BYTES) + varint(size)
        attribute_size = len(head) + size + 3
        attribute_head = tag(5, BYTES) + varint(attribute_size) + head
        node_head = node("If", ["c"], ["r"], else_branch=graph([node("Identity", ["x"], ["r"])], [], [port_r]))
        node_size = len(node_head) + len(attribute_head) + size + 3
        graph_head = tag(1, BYTES) + varint(node_size) + node_head + attribute_head
        tail = num(20, 5)
        graph_tail = name_r + tag(12, BYTES) + varint(len(port_r)) + port_r
        parts.insert(0, graph_head)
        parts += [tail, graph_tail]
        size += len(graph_head) + len(tail) + len(graph_tail)
    return Graph(b"".join(parts))


def _deep():
    for depth in (10, 20, 100, 1_000, 10_000):
        branch = _branches(depth)
        made = one_to_one(
            [node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], [tensor("c", BOOL, [], [True])]
        )
        yield HostileModel(f"branches_{depth}_deep", made, asks=FLOATS)
    body = _body([node("Identity", ["v_in"], ["v_out"])])
    for _ in range(8):
        body = _body([node("Loop", ["hundred", "", "v_in"], ["v_out"], body=body)])
    nodes = [node("Loop", ["hundred", "", "x"], ["y"], body=body)]
    yield HostileModel("loops_in_loops_100_to_the_9", one_to_one(nodes, [scalar("hundred", 100)]))


def _body(nodes, condition="Identity", more_inputs=(), more_outputs=()):
    """The body of a Loop that carries `v`."""
    inputs = [port("i", INT64, []), port("go_on", BOOL, []), port("v_in", FLOAT, None), *more_inputs]
    outputs = [port("go_on_next", BOOL, []), port("v_out", FLOAT, None), *more_outputs]
    return graph([node(condition, ["go_on"], ["go_on_next"]), *nodes], inputs, outputs)


def _loops():
    step = _body([node("Neg", ["v_in"], ["v_out"])])
    true = tensor("true", BOOL, [], [True])
    endless = [node("Loop", ["", "true", "x"], ["y"], body=step)]
    yield HostileModel("loop_without_end", one_to_one(endless, [true]))
    most = [node("Loop", ["most", "", "x"], ["y"], body=step)]
    yield HostileModel("loop_int64_max_times", one_to_one(most, [scalar("most", (1 << 63) - 1)]))
    negative = [node("Loop", ["most", "", "x"], ["y"], body=step)]
    yield HostileModel("loop_negative_times", one_to_one(negative, [scalar("most", -5)]), asks=FLOATS)
    constant = [node("Loop", ["", "true", "w"], ["c"], body=step), node("Add", ["x", "c"], ["y"])]
    yield HostileModel("loop_of_constants_without_end", one_to_one(constant, [true, tensor("w", FLOAT, [4], [1] * 4)]))
    growing = _body([node("Concat", ["v_in", "v_in"], ["v_out"], axis=0)])
    yield HostileModel("loop_that_doubles", one_to_one([node("Loop", ["", "true", "x"], ["y"], body=growing)], [true]))
    collecting = _body(
        [node("Identity", ["v_in"], ["v_out"]), node("Identity", ["v_in"], ["kept"])],
        more_outputs=[port("kept", FLOAT, None)],
    )
    nodes = [node("Loop", ["", "true", "x"], ["z", "y"], body=collecting)]
    yield HostileModel("loop_that_collects_without_end", one_to_one(nodes, [true], out=(FLOAT, None)))
    nothing = Graph(b"")
    yield HostileModel(
        "loop_with_an_empty_body", one_to_one([node("Loop", ["", "true", "x"], ["y"], body=nothing)], [true])
    )
    yield HostileModel("loop_without_a_body", one_to_one([node("Loop", ["", "true", "x"], ["y"])], [true]))
    scan = graph([node("Identity", ["s"], ["t"])], [port("s", FLOAT, None)], [port("t", FLOAT, None)])
    yield HostileModel(
        "scan_of_more_inputs_than_there_are",
        one_to_one([node("Scan", ["x"], ["y"], body=scan, num_scan_inputs=1 << 40)]),
        asks=FLOATS,
    )
    yield HostileModel(
        "scan_of_negative_inputs", one_to_one([node("Scan", ["x"], ["y"], body=scan, num_scan_inputs=-1)]), asks=FLOATS
    )


def _constants():
    """What ONNX Runtime would compute while it loads: every input is a constant."""

    def folded(name, nodes, initializers=(), element=FLOAT, opset=17):
        """`c` is made of constants; its sum is added to x, so that it cannot be left out."""
        cast = [node("Cast", ["c"], ["cf"], to=FLOAT)] if element != FLOAT else [node("Identity", ["c"], ["cf"])]
        ending = [*cast, node("ReduceMax", ["cf"], ["m"], keepdims=0), node("Add", ["x", "m"], ["y"])]
        return HostileModel(f"folded_{name}", one_to_one([*nodes, *ending], initializers, opset=opset), asks=FLOATS)

    byte = Tensor(tensor("", 2, [1], raw=b"\x01"))
    filled = lambda *dims: [integers("shape", *dims)]  # noqa: E731
    for name, dims in {
        "2_gib": [2 * GIB],
        "16_gib": [16 * GIB],
        "1_tib": [1024 * GIB],
        "overflow": [1 << 32, 1 << 32],
        "negative": [-4],
        "int64_max": [(1 << 63) - 1],
        "rank_2000": [1] * 2000,
        "zero_by_huge": [0, (1 << 63) - 1],
    }.items():
        yield folded(
            f"constant_of_shape_{name}", [node("ConstantOfShape", ["shape"], ["c"], value=byte)], filled(*dims), 2
        )
    alone = one_to_one([node("ConstantOfShape", ["shape"], ["y"])], [integers("shape", 1 << 29)], out=(FLOAT, None))
    yield HostileModel("constant_of_shape_2_gib_alone", alone)
    unused = one_to_one([IDENTITY, node("ConstantOfShape", ["shape"], ["unused"])], [integers("shape", 1 << 40)])
    yield HostileModel("constant_of_shape_unused_4_tib", unused, asks=FLOATS)
    for name, limits in {
        "2_to_the_33": (0, 1 << 33, 1),
        "all": (-(1 << 62), (1 << 62), 1),
        "by_zero": (0, 5, 0),
        "overflow": (-(1 << 63), (1 << 63) - 1, 1),
        "backwards": (0, -(1 << 34), -1),
    }.items():
        yield folded(
            f"range_{name}",
            [node("Range", ["a", "b", "d"], ["c"])],
            [scalar(n, v) for n, v in zip("abd", limits)],
            INT64,
        )
    one = tensor("one", FLOAT, [1], [1.0])
    yield folded(
        "range_of_floats_by_nothing",
        [node("Range", ["a", "b", "d"], ["c"])],
        [scalar("a", 0.0, FLOAT), scalar("b", 1e30, FLOAT), scalar("d", 1e-30, FLOAT)],
    )
    yield folded(
        "range_of_nan",
        [node("Range", ["a", "b", "d"], ["c"])],
        [scalar("a", 0.0, FLOAT), scalar("b", float("nan"), FLOAT), scalar("d", 1.0, FLOAT)],
    )
    yield folded("expand_8_gib", [node("Expand", ["one", "shape"], ["c"])], [one, integers("shape", 2 * GIB)])
    yield folded("expand_4_tib", [node("Expand", ["one", "shape"], ["c"])], [one, integers("shape", GIB, 1024)])
    yield folded("tile_8_gib", [node("Tile", ["one", "shape"], ["c"])], [one, integers("shape", 2 * GIB)])
    yield folded(
        "tile_overflow",
        [node("Tile", ["two", "shape"], ["c"])],
        [tensor("two", FLOAT, [2], [1, 2]), integers("shape", 1 << 62)],
    )
    yield folded("tile_negative", [node("Tile", ["one", "shape"], ["c"])], [one, integers("shape", -1)])
    yield folded("pad_8_gib", [node("Pad", ["one", "pads"], ["c"])], [one, integers("pads", 2 * GIB, 0)])
    yield folded(
        "pad_overflow", [node("Pad", ["one", "pads"], ["c"])], [one, integers("pads", (1 << 63) - 1, (1 << 63) - 1)]
    )
    yield folded(
        "pad_reflect_of_one",
        [node("Pad", ["one", "pads"], ["c"], mode="reflect")],
        [one, integers("pads", 1 << 20, 1 << 20)],
    )
    yield folded("pad_negative_beyond", [node("Pad", ["one", "pads"], ["c"])], [one, integers("pads", -9, -9)])
    image = tensor("image", FLOAT, [1, 1, 1, 1], [1.0])
    yield folded(
        "resize_8_gib",
        [node("Resize", ["image", "", "", "sizes"], ["c"])],
        [image, integers("sizes", 1, 1, 1 << 16, 1 << 15)],
    )
    yield folded(
        "resize_by_1e9",
        [node("Resize", ["image", "", "scales"], ["c"])],
        [image, tensor("scales", FLOAT, [4], [1, 1, 1e9, 1e9])],
    )
    yield folded(
        "resize_by_nan",
        [node("Resize", ["image", "", "scales"], ["c"])],
        [image, tensor("scales", FLOAT, [4], [1, 1, float("nan"), float("inf")])],
    )
    yield folded(
        "resize_to_negative",
        [node("Resize", ["image", "", "", "sizes"], ["c"])],
        [image, integers("sizes", 1, 1, -5, -5)],
    )
    yield folded(
        "one_hot_16_gib",
        [node("OneHot", ["zero", "depth", "values"], ["c"])],
        [integers("zero", 0), scalar("depth", 4 * GIB), tensor("values", FLOAT, [2], [0, 1])],
    )
    yield folded(
        "one_hot_negative",
        [node("OneHot", ["zero", "depth", "values"], ["c"])],
        [integers("zero", 0), scalar("depth", -4), tensor("values", FLOAT, [2], [0, 1])],
    )
    yield folded(
        "eye_of_64_gib",
        [node("ConstantOfShape", ["shape"], ["t"], value=byte), node("EyeLike", ["t"], ["c"], dtype=FLOAT)],
        filled(1 << 17, 1 << 17),
    )
    yield folded("random_of_16_gib", [node("RandomNormal", [], ["c"], shape=[4 * GIB])])
    yield folded("random_of_negative", [node("RandomNormal", [], ["c"], shape=[-4])])
    column, row = [node("ConstantOfShape", [s], [t]) for s, t in (("cs", "col"), ("rs", "row"))]
    shapes = [integers("cs", 1 << 17, 1), integers("rs", 1, 1 << 17)]
    yield folded("broadcast_64_gib", [column, row, node("Add", ["col", "row"], ["c"])], shapes)
    yield folded("product_64_gib", [column, row, node("MatMul", ["col", "row"], ["c"])], shapes)
    doubling = [node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=0) for i in range(40)]
    yield folded(
        "concat_doubling_40_times", [*doubling, node("Identity", ["d40"], ["c"])], [tensor("d0", FLOAT, [1], [1.0])]
    )
    work = [
        node("ConstantOfShape", ["shape"], ["m0"]),
        *(node("MatMul", ["m0", f"m{i}"], [f"m{i + 1}"]) for i in range(200)),
    ]
    yield folded("products_for_hours", [*work, node("Identity", ["m200"], ["c"])], filled(4096, 4096))
    yield folded(
        "strings_1_gib",
        [
            node("ConstantOfShape", ["shape"], ["i"]),
            node("Cast", ["i"], ["s"], to=8),
            node("Cast", ["s"], ["c"], to=FLOAT),
        ],
        filled(GIB),
    )
    kernel = node("MaxPool", ["image"], ["c"], kernel_shape=[1 << 30, 1 << 30], pads=[(1 << 30) - 1] * 4)
    yield folded("pool_with_a_giant_kernel", [kernel], [image])
    yield folded("pool_with_kernel_zero", [node("MaxPool", ["image"], ["c"], kernel_shape=[0, 0])], [image])
    yield folded(
        "pool_with_stride_zero", [node("MaxPool", ["image"], ["c"], kernel_shape=[1, 1], strides=[0, 0])], [image]
    )
    yield folded(
        "pool_with_negative_pads", [node("AveragePool", ["image"], ["c"], kernel_shape=[1, 1], pads=[-9] * 4)], [image]
    )
    yield folded(
        "transposed_convolution_giant",
        [
            node(
                "ConvTranspose",
                ["image", "image"],
                ["c"],
                strides=[1 << 30, 1 << 30],
                output_padding=[(1 << 30) - 1] * 2,
            )
        ],
        [image],
    )
    yield folded("convolution_in_no_groups", [node("Conv", ["image", "image"], ["c"], group=0)], [image])
    yield folded("convolution_dilated_by_zero", [node("Conv", ["image", "image"], ["c"], dilations=[0, 0])], [image])
    yield folded("space_by_no_blocks", [node("DepthToSpace", ["image"], ["c"], blocksize=0)], [image])
    most, least = -(1 << 63), -1
    for operator in ("Div", "Mod"):
        yield folded(
            f"{operator.lower()}_by_minus_one",
            [node(operator, ["a", "b"], ["c"])],
            [integers("a", most), integers("b", least)],
            INT64,
        )
        yield folded(
            f"{operator.lower()}_by_zero",
            [node(operator, ["a", "b"], ["c"])],
            [integers("a", 7), integers("b", 0)],
            INT64,
        )
    yield folded(
        "gather_beyond", [node("Gather", ["a", "b"], ["c"])], [integers("a", 1, 2), integers("b", 1 << 40)], INT64
    )
    yield folded(
        "split_into_a_million",
        [
            node("ConstantOfShape", ["shape"], ["t"]),
            node("Split", ["t"], [f"c{'' if i == 0 else i}" for i in range(100_000)]),
        ],
        filled(100_000),
    )
    yield folded("blackman_window_of_2_to_the_33", [node("BlackmanWindow", ["size"], ["c"])], [scalar("size", 1 << 33)])
    yield folded(
        "mel_matrix_giant",
        [node("MelWeightMatrix", [f"p{i}" for i in range(5)], ["c"])],
        [
            scalar("p0", 1 << 20),
            scalar("p1", 1 << 24),
            scalar("p2", 8000),
            scalar("p3", 0.0, FLOAT),
            scalar("p4", 4000.0, FLOAT),
        ],
    )


def _answers():
    """Whose answers are giant, whatever is asked."""
    many = one_to_one([node("Tile", ["x", "times"], ["y"])], [integers("times", 1 << 20, 1 << 10)], out=(FLOAT, None))
    yield HostileModel("answer_of_16_gib", many, asks=FLOATS)
    squared = [node("Reshape", ["x", "flat"], ["p"]), node("Reshape", ["x", "tall"], ["q"])]
    squares = [
        node("MatMul", ["q", "p"], ["m0"]),
        *(node("Concat", [f"m{i}"] * 2, [f"m{i + 1}"], axis=0) for i in range(26)),
    ]
    made = one_to_one(
        [*squared, *squares, node("Identity", ["m26"], ["y"])],
        [integers("flat", 1, -1), integers("tall", -1, 1)],
        out=(FLOAT, None),
    )
    yield HostileModel("answer_that_doubles_26_times", made, asks=FLOATS)
    hours = [
        node("MatMul", ["x", "big"], ["a0"]),
        *(node("MatMul", [f"a{i}", "square"], [f"a{i + 1}"]) for i in range(64)),
    ]
    made = [
        node("ConstantOfShape", ["wide"], ["big"]),
        node("ConstantOfShape", ["sq"], ["square"]),
        *hours,
        node("ReduceMax", ["a64"], ["y"]),
    ]
    yield HostileModel(
        "answer_after_long_work",
        one_to_one(made, [integers("wide", 4, 2048), integers("sq", 2048, 2048)], out=(FLOAT, None)),
        asks=FLOATS,
    )
    yield HostileModel(
        "answer_of_another_number_of_rows",
        one_to_one([node("Concat", ["x", "x"], ["y"], axis=0)], out=(FLOAT, ["N", 4])),
        asks=FLOATS,
    )
    yield HostileModel(
        "answer_of_another_rank",
        one_to_one(
            [node("Flatten", ["x"], ["f"], axis=0), node("Unsqueeze", ["f", "axes"], ["y"])],
            [integers("axes", 0, 1, 2)],
            out=(FLOAT, None),
        ),
        asks=FLOATS,
    )
    yield HostileModel(
        "answer_of_nan",
        one_to_one([node("Sqrt", ["x"], ["s"]), node("Div", ["s", "zero"], ["y"])], [tensor("zero", FLOAT, [], [0.0])]),
        asks=FLOATS,
    )

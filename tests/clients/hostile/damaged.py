"""Model files that are damaged or are no model: cut off, with bits flipped, of another kind, with senseless fields."""

import random
import struct

from .folders import HostileModel, ask
from .onnx_bytes import (
    BFLOAT16,
    BOOL,
    COMPLEX64,
    DOUBLE,
    FLOAT,
    FLOAT8,
    FLOAT16,
    IDENTITY,
    INT4,
    INT32,
    INT64,
    STRING,
    UINT8,
    Tensor,
    file,
    function,
    graph,
    identity,
    integers,
    map_type,
    node,
    one_to_one,
    optional_type,
    port,
    scalar,
    sequence_type,
    sparse_type,
    tensor,
    tensor_type,
    value,
)
from .protobuf import GROUP, blob, each, nested, num, tag, varint

CUTS, FLIPS = 12, 24
FLOATS = (ask(x=("FP32", [1, 4], [1, 2, 3, 4])),)


def models(whole):
    """`whole` is a good model file, to be cut and flipped."""
    yield from _no_models()
    yield from _cut_and_flipped(whole)
    yield from _headers()
    yield from _wiring()
    yield from _names()
    yield from _types()
    yield from _tensors()
    yield from _encodings()


def _no_models():
    for name, content in {
        "empty": b"",
        "one_byte": b"\x08",
        "text": b"This is a text file, not a model.\n",
        "lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "json": b'{"graph": {}}',
        "zip": b"PK\x03\x04" + bytes(64),
        "gzip": b"\x1f\x8b\x08\0" + bytes(64),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(99),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "script": b"#!/bin/sh\nkill 1\n",
        "zeros": bytes(1 << 20),
        "ones": b"\xff" * (1 << 16),
        "random": random.Random(7).randbytes(1 << 16),
        "ort_format": struct.pack("<I", 24) + b"ORTM" + b"\xff" * 256,
    }.items():
        yield HostileModel(f"no_model_{name}", content)

    def sparse(folder):
        with open(folder / "1" / "model.onnx", "wb") as out:
            out.truncate(64 << 30)

    yield HostileModel("no_model_of_64_gib_of_nothing", None, arrange=sparse)

    def large(folder):
        # A model's beginning, and a graph of which the file says that it has 3 GiB.
        with open(folder / "1" / "model.onnx", "wb") as out:
            out.write(num(1, 8) + tag(7, 2) + varint(3 << 30))
            out.truncate(3 << 30)

    yield HostileModel("graph_of_3_gib_of_nothing", None, arrange=large)


def _cut_and_flipped(whole):
    for i in range(CUTS):
        yield HostileModel(f"cut_{i}", whole[: len(whole) * (i + 1) // (CUTS + 1)])
    for i in range(1, 4):
        yield HostileModel(f"cut_by_{i}", whole[:-i])
    drawn = random.Random(17)
    for i in range(FLIPS):
        flipped = bytearray(whole)
        for _ in range(1 + i // 4):
            at = drawn.randrange(len(flipped) * 8)
            flipped[at // 8] ^= 1 << at % 8
        yield HostileModel(
            f"flipped_{i}",
            bytes(flipped),
            asks=({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [0] * 64}]},),
        )


def _headers():
    for name, ir in {"none": 0, "negative": -1, "future": 99, "int64_max": (1 << 63) - 1}.items():
        yield HostileModel(f"ir_{name}", identity(ir=ir), asks=FLOATS)
    for name, opset in {
        "missing": None,
        "zero": 0,
        "one": 1,
        "negative": -1,
        "future": 9999,
        "int64_max": (1 << 63) - 1,
    }.items():
        yield HostileModel(f"opset_{name}", identity(opset=opset), asks=FLOATS)
    yield HostileModel("opset_twice", identity(domains=[("", 1), ("", 17), ("ai.onnx", 7)]), asks=FLOATS)
    yield HostileModel("opsets_of_50_000_domains", identity(domains=[(f"d{i}", 1) for i in range(50_000)]))
    yield HostileModel("no_graph", file(None))
    yield HostileModel("graph_empty", file(graph([], [], [])))
    yield HostileModel(
        "graph_twice",
        file(graph([IDENTITY], [port("x")], [port("y")]), more=blob(7, graph([IDENTITY], [port("x")], [port("y")]))),
    )
    yield HostileModel("operator_unknown", one_to_one([node("Explode", ["x"], ["y"])]))
    yield HostileModel("operator_unnamed", one_to_one([node("", ["x"], ["y"])]))
    yield HostileModel(
        "operator_of_unknown_domain",
        one_to_one([node("Run", ["x"], ["y"], domain="com.evil")], domains=[("com.evil", 1)]),
    )
    yield HostileModel(
        "metadata_of_100_000_pairs", identity(more=each(14, [blob(1, f"k{i}") + blob(2, "v") for i in range(100_000)]))
    )
    yield HostileModel(
        "training_info", identity(more=blob(20, blob(1, graph([IDENTITY], [], [])) + blob(2, graph([], [], []))))
    )


def _wiring():
    def wired(name, nodes, inputs=("x",), outputs=("y",), initializers=(), asks=FLOATS):
        made = graph(nodes, [port(i) for i in inputs], [port(o) for o in outputs], initializers)
        return HostileModel(name, file(made), asks=asks)

    yield wired("cycle_of_two", [node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"]), node("Neg", ["b"], ["y"])])
    yield wired("cycle_of_one", [node("Add", ["x", "y"], ["y"])])
    yield wired("cycle_beside_the_way", [IDENTITY, node("Add", ["p", "q"], ["q"]), node("Neg", ["q"], ["p"])])
    yield wired("value_made_twice", [IDENTITY, node("Neg", ["x"], ["y"])])
    yield wired("input_made_by_a_node", [node("Neg", ["x"], ["x"]), IDENTITY])
    yield wired(
        "initializer_made_by_a_node",
        [node("Neg", ["x"], ["w"]), node("Neg", ["w"], ["y"])],
        initializers=[tensor("w", FLOAT, [4], [1] * 4)],
    )
    yield wired("input_missing", [node("Add", ["x", "nowhere"], ["y"])])
    yield wired("output_not_made", [node("Neg", ["x"], ["z"])])
    yield wired("node_without_inputs", [node("Add", [], ["y"])])
    yield wired("node_without_outputs", [IDENTITY, node("Neg", ["x"], [])])
    yield wired("node_of_empty_names", [node("Add", ["", ""], [""]), IDENTITY])
    yield wired("node_of_10_000_inputs", [node("Sum", ["x"] * 10_000, ["y"])])
    yield wired("input_twice", [IDENTITY], inputs=("x", "x"))
    yield wired("output_twice", [IDENTITY], outputs=("y", "y"))
    yield wired("output_is_input", [], outputs=("x",))
    yield wired(
        "initializer_twice",
        [node("Add", ["x", "w"], ["y"])],
        initializers=[tensor("w", FLOAT, [4], [1] * 4), tensor("w", FLOAT, [2], [1] * 2)],
    )
    yield wired("node_name_twice", [node("Neg", ["x"], ["a"], name="n"), node("Neg", ["a"], ["y"], name="n")])
    yield wired(
        "no_inputs",
        [node("Identity", ["w"], ["y"])],
        inputs=(),
        initializers=[tensor("w", FLOAT, [1, 4], [1] * 4)],
        asks=({"inputs": []}, {}),
    )
    yield wired("no_outputs", [node("Neg", ["x"], ["z"])], outputs=())
    yield wired("neither_inputs_nor_outputs", [], inputs=(), outputs=(), asks=({"inputs": []}, {}))
    many = [f"y{i}" for i in range(50_000)]
    yield wired("outputs_50_000", [node("Identity", ["x"], [y]) for y in many], outputs=many)
    many = [f"x{i}" for i in range(50_000)]
    yield wired("inputs_50_000", [node("Identity", ["x0"], ["y"])], inputs=many)
    chain = [node("Neg", ["x" if i == 0 else f"v{i}"], ["y" if i == 29_999 else f"v{i + 1}"]) for i in range(30_000)]
    yield wired("chain_of_30_000_nodes", chain)
    chain = [node("Neg", ["w" if i == 0 else f"v{i}"], [f"v{i + 1}"]) for i in range(20_000)]
    yield wired(
        "chain_of_20_000_constants",
        [*chain, node("Add", ["x", "v20000"], ["y"])],
        initializers=[tensor("w", FLOAT, [4], [1] * 4)],
    )


def _names():
    for name, text in {
        "newline": "a\nb",
        "nul": "a\0b",
        "escape": "\x1b[2J\x1b]0;owned\x07",
        "not_utf8": b"\xff\xfe",
        "empty": "",
        "mebibyte": "n" * (1 << 20),
        "path": "../../../etc/passwd",
        "quotes": "\"'\\{}",
        "surrogate": "\ud800",
        "right_to_left": "\u202egpj",
        "markup": "<script>alert(1)</script>",
        "format": "%s%n{0}",
    }.items():
        made = graph(
            [node("Neg", [text], [b"y" + blob(1, text)])], [port(text)], [port(b"y" + blob(1, text))], name=text
        )
        yield HostileModel(f"name_{name}", file(made))
        # An operator that does not exist: the reason would quote the names.
        wrong = graph([node(text or "Nothing", ["x"], ["y"], name=text)], [port("x")], [port("y")])
        yield HostileModel(f"operator_name_{name}", file(wrong))


def _types():
    for name, kind in {
        "sequence": sequence_type(tensor_type(FLOAT)),
        "map": map_type(STRING, tensor_type(FLOAT)),
        "sequence_of_maps": sequence_type(map_type(INT64, tensor_type(FLOAT))),
        "sparse": sparse_type(FLOAT, [1, 4]),
        "optional": optional_type(tensor_type(FLOAT)),
        "sequences_in_sequences": nested(4, 90, tensor_type(FLOAT)),
        "opaque": blob(7, blob(1, "d") + blob(2, "n")),
        "none": None,
        "empty": b"",
        "complex": tensor_type(COMPLEX64),
        "float8": tensor_type(FLOAT8),
        "int4": tensor_type(INT4),
        "undefined": tensor_type(0),
        "unknown": tensor_type(99),
        "negative": tensor_type(-1),
        "rank_unknown": tensor_type(FLOAT, None),
        "rank_1000": tensor_type(FLOAT, [1] * 1000),
        "rank_200_000": tensor_type(FLOAT, [1] * 200_000),
        "dims_unknown": tensor_type(FLOAT, [None] * 4),
        "dim_zero": tensor_type(FLOAT, [0, 4]),
        "dim_negative": tensor_type(FLOAT, [-7, 4]),
        "dims_that_overflow": tensor_type(FLOAT, [1 << 32, 1 << 32]),
        "dim_int64_max": tensor_type(FLOAT, ["N", (1 << 63) - 1]),
        "dim_2_gib": tensor_type(FLOAT, ["N", 1 << 31]),
        "dim_names_same": tensor_type(FLOAT, ["N"] * 8),
        "dim_name_odd": tensor_type(FLOAT, ["N\n\0", b"\xff\xff"]),
        "rank_9_open": tensor_type(FLOAT, list("ABCDEFGHI")),
    }.items():
        made = graph([IDENTITY], [value("x", kind)], [value("y", kind)])
        yield HostileModel(f"type_{name}", file(made), asks=FLOATS)
    yield HostileModel("type_said_wrongly", one_to_one([IDENTITY], out=(STRING, ["N", 4])), asks=FLOATS)
    yield HostileModel("shape_said_wrongly", one_to_one([IDENTITY], out=(FLOAT, [7, 7, 7])), asks=FLOATS)
    yield HostileModel(
        "shape_said_fixed_and_is_not", one_to_one([node("NonZero", ["x"], ["y"])], out=(INT64, [2, 3])), asks=FLOATS
    )
    for name, element in {"fp16": FLOAT16, "bf16": BFLOAT16, "fp64": DOUBLE, "bool": BOOL, "int32": INT32}.items():
        yield HostileModel(
            f"operator_for_no_{name}",
            one_to_one([node("Tokenizer", ["x"], ["y"], domain="com.microsoft")], element=element),
        )


def _tensors():
    def with_weight(name, weight, element=FLOAT):
        made = graph(
            [IDENTITY, node("Identity", ["w"], ["z"])],
            [port("x")],
            [port("y"), value("z", tensor_type(element, None))],
            [weight],
        )
        return HostileModel(f"weight_{name}", file(made), asks=FLOATS)

    gib = 1 << 30
    yield with_weight("claimed_and_absent", tensor("w", FLOAT, [8]))
    yield with_weight("claimed_of_4_gib", tensor("w", FLOAT, [gib]))
    yield with_weight("claimed_of_4_tib", tensor("w", FLOAT, [gib, 1024]))
    yield with_weight("claimed_of_strings", tensor("w", STRING, [gib]), STRING)
    yield with_weight("dims_overflow", tensor("w", FLOAT, [1 << 32, 1 << 32], raw=b""))
    yield with_weight("dims_overflow_to_four", tensor("w", FLOAT, [(1 << 62) + 1, 4], raw=bytes(16)))
    yield with_weight("dim_negative", tensor("w", FLOAT, [-1], raw=bytes(4)))
    yield with_weight("dims_negative_twice", tensor("w", FLOAT, [-2, -2], raw=bytes(16)))
    yield with_weight("dim_int64_min", tensor("w", FLOAT, [-(1 << 63)], raw=b""))
    yield with_weight("rank_50_000", tensor("w", FLOAT, [1] * 50_000, raw=bytes(4)))
    yield with_weight("bytes_too_few", tensor("w", FLOAT, [4], raw=bytes(15)))
    yield with_weight("bytes_too_many", tensor("w", FLOAT, [4], raw=bytes(64)))
    yield with_weight("of_no_elements_with_bytes", tensor("w", FLOAT, [0], raw=bytes(64)))
    yield with_weight("raw_and_typed", tensor("w", FLOAT, [1], raw=bytes(4), more=blob(4, bytes(4))))
    yield with_weight("of_strings_raw", tensor("w", STRING, [2], raw=bytes(8)), STRING)
    yield with_weight("strings_too_few", tensor("w", STRING, [9], ["a"]), STRING)
    yield with_weight("undefined", tensor("w", 0, [1], raw=bytes(4)))
    yield with_weight("unknown", tensor("w", 99, [1], raw=bytes(4)))
    yield with_weight("int4", tensor("w", INT4, [3], raw=b"\x21"), INT4)
    yield with_weight("in_segments", tensor("w", FLOAT, [4], raw=bytes(16), more=blob(3, num(1, 1) + num(2, 1 << 40))))
    yield with_weight("bools_neither_0_nor_1", tensor("w", BOOL, [4], raw=b"\x02\xff\x80\x03"), BOOL)
    yield with_weight("of_one_element_1_gib_names", tensor("w" * (1 << 20), FLOAT, [1], [1.0]))

    def sparse(name, dims, indices, values=(1.0,), index_shape=None):
        made = blob(1, tensor("w", FLOAT, [len(values)], values)) + blob(2, integers("", *indices, shape=index_shape))
        made += b"".join(num(3, d) for d in dims)
        graph_proto = graph(
            [IDENTITY, node("Identity", ["w"], ["z"])],
            [port("x")],
            [port("y"), port("z", FLOAT, None)],
            more=blob(15, made),
        )
        return HostileModel(f"sparse_weight_{name}", file(graph_proto), asks=FLOATS)

    yield sparse("beyond", [4], [1 << 40])
    yield sparse("negative", [4], [-1])
    yield sparse("just_beyond", [4], [4])
    yield sparse("of_8_gib", [1 << 31], [5])
    yield sparse("of_4_eib", [1 << 40, 1 << 20], [5])
    yield sparse("overflow", [1 << 32, 1 << 32], [5])
    yield sparse("dims_negative", [-4], [0])
    yield sparse("too_many", [2], [0, 1, 2, 3], (1.0,) * 4)
    yield sparse("index_pairs_beyond", [2, 2], [9, 9], (1.0,), [1, 2])
    yield sparse("no_dims", [], [0])

    constant = one_to_one(
        [node("Constant", [], ["c"], value=Tensor(tensor("", FLOAT, [1 << 31]))), node("Add", ["x", "c"], ["y"])]
    )
    yield HostileModel("constant_claimed_of_8_gib", constant)
    constant = one_to_one(
        [node("Constant", [], ["c"], value=Tensor(tensor("", FLOAT, [-4]))), node("Add", ["x", "c"], ["y"])]
    )
    yield HostileModel("constant_of_negative_dims", constant)
    yield HostileModel(
        "constant_without_value", one_to_one([node("Constant", [], ["c"]), node("Add", ["x", "c"], ["y"])])
    )
    yield HostileModel(
        "initializer_of_axis_of_another_type",
        one_to_one([node("CumSum", ["x", "a"], ["y"])], [scalar("a", 0.0, FLOAT)]),
    )
    yield HostileModel(
        "attribute_of_a_million_integers", one_to_one([node("Transpose", ["x"], ["y"], perm=[0] * 1_000_000)])
    )
    yield HostileModel("attribute_of_another_type", one_to_one([node("Transpose", ["x"], ["y"], perm="01")]))
    yield HostileModel(
        "attributes_100_000", one_to_one([node("Neg", ["x"], ["y"], **{f"a{i}": i for i in range(100_000)})])
    )
    twice = node("Softmax", ["x"], ["y"], axis=1) + blob(5, blob(1, "axis") + num(3, 0) + num(20, 2))
    yield HostileModel("attribute_twice", one_to_one([twice]), asks=FLOATS)
    untyped = node("Softmax", ["x"], ["y"]) + blob(5, blob(1, "axis") + num(3, 1))
    yield HostileModel("attribute_without_type", one_to_one([untyped]), asks=FLOATS)
    referring = node("Softmax", ["x"], ["y"]) + blob(5, blob(1, "axis") + blob(21, "axis") + num(20, 2))
    yield HostileModel("attribute_refers_outside_a_function", one_to_one([referring]), asks=FLOATS)
    yield HostileModel("attribute_axis_far", one_to_one([node("Softmax", ["x"], ["y"], axis=(1 << 62))]), asks=FLOATS)
    yield HostileModel("transpose_to_nowhere", one_to_one([node("Transpose", ["x"], ["y"], perm=[7, -9])]), asks=FLOATS)
    yield HostileModel("cast_to_unknown", one_to_one([node("Cast", ["x"], ["y"], to=99)]), asks=FLOATS)
    yield HostileModel("concat_of_uint8", one_to_one([node("Concat", ["x", "x"], ["y"], axis=-9)], element=UINT8))


def _encodings():
    good = identity()
    yield HostileModel("encoded_groups_100_000", tag(90, GROUP) * 100_000 + good)
    yield HostileModel("encoded_length_huge", good + tag(7, 2) + varint((1 << 63) - 1))
    yield HostileModel("encoded_length_negative", good + tag(7, 2) + varint(-1))
    yield HostileModel("encoded_varint_endless", good + b"\x80" * 4096)
    yield HostileModel("encoded_field_zero", b"\x00\x00" + good)
    yield HostileModel("encoded_wire_type_seven", b"\x0f" + good)
    yield HostileModel("encoded_unknown_fields", b"".join(num(100 + i, i) for i in range(100_000)) + good, asks=FLOATS)
    yield HostileModel("encoded_version_a_million_times", num(1, 8) * 1_000_000 + good, asks=FLOATS)
    yield HostileModel("encoded_functions_empty_500_000", good + blob(25, b"") * 500_000)
    yield HostileModel(
        "encoded_nodes_empty_500_000", file(graph([], [port("x")], [port("y")], more=blob(1, b"") * 500_000))
    )
    yield HostileModel(
        "encoded_initializers_empty_500_000",
        file(graph([IDENTITY], [port("x")], [port("y")], more=blob(5, b"") * 500_000)),
    )
    yield HostileModel("functions_of_no_name", identity(functions=[function("", [], [], [])] * 3))

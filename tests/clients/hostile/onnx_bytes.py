"""Writes ONNX files field by field; field numbers are those of onnx.proto3. Nothing is checked: that is the server's
job."""

import struct

from .protobuf import blob, each, f32, num, packed

FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64, STRING, BOOL, FLOAT16, DOUBLE, UINT32, UINT64 = range(1, 14)
COMPLEX64, COMPLEX128, BFLOAT16, FLOAT8, UINT4, INT4 = 14, 15, 16, 17, 21, 22
_FORMAT = {
    FLOAT: "f",
    UINT8: "B",
    INT8: "b",
    UINT16: "H",
    INT16: "h",
    INT32: "i",
    INT64: "q",
    BOOL: "?",
    DOUBLE: "d",
    UINT32: "I",
    UINT64: "Q",
}


def tensor_type(element, shape=()):
    """A tensor's TypeProto. A string in `shape` is an open dimension, None one that says nothing; no shape at all if
    `shape` is None."""
    dims = b""
    for dim in shape or ():
        dims += blob(1, b"" if dim is None else blob(2, dim) if isinstance(dim, str | bytes) else num(1, dim))
    return blob(1, num(1, element) + (b"" if shape is None else blob(2, dims)))


def sequence_type(of):
    return blob(4, blob(1, of))


def map_type(key, of):
    return blob(5, num(1, key) + blob(2, of))


def sparse_type(element, shape):
    return blob(8, tensor_type(element, shape)[2:])


def optional_type(of):
    return blob(9, blob(1, of))


def value(name, type_proto):
    """An input or output of any type; None for one without a type."""
    return blob(1, name) + (b"" if type_proto is None else blob(2, type_proto))


def port(name, element=FLOAT, shape=("N", 4)):
    """An input or output that is a tensor."""
    return value(name, tensor_type(element, shape))


def tensor(name, element, dims, numbers=None, raw=None, more=b""):
    """An initializer: packed `numbers`, or `raw` bytes, or neither. `dims` may lie."""
    data = b""
    if numbers is not None and element == STRING:
        data = each(6, numbers)
    elif numbers is not None:
        raw = struct.pack(f"<{len(numbers)}{_FORMAT[element]}", *numbers)
    if raw is not None:
        data = blob(9, raw)
    return b"".join(num(1, d) for d in dims) + num(2, element) + blob(8, name) + data + more


def external(name, element, dims, location, offset=None, length=None, more=()):
    """An initializer whose data is said to stand in a file. `more` are further pairs, after the usual ones."""
    pairs = [("location", location)]
    pairs += [(key, str(at)) for key, at in (("offset", offset), ("length", length)) if at is not None]
    pairs += list(more)
    entries = each(13, [blob(1, key) + blob(2, at) for key, at in pairs])
    return tensor(name, element, dims, more=entries + num(14, 1))


def integers(name, *numbers, shape=None):
    """An INT64 initializer: a list, or of the shape given."""
    return tensor(name, INT64, [len(numbers)] if shape is None else shape, numbers)


def scalar(name, number, element=INT64):
    return tensor(name, element, [], [number])


def attribute(name, given):
    """An attribute of the kind that fits the value: number, text, list of those, or `Graph`, `Tensor`."""
    match given:
        case Graph():
            return blob(1, name) + blob(6, given) + num(20, 5)
        case Tensor():
            return blob(1, name) + blob(5, given) + num(20, 4)
        case bool() | int():
            return blob(1, name) + num(3, given) + num(20, 2)
        case float():
            return blob(1, name) + f32(2, given) + num(20, 1)
        case str() | bytes():
            return blob(1, name) + blob(4, given) + num(20, 3)
        case [first, *_] if isinstance(first, float):
            return blob(1, name) + blob(7, struct.pack(f"<{len(given)}f", *given)) + num(20, 6)
        case [first, *_] if isinstance(first, str | bytes):
            return blob(1, name) + each(9, given) + num(20, 8)
        case _:
            return blob(1, name) + packed(8, given) + num(20, 7)


class Graph(bytes):
    """A GraphProto, as an attribute tells it from other bytes."""


class Tensor(bytes):
    """A TensorProto, as an attribute tells it from other bytes."""


def node(op, inputs, outputs, domain="", name="", **attributes):
    return (
        each(1, inputs)
        + each(2, outputs)
        + (blob(3, name) if name else b"")
        + blob(4, op)
        + each(5, [attribute(key, given) for key, given in attributes.items()])
        + (blob(7, domain) if domain else b"")
    )


def graph(nodes, inputs, outputs, initializers=(), more=b"", name="hostile"):
    return Graph(each(1, nodes) + blob(2, name) + each(5, initializers) + each(11, inputs) + each(12, outputs) + more)


def function(name, inputs, outputs, nodes, domain="local", opset=17):
    imports = [blob(1, "") + num(2, opset), blob(1, domain) + num(2, 1)]
    return blob(1, name) + each(4, inputs) + each(5, outputs) + each(7, nodes) + each(9, imports) + blob(10, domain)


def file(
    graph_proto, opset=17, ir=8, domains=(("ai.onnx.ml", 3), ("com.microsoft", 1), ("local", 1)), functions=(), more=b""
):
    """A model file. `opset` None imports none."""
    imports = [] if opset is None else [("", opset)]
    imports += domains
    return (
        num(1, ir)
        + (b"" if graph_proto is None else blob(7, graph_proto))
        + each(8, [blob(1, domain) + num(2, version) for domain, version in imports])
        + each(25, functions)
        + more
    )


def one_to_one(nodes, initializers=(), element=FLOAT, shape=("N", 4), out=None, more=b"", **file_more):
    """A model from `x` to `y`. `out` is (element, shape) of `y` where they differ from those of `x`."""
    out_element, out_shape = out or (element, shape)
    made = graph(nodes, [port("x", element, shape)], [port("y", out_element, out_shape)], initializers, more)
    return file(made, **file_more)


IDENTITY = node("Identity", ["x"], ["y"])


def identity(**more):
    """A good model, to be spoilt."""
    return one_to_one([IDENTITY], **more)

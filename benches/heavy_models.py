#!/usr/bin/env python3
"""Writes models with the arithmetic of MiniLM-L6 and ResNet-18, with random weights, for `cargo bench --bench ceiling -- heavy`.

    PYTHONPATH=<site of tests/clients> python3 benches/heavy_models.py FOLDER

What a call costs does not depend on the weights. `minilm` takes `input_ids` and `attention_mask` [batch, length] and gives a
sentence embedding of 384 numbers (6 layers of width 384, 12 heads, 1536 inside, as in the published model); `resnet18` takes
`pixels` [batch, 3, 224, 224] and gives 1,000 scores.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, INSIDE, LAYERS, WORDS, POSITIONS = 384, 12, 1536, 6, 30522, 512


class Graph:
    def __init__(self):
        self.random = np.random.default_rng(1)
        self.nodes, self.weights = [], []

    def constant(self, value):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape):
        return self.constant(self.random.normal(0, 0.02, shape).astype(np.float32))

    def add(self, kind, *inputs, **attributes):
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def dense(self, x, inputs, outputs):
        return self.add("Add", self.add("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs))

    def norm(self, x):
        return self.add("LayerNormalization", x, self.constant(np.ones(WIDTH, np.float32)), self.weight(WIDTH), axis=-1)

    def save(self, path, inputs, output, shape):
        self.nodes[-1].output[0] = output
        graph = helper.make_graph(self.nodes, "g", inputs, [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)], self.weights)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def heads(g, x):
    parted = g.add("Reshape", x, g.constant(np.array([0, 0, HEADS, WIDTH // HEADS], np.int64)))
    return g.add("Transpose", parted, perm=[0, 2, 1, 3])


def minilm(path):
    g = Graph()
    length = g.add("Gather", g.add("Shape", "input_ids"), g.constant(np.array(1, np.int64)))
    places = g.add("Range", g.constant(np.array(0, np.int64)), length, g.constant(np.array(1, np.int64)))
    words = g.add("Gather", g.weight(WORDS, WIDTH), "input_ids")
    x = g.norm(g.add("Add", words, g.add("Gather", g.weight(POSITIONS, WIDTH), places)))
    mask = g.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = g.add("Mul", g.add("Sub", mask, g.constant(np.float32(1).reshape(()))), g.constant(np.float32(1e4).reshape(())))
    hidden = g.add("Unsqueeze", hidden, g.constant(np.array([1, 2], np.int64)))
    for _ in range(LAYERS):
        q, k, v = (heads(g, g.dense(x, WIDTH, WIDTH)) for _ in range(3))
        scores = g.add("MatMul", q, g.add("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.add("Div", scores, g.constant(np.float32((WIDTH // HEADS) ** 0.5).reshape(())))
        seen = g.add("MatMul", g.add("Softmax", g.add("Add", scores, hidden), axis=-1), v)
        seen = g.add("Reshape", g.add("Transpose", seen, perm=[0, 2, 1, 3]), g.constant(np.array([0, 0, WIDTH], np.int64)))
        x = g.norm(g.add("Add", x, g.dense(seen, WIDTH, WIDTH)))
        inside = g.dense(x, WIDTH, INSIDE)
        half = g.add("Add", g.add("Erf", g.add("Div", inside, g.constant(np.float32(2**0.5).reshape(())))), g.constant(np.float32(1).reshape(())))
        gelu = g.add("Mul", g.add("Mul", inside, half), g.constant(np.float32(0.5).reshape(())))
        x = g.norm(g.add("Add", x, g.dense(gelu, INSIDE, WIDTH)))
    column = g.add("Unsqueeze", mask, g.constant(np.array([2], np.int64)))
    total = g.add("ReduceSum", g.add("Mul", x, column), g.constant(np.array([1], np.int64)), keepdims=0)
    g.add("Div", total, g.add("ReduceSum", mask, g.constant(np.array([1], np.int64)), keepdims=1))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("input_ids", "attention_mask")]
    g.save(path, inputs, "embedding", ["batch", WIDTH])


def resnet18(path):
    g = Graph()

    def convolution(x, inputs, outputs, size, stride):
        return g.add("Conv", x, g.weight(outputs, inputs, size, size), g.weight(outputs), kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)

    x = g.add("Relu", convolution("pixels", 3, 64, 7, 2))
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for outputs in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and outputs > 64 else 1
            past = x if stride == 1 else convolution(x, inputs, outputs, 1, stride)
            x = convolution(g.add("Relu", convolution(x, inputs, outputs, 3, stride)), outputs, outputs, 3, 1)
            x = g.add("Relu", g.add("Add", x, past))
            inputs = outputs
    x = g.add("Flatten", g.add("GlobalAveragePool", x))
    g.add("Gemm", x, g.weight(512, 1000), g.weight(1000))
    g.save(path, [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 224, 224])], "scores", ["batch", 1000])


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    minilm(folder / "minilm/1/model.onnx")
    resnet18(folder / "resnet18/1/model.onnx")

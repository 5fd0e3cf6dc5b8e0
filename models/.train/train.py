"""Rebuilds every bundled model from fixed seeds: `python models/.train/train.py`.

Always: accuracies are those of the written ONNX file on rows that training never saw, run by ONNX Runtime.
Always: the same library versions on the same kind of CPU give the same bytes.
Not here: the fixtures under tests/, see fixtures.py.
"""

import hashlib
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # this folder stays free of build output

from onnx_file import OPSET, TensorProto, constant, graph, helper, np, run, save, signature, tensor, write  # noqa: E402

from sklearn.datasets import load_breast_cancer, load_digits  # noqa: E402
from sklearn.ensemble import GradientBoostingClassifier  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from skl2onnx import to_onnx  # noqa: E402
from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: E402

from tickets_corpus import HELD_OUT, TRAINING, tickets  # noqa: E402

MODELS = Path(__file__).resolve().parent.parent
SEED = 17
HELD_OUT_SHARE = 0.3
PIXEL_MAX = 16.0
DIGIT_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main():
    build_digits()
    build_breast_cancer()
    build_tickets()
    build_simple()


# --- digits: three versions of one signature ---------------------------------------------------------------------


def build_digits():
    """Versions 1, 2 and 3 of `digits`: raw pixels [N,64] to a label [N] and ten probabilities [N,10]."""
    data = load_digits()
    images = data.data.astype(np.float32)
    rows = np.arange(len(images))
    train, test = train_test_split(rows, test_size=HELD_OUT_SHARE, stratify=data.target, random_state=SEED)
    pixels, labels = images[train] / PIXEL_MAX, data.target[train]

    linear = LogisticRegression(C=0.3, max_iter=2000).fit(pixels, labels)
    save_digits(1, dense_nodes([(linear.coef_.T, linear.intercept_)]))

    perceptron = MLPClassifier((32,), alpha=1e-3, max_iter=1000, random_state=SEED).fit(pixels, labels)
    save_digits(2, dense_nodes(list(zip(perceptron.coefs_, perceptron.intercepts_))))

    save_digits(3, convolution_nodes(*train_convolution(pixels, labels)))

    write(MODELS / "digits/digits_labels.txt", "\n".join(DIGIT_NAMES) + "\n")
    write(MODELS / "digits/config.pbtxt", DIGITS_CONFIG)

    answers = []
    for version in (1, 2, 3):
        path = MODELS / f"digits/{version}/model.onnx"
        answers.append(run(path, image=images[test])["label"])
        report(path, f"accuracy {accuracy(answers[-1], data.target[test])} on {len(test)} held-out rows")
        expect_rows_independent(path, image=images[test[:7]])
        print(f"    first held-out row (row {test[0]}, true label {data.target[test[0]]}):",
              describe(run(path, image=images[test[:1]])))
    print("    image", [int(v) for v in images[test[0]]])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        differ = int((answers[first] != answers[second]).sum())
        print(f"    versions {first + 1} and {second + 1} disagree on {differ} held-out rows")
    disputed = test[(answers[0] != data.target[test]) & (answers[2] == data.target[test])][0]
    print(f"    disputed row {disputed}, true label {data.target[disputed]}:",
          [int(run(MODELS / f"digits/{v}/model.onnx", image=images[[disputed]])["label"][0]) for v in (1, 2, 3)],
          [int(v) for v in images[disputed]])


def dense_nodes(layers):
    """Nodes and initializers for dense layers with ReLU between them, from `pixels` to `logits`."""
    nodes, initializers, value = [], [], "pixels"
    for number, (weight, bias) in enumerate(layers):
        last = number == len(layers) - 1
        out = "logits" if last else f"dense_{number}"
        initializers += [constant(f"weight_{number}", weight.astype(np.float32)),
                         constant(f"bias_{number}", bias.astype(np.float32))]
        nodes.append(helper.make_node("Gemm", [value, f"weight_{number}", f"bias_{number}"], [out]))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"relu_{number}"]))
            value = f"relu_{number}"
    return nodes, initializers


def convolution_nodes(kernel, kernel_bias, weight, bias):
    """Nodes and initializers for the convolution, from `pixels` to `logits`."""
    initializers = [
        constant("plane", np.array([-1, 1, 8, 8], np.int64)),
        constant("kernel", kernel.reshape(3, 3, 1, -1).transpose(3, 2, 0, 1).astype(np.float32)),
        constant("kernel_bias", kernel_bias.astype(np.float32)),
        # Training keeps channels last; ONNX pools with channels first.
        constant("weight", weight.reshape(4, 4, -1, 10).transpose(2, 0, 1, 3).reshape(-1, 10).astype(np.float32)),
        constant("bias", bias.astype(np.float32)),
    ]
    nodes = [
        helper.make_node("Reshape", ["pixels", "plane"], ["planes"]),
        helper.make_node("Conv", ["planes", "kernel", "kernel_bias"], ["features"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("MaxPool", ["positive"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
    ]
    return nodes, initializers


def save_digits(version, body):
    """Puts the scaling before `body` and label and probabilities after it, and writes the file."""
    nodes, initializers = body
    nodes = [
        helper.make_node("Div", ["image", "pixel_max"], ["pixels"]),
        *nodes,
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    save(
        graph(
            "digits",
            nodes,
            [tensor("image", TensorProto.FLOAT, ["N", 64])],
            [tensor("label", TensorProto.INT64, ["N"]), tensor("probabilities", TensorProto.FLOAT, ["N", 10])],
            [constant("pixel_max", np.float32(PIXEL_MAX)), *initializers],
        ),
        MODELS / f"digits/{version}/model.onnx",
    )


def train_convolution(pixels, labels, channels=24, epochs=60, batch=32):
    """Weights of convolution 3x3, ReLU, pool 2x2, dense; trained with Adam on images moved by up to one pixel."""
    rng = np.random.default_rng(SEED)
    weights = [
        rng.normal(0, np.sqrt(2 / 9), (9, channels)),
        np.zeros(channels),
        rng.normal(0, np.sqrt(2 / (16 * channels)), (16 * channels, 10)),
        np.zeros(10),
    ]
    means, squares = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    step, steps = 0, epochs * (len(pixels) // batch)
    for _ in range(epochs):
        order = rng.permutation(len(pixels))
        for start in range(0, len(pixels) - batch + 1, batch):
            rows = order[start:start + batch]
            step += 1
            rate = 3e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
            planes = moved(pixels[rows].reshape(-1, 8, 8), rng)
            for i, slope in enumerate(convolution_slopes(weights, planes, labels[rows])):
                # Adam with the constants of Kingma and Ba, 2015.
                means[i] = 0.9 * means[i] + 0.1 * slope
                squares[i] = 0.999 * squares[i] + 0.001 * slope**2
                mean, square = means[i] / (1 - 0.9**step), squares[i] / (1 - 0.999**step)
                weights[i] = weights[i] - rate * mean / (np.sqrt(square) + 1e-8)
    return weights


def moved(planes, rng):
    """The images, half of them moved by up to one pixel; what enters at the edge is empty."""
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    shifts = np.where(rng.random(len(planes))[:, None] < 0.5, rng.integers(0, 3, (len(planes), 2)), 1)
    return np.stack([plane[y:y + 8, x:x + 8] for plane, (y, x) in zip(padded, shifts)])


def convolution_slopes(weights, planes, labels):
    """The slope of the mean cross entropy by each weight."""
    kernel, kernel_bias, weight, bias = weights
    count, channels = len(planes), kernel.shape[1]
    patches = windows(planes)
    features = patches @ kernel + kernel_bias
    # [count, 4, 2, 4, 2, channels]: the two axes of length 2 are the pooled square.
    squares = np.maximum(features, 0).reshape(count, 4, 2, 4, 2, channels)
    pooled = squares.max(axis=(2, 4))
    flat = pooled.reshape(count, -1)
    logits = flat @ weight + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    by_logits = odds / odds.sum(axis=1, keepdims=True)
    by_logits[np.arange(count), labels] -= 1
    by_logits /= count

    by_pooled = (by_logits @ weight.T).reshape(pooled.shape)
    winners = (squares == pooled[:, :, None, :, None, :]) & (squares > 0)
    by_features = (winners * by_pooled[:, :, None, :, None, :]).reshape(-1, channels)
    return [patches.reshape(-1, 9).T @ by_features, by_features.sum(axis=0), flat.T @ by_logits, by_logits.sum(axis=0)]


def windows(planes):
    """im2col: the 3x3 neighbourhood of each pixel, [count, 64, 9]."""
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return around.reshape(len(planes), 64, 9)


# --- breast_cancer: trees, no config -----------------------------------------------------------------------------


def build_breast_cancer():
    """Gradient-boosted trees: 30 measurements to 0 (malignant) or 1 (benign)."""
    data = load_breast_cancer()
    features = data.data.astype(np.float32)
    rows = np.arange(len(features))
    train, test = train_test_split(rows, test_size=HELD_OUT_SHARE, stratify=data.target, random_state=SEED)
    trees = GradientBoostingClassifier(n_estimators=120, max_depth=3, subsample=0.7, random_state=SEED)
    trees.fit(features[train], data.target[train])

    path = MODELS / "breast_cancer/1/model.onnx"
    inputs = [("features", FloatTensorType([None, 30]))]
    save_converted(trees, "breast_cancer", inputs, {id(trees): {"zipmap": False}}, path)

    answer = run(path, features=features[test])
    report(path, f"accuracy {accuracy(answer['label'], data.target[test])} on {len(test)} held-out rows")
    expect_rows_independent(path, features=features[test[:7]])
    expect_near(run(path, features=features)["probabilities"], trees.predict_proba(features))
    for wanted in (0, 1):
        row = test[data.target[test] == wanted][0]
        print(f"    row {row}, true label {wanted}:", describe(run(path, features=features[[row]])))
        print("    features", [float(str(v)) for v in features[row]])


# --- tickets: text in, text out ----------------------------------------------------------------------------------


def build_tickets():
    """Words and pairs of words, weighed by TF-IDF, to one of five kinds of support ticket."""
    texts, kinds = tickets(TRAINING, per_template=12, seed=SEED)
    test_texts, test_kinds = tickets(HELD_OUT, per_template=12, seed=SEED + 1)
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=8, token_pattern="[a-zA-Z]+")
    classifier = make_pipeline(words, LogisticRegression(C=10, max_iter=2000)).fit(texts, kinds)

    path = MODELS / "tickets/1/model.onnx"
    options = {id(words): {"tokenexp": "[a-zA-Z]+"}, id(classifier): {"zipmap": False}}
    save_converted(classifier, "tickets", [("text", StringTensorType([None, 1]))], options, path)
    write(MODELS / "tickets/tickets_labels.txt", "\n".join(classifier.classes_) + "\n")
    write(MODELS / "tickets/config.pbtxt", TICKETS_CONFIG)

    answer = run(path, text=column(test_texts))
    sentences = sum(len(t) for t in HELD_OUT.values())
    report(path, f"accuracy {accuracy(answer['label'], test_kinds)} on {len(test_texts)} texts from {sentences} "
                 f"held-out templates; trained on {len(texts)} texts, {len(words.vocabulary_)} terms")
    expect_rows_independent(path, text=column(test_texts[:7]))
    expect_near(answer["probabilities"], classifier.predict_proba(test_texts))
    for text in ["I was charged twice, please refund my card.", "", "ÄÖÜ 漢字 🙂", "PASSWORD reset"]:
        print(f"    {text!r}:", describe(run(path, text=column([text]))))


def column(texts):
    """Strings as a tensor [N,1]."""
    return np.array(texts, dtype=object).reshape(-1, 1)


# --- simple: Triton's first example ------------------------------------------------------------------------------


def build_simple():
    """The sum and the difference of two rows of 16 integers."""
    path = MODELS / "simple/1/model.onnx"
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    inputs = [tensor(name, TensorProto.INT32, ["N", 16]) for name in ("INPUT0", "INPUT1")]
    outputs = [tensor(name, TensorProto.INT32, ["N", 16]) for name in ("OUTPUT0", "OUTPUT1")]
    save(graph("simple", nodes, inputs, outputs), path)
    write(MODELS / "simple/config.pbtxt", SIMPLE_CONFIG)

    left, right = np.arange(16, dtype=np.int32)[None], np.ones((1, 16), np.int32)
    answer = run(path, INPUT0=left, INPUT1=right)
    assert (answer["OUTPUT0"] == left + right).all() and (answer["OUTPUT1"] == left - right).all()
    report(path, "exact")


# --- what the builds share ---------------------------------------------------------------------------------------


def save_converted(trained, name, inputs, options, path):
    """Converts a scikit-learn model; names the first dimension of every input and output "N"."""
    opsets = {"": OPSET, "ai.onnx.ml": 3}
    model = to_onnx(trained, initial_types=inputs, options=options, target_opset=opsets, name=name)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
        value.ClearField("doc_string")
    for node in model.graph.node:
        node.ClearField("doc_string")
        if node.op_type == "StringNormalizer":
            # The default asks the machine for the locale en_US, which small container images lack; then the file
            # does not load. "C" is always there, and lowers A to Z, which is all the tokens hold.
            for attribute in list(node.attribute):
                if attribute.name == "locale":
                    node.attribute.remove(attribute)
            node.attribute.append(helper.make_attribute("locale", "C"))
    save(model, path)


def accuracy(answers, truth):
    """The share of right answers."""
    return f"{np.mean(np.asarray(answers).reshape(-1) == np.asarray(truth)):.3f}"


def expect_near(answers, truth):
    """The converted model must answer as the trained one did."""
    gap = float(np.abs(answers - truth).max())
    assert gap < 1e-4, f"the ONNX file differs from the trained model by {gap}"


def expect_rows_independent(path, **inputs):
    """A batch must give what its rows give one at a time, or the server may not batch the model."""
    (name, rows), = inputs.items()
    together = run(path, **inputs)
    for row in range(len(rows)):
        alone = run(path, **{name: rows[row:row + 1]})
        for output, values in together.items():
            if values.dtype == np.float32:
                assert np.abs(values[row] - alone[output][0]).max() < 1e-6, f"{path}: row {row} depends on the batch"
            else:
                assert values[row] == alone[output][0], f"{path}: row {row} depends on the batch"


def describe(answer):
    """The answer, its probabilities rounded to four digits."""
    return {name: np.round(values.astype(np.float64), 4).tolist() if values.dtype == np.float32 else values.tolist()
            for name, values in answer.items()}


def report(path, result):
    """Prints what a written file holds and how good it is."""
    data = path.read_bytes()
    print(f"{path.relative_to(MODELS)}: {result}; {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}")
    print(signature(path))


DIGITS_CONFIG = """\
name: "digits"
platform: "onnxruntime_onnx"
max_batch_size: 64

input [
  {
    name: "image"
    data_type: TYPE_FP32
    dims: [ 64 ]
  }
]

# The file's `label` is [N], with no dimension left once N is the batch. A config cannot list no dimensions, so it
# lists one and reshapes it away.
output [
  {
    name: "label"
    data_type: TYPE_INT64
    dims: [ 1 ]
    reshape: { shape: [ ] }
  },
  {
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ 10 ]
    label_filename: "digits_labels.txt"
  }
]

version_policy: { all { } }

dynamic_batching { }
"""

TICKETS_CONFIG = """\
name: "tickets"
platform: "onnxruntime_onnx"
max_batch_size: 32

input [
  {
    name: "text"
    data_type: TYPE_STRING
    dims: [ 1 ]
  }
]

output [
  {
    name: "label"
    data_type: TYPE_STRING
    dims: [ 1 ]
    reshape: { shape: [ ] }
  },
  {
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ 5 ]
    label_filename: "tickets_labels.txt"
  }
]

dynamic_batching { }
"""

SIMPLE_CONFIG = """\
name: "simple"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {
    name: "INPUT0"
    data_type: TYPE_INT32
    dims: [ 16 ]
  },
  {
    name: "INPUT1"
    data_type: TYPE_INT32
    dims: [ 16 ]
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_INT32
    dims: [ 16 ]
  },
  {
    name: "OUTPUT1"
    data_type: TYPE_INT32
    dims: [ 16 ]
  }
]
dynamic_batching { }
"""

if __name__ == "__main__":
    main()

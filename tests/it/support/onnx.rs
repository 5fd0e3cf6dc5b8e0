//! ONNX files that a test writes: small graphs, weights of any size, without an ONNX library.
//!
//! Field numbers are those of the ONNX standard (onnx.proto3).

// `TensorProto.DataType`.
const FLOAT: u64 = 1;
pub const INT32: u64 = 6;
pub const INT64: u64 = 7;
pub const BOOL: u64 = 9;

// `AttributeProto.AttributeType`.
const INT: u64 = 2;
const GRAPH: u64 = 5;
const FLOATS: u64 = 6;
const INTS: u64 = 7;
const STRINGS: u64 = 8;

/// The domain of operators of machine learning.
const MACHINE_LEARNING: &str = "ai.onnx.ml";

/// A graph, put together node by node; its tensors are FP32 unless it is said. Names are its wires.
#[derive(Default)]
pub struct Graph(Message);

impl Graph {
    /// An input; `None` is an open dimension.
    #[must_use]
    pub fn input(self, name: &str, dims: &[Option<u64>]) -> Self {
        self.input_of(FLOAT, name, dims)
    }

    /// An input of another element type.
    #[must_use]
    pub fn input_of(self, element: u64, name: &str, dims: &[Option<u64>]) -> Self {
        Self(self.0.message(11, value(element, name, dims)))
    }

    /// An output; `None` is an open dimension.
    #[must_use]
    pub fn output(self, name: &str, dims: &[Option<u64>]) -> Self {
        self.output_of(FLOAT, name, dims)
    }

    /// An output of another element type.
    #[must_use]
    pub fn output_of(self, element: u64, name: &str, dims: &[Option<u64>]) -> Self {
        Self(self.0.message(12, value(element, name, dims)))
    }

    /// A constant of that shape.
    #[must_use]
    pub fn constant(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self(self.0.message(5, constant(FLOAT, name, dims, &data)))
    }

    /// A constant of INT64 of that shape.
    #[must_use]
    pub fn integers(self, name: &str, dims: &[u64], values: &[i64]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self(self.0.message(5, constant(INT64, name, dims, &data)))
    }

    /// An operator without attributes.
    #[must_use]
    pub fn node(self, operator: &str, inputs: &[&str], output: &str) -> Self {
        let node = inputs.iter().fold(Message::default(), |node, input| node.text(1, input));
        Self(self.0.message(1, node.text(2, output).text(4, operator)))
    }

    /// A loop that runs as often as the wire `count` says, and negates `from` each time; the last result is `to`.
    #[must_use]
    pub fn negating_loop(self, count: &str, from: &str, to: &str) -> Self {
        let body = Self::default()
            .input_of(INT64, "step", &[])
            .input_of(BOOL, "go_on", &[])
            .input("before", &[None])
            .output_of(BOOL, "goes_on", &[])
            .output("after", &[None])
            .node("Identity", &["go_on"], "goes_on")
            .node("Neg", &["before"], "after");
        let attribute =
            Message::default().text(1, "body").message(6, body.0.text(2, "body")).number(20, GRAPH);
        // Nothing but the count ends it.
        let node = [count, "", from].iter().fold(Message::default(), |node, input| node.text(1, input));
        Self(self.0.message(1, node.text(2, to).text(4, "Loop").message(5, attribute)))
    }

    /// Fully connected layers of the given widths from wire `from` to wire `to`, with random weights from `seed`
    /// and a ReLU after each but the last.
    #[must_use]
    pub fn layers(self, from: &str, widths: &[u64], to: &str, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut wire = from.to_owned();
        let last = widths.len() - 2;
        widths.windows(2).enumerate().fold(self, |graph, (i, pair)| {
            let (weights, sum) = (format!("{to}_weights{i}"), format!("{to}_sum{i}"));
            // Sums of this many terms stay about as large as the terms.
            let scale = (12.0 / pair[0] as f32).sqrt();
            let values: Vec<f32> = (0..pair[0] * pair[1]).map(|_| (random.f32() - 0.5) * scale).collect();
            let graph = graph.constant(&weights, pair, &values);
            if i == last {
                return graph.node("MatMul", &[&wire, &weights], to);
            }
            let graph = graph.node("MatMul", &[&wire, &weights], &sum);
            let next = format!("{to}_layer{i}");
            let graph = graph.node("Relu", &[&sum], &next);
            wire = next;
            graph
        })
    }

    /// A tree that has so many levels, each with one leaf and the rest of the tree, and sums 1 for each input.
    #[must_use]
    pub fn deep_tree(self, levels: u64, from: &str, to: &str) -> Self {
        let nodes = 2 * levels + 1;
        let is_branch = |node: u64| node.is_multiple_of(2) && node + 1 < nodes;
        let numbers = |name: &str, of: &dyn Fn(u64) -> Option<u64>| {
            let attribute = Message::default().text(1, name).number(20, INTS);
            (0..nodes).filter_map(of).fold(attribute, |attribute, number| attribute.number(8, number))
        };
        let leaf = |node: u64, number: u64| (!is_branch(node)).then_some(number);
        let to_child = |node: u64, child: u64| Some(if is_branch(node) { node + child } else { 0 });
        let modes = Message::default().text(1, "nodes_modes").number(20, STRINGS);
        let modes = (0..nodes)
            .fold(modes, |all, node| all.text(9, if is_branch(node) { "BRANCH_LEQ" } else { "LEAF" }));
        let floats = |name: &str, count: u64| {
            let packed: Vec<u8> = (0..count).flat_map(|_| 1f32.to_le_bytes()).collect();
            Message::default().text(1, name).number(20, FLOATS).bytes(7, &packed)
        };
        let attributes = [
            Message::default().text(1, "n_targets").number(20, INT).number(3, 1),
            numbers("nodes_treeids", &|_| Some(0)),
            numbers("nodes_nodeids", &Some),
            numbers("nodes_featureids", &|_| Some(0)),
            modes,
            floats("nodes_values", nodes),
            numbers("nodes_truenodeids", &|node| to_child(node, 2)),
            numbers("nodes_falsenodeids", &|node| to_child(node, 1)),
            numbers("target_treeids", &|node| leaf(node, 0)),
            numbers("target_nodeids", &|node| leaf(node, node)),
            numbers("target_ids", &|node| leaf(node, 0)),
            floats("target_weights", levels + 1),
        ];
        let node = Message::default().text(1, from).text(2, to).text(4, "TreeEnsembleRegressor");
        let node = attributes.into_iter().fold(node.text(7, MACHINE_LEARNING), |node, a| node.message(5, a));
        Self(self.0.message(1, node))
    }

    /// The file.
    #[must_use]
    pub fn file(self) -> Vec<u8> {
        let opset = Message::default().number(2, 17);
        let learning = Message::default().text(1, MACHINE_LEARNING).number(2, 3);
        let model = Message::default().number(1, 8).message(8, opset).message(8, learning);
        model.message(7, self.0.text(2, "graph")).0
    }
}

fn value(element: u64, name: &str, dims: &[Option<u64>]) -> Message {
    let shape = dims.iter().fold(Message::default(), |shape, dim| {
        shape.message(
            1,
            match dim {
                Some(size) => Message::default().number(1, *size),
                None => Message::default().text(2, "N"),
            },
        )
    });
    let tensor = Message::default().number(1, element).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

fn constant(element: u64, name: &str, dims: &[u64], data: &[u8]) -> Message {
    let tensor = dims.iter().fold(Message::default(), |tensor, dim| tensor.number(1, *dim));
    tensor.number(2, element).text(8, name).bytes(9, data)
}

/// A protobuf message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: Self) -> Self {
        self.bytes(field, &message.0)
    }
}

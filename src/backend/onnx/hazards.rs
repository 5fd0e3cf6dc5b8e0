//! What in a graph could harm the process that runs it.
//!
//! Always: pure; what is not known to be harmless counts as a hazard. A graph without hazards takes time and memory that
//! its inputs' sizes bound, and does nothing that the processor refuses.
//! Known to harm, with ONNX Runtime 1.31: integer division ends the process (SIGFPE) by a zero divisor and by the
//! smallest number over −1; sizes that come from values take any memory; loops that are counted by values take any time.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, type_proto};

/// Hazards that are told; a graph may have thousands.
const TOLD_MAX: usize = 8;

/// Domains whose operators are read: the standard's, its machine learning part, and ONNX Runtime's own. Another domain
/// needs a library of custom operators, which is code.
pub const DOMAINS: [&str; 5] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"];

/// Elements that an output whose size is a constant may have without being a hazard: 4 MiB of floats.
const CONSTANT_ELEMENTS_MAX: i64 = 1 << 20;

/// Padding and repetition by constants beyond this is a hazard: a kernel's border, not a canvas.
const CONSTANT_SIZE_MAX: i64 = 1024;

/// Operators whose work and results are bounded by the sizes of their inputs, whatever the values.
const BOUNDED: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BatchNormalization",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvInteger",
    "Cos",
    "Cosh",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Dropout",
    "DynamicQuantizeLinear",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "If",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "LpPool",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Mean",
    "MeanVarianceNormalization",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RMSNormalization",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Round",
    "Selu",
    "Shape",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
    // Strings.
    "StringNormalizer",
    "TfIdfVectorizer",
];

/// The same of the machine learning domain. Those whose attributes are arrays that must agree are elsewhere.
const BOUNDED_ML: &[&str] = &[
    "ArrayFeatureExtractor",
    "Binarizer",
    "FeatureVectorizer",
    "Imputer",
    "LabelEncoder",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "OneHotEncoder",
    "Scaler",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
];

/// The same of ONNX Runtime's own domain, which its own tools write when they optimise or quantise.
const BOUNDED_MICROSOFT: &[&str] = &[
    "BiasGelu",
    "DynamicQuantizeMatMul",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gelu",
    "MatMulIntegerToFloat",
    "QLinearAdd",
    "QLinearGlobalAveragePool",
    "QLinearMul",
    "QLinearSigmoid",
    "QuickGelu",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
];

/// Operators whose output has another type than their first input: (name, type as the standard numbers it).
const TYPED: &[(&str, i32)] = &[
    ("Shape", INT64),
    ("Size", INT64),
    ("ArgMax", INT64),
    ("ArgMin", INT64),
    ("NonZero", INT64),
    ("Equal", BOOL),
    ("Greater", BOOL),
    ("GreaterOrEqual", BOOL),
    ("Less", BOOL),
    ("LessOrEqual", BOOL),
    ("IsNaN", BOOL),
    ("IsInf", BOOL),
    ("Not", BOOL),
    ("And", BOOL),
    ("Or", BOOL),
    ("Xor", BOOL),
    ("MatMulInteger", INT32),
    ("ConvInteger", INT32),
    ("Normalizer", FLOAT),
    ("Scaler", FLOAT),
    ("TreeEnsembleRegressor", FLOAT),
    ("LinearRegressor", FLOAT),
    ("TfIdfVectorizer", FLOAT),
];

/// Operators whose output has the type of an input that is not the first.
const TYPED_BY_INPUT: &[(&str, usize)] = &[("Where", 1), ("CastLike", 1)];

/// Operators of which nothing is known of the output's type by the first input.
const UNTYPED: &[&str] = &[
    "DequantizeLinear",
    "QuantizeLinear",
    "LabelEncoder",
    "If",
    "TreeEnsembleClassifier",
    "LinearClassifier",
    "DynamicQuantizeLinear",
    "QLinearMatMul",
    "QLinearConv",
    "ConstantOfShape",
    "OneHot",
];

// Numbers of TensorProto.DataType in the ONNX standard.
const FLOAT: i32 = 1;
const INT32: i32 = 6;
const INT64: i32 = 7;
const BOOL: i32 = 9;
/// Of AttributeProto.AttributeType.
const TENSOR: i32 = 4;
/// FLOAT16, DOUBLE, BFLOAT16 beside FLOAT.
const FLOATS: [i32; 4] = [FLOAT, 10, 11, 16];

/// A domain that is not on the list, if the model names one.
pub fn foreign_domain(model: &ModelProto) -> Option<String> {
    let mut found = None;
    let mut look = |node: &NodeProto| {
        let local = || model.functions.iter().any(|f| f.domain == node.domain && f.name == node.op_type);
        if found.is_none() && !DOMAINS.contains(&node.domain.as_str()) && !local() {
            found = Some(node.domain.clone());
        }
    };
    let graphs = model.graph.iter().flat_map(|graph| &graph.node);
    let bodies = model.functions.iter().flat_map(|function| &function.node);
    graphs.chain(bodies).for_each(|node| each_node(node, &mut look));
    found
}

fn each_node(node: &NodeProto, look: &mut impl FnMut(&NodeProto)) {
    look(node);
    let graphs = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
    graphs.flat_map(|graph| &graph.node).for_each(|node| each_node(node, look));
}

/// The hazards of a model, each as a word or two. Empty: none is known.
pub fn hazards(model: &ModelProto) -> Vec<String> {
    let ambiguous = model.graph.as_ref().map(ambiguous).unwrap_or_default();
    let mut scan = Scan { ambiguous, ..Scan::default() };
    if !model.functions.is_empty() {
        scan.note("local functions");
    }
    for function in &model.functions {
        function.node.iter().for_each(|node| scan.node(node));
    }
    if let Some(graph) = &model.graph {
        scan.graph(graph);
    }
    scan.found.into_iter().collect()
}

/// Operators whose output is as large as their input, give or take the size of an element.
const LINEAR: &[&str] = &[
    "Abs",
    "Cast",
    "Ceil",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "HardSigmoid",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
];

/// Those that are so with a constant of one element.
const LINEAR_BY_ONE: &[&str] = &["Add", "Div", "Mul", "Pow", "Sub"];

/// How many times the bytes of its smallest input a graph's results may take without growing.
const GROWTH_MAX: u64 = 8;

/// Whether what a graph computes may grow faster than its inputs, or by more than [`GROWTH_MAX`] times.
pub fn grows(graph: &GraphProto) -> bool {
    let ambiguous = ambiguous(graph);
    let is_input = |name: &String| graph.input.iter().any(|input| input.name == *name);
    let one = |name: &String| {
        let constant = graph.initializer.iter().find(|tensor| tensor.name == *name);
        let of_one =
            |tensor: &TensorProto| tensor.dims.len() <= 1 && tensor.dims.iter().all(|size| *size == 1);
        // A request may replace a default.
        constant.is_some_and(of_one) && !is_input(name) && !ambiguous.contains(name.as_str())
    };
    let linear = |node: &NodeProto| {
        let operator = node.op_type.as_str();
        let by_one = LINEAR_BY_ONE.contains(&operator) && node.input.iter().any(one);
        node.domain.is_empty() && (LINEAR.contains(&operator) || by_one)
    };
    // Each may keep its output in memory.
    if graph.node.len() > 64 || !graph.node.iter().all(linear) {
        return true;
    }
    let mut scan = Scan { ambiguous, ..Scan::default() };
    scan.graph(graph);
    let bytes = |name: &str| element_bytes(scan.types.get(name).copied().unwrap_or_default());
    let inputs = graph.input.iter().map(|input| bytes(&input.name)).min();
    let outputs: Option<u64> = graph.output.iter().map(|output| bytes(&output.name)).sum();
    // What an operator reads and what it writes.
    let made = graph.node.iter().flat_map(|node| &node.output).map(|name| bytes(name));
    let widest = made.collect::<Option<Vec<u64>>>().map(|bytes| bytes.into_iter().max().unwrap_or(0));
    match (inputs, outputs, widest) {
        // Without inputs there is nothing that requests could make larger.
        (None, ..) => false,
        (Some(Some(input)), Some(outputs), Some(widest)) => outputs + 2 * widest > GROWTH_MAX * input,
        _ => true,
    }
}

/// Bytes of an element, those below one as one. `None`: strings, which are of any size, and what is not known.
fn element_bytes(kind: i32) -> Option<u64> {
    // Numbers of TensorProto.DataType in the ONNX standard.
    match kind {
        2 | 3 | BOOL | 17..=23 | 25 | 26 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        FLOAT | INT32 | 12 => Some(4),
        INT64 | 11 | 13 | 14 => Some(8),
        _ => None,
    }
}

/// What is known on the way through a graph. Names are taken to mean one thing in a model and its inner graphs, which
/// the standard asks for; of those that do not nothing is known, for ONNX Runtime lets the last or the innermost win.
#[derive(Default)]
struct Scan<'a> {
    types: HashMap<&'a str, i32>,
    constants: HashMap<&'a str, &'a TensorProto>,
    /// Names whose values come from constants and sizes alone, whatever the values of the inputs.
    settled: HashSet<&'a str>,
    found: BTreeSet<String>,
    ambiguous: HashSet<&'a str>,
}

impl<'a> Scan<'a> {
    fn note(&mut self, hazard: &str) {
        if self.found.len() < TOLD_MAX {
            self.found.insert(hazard.to_owned());
        }
    }

    fn graph(&mut self, graph: &'a GraphProto) {
        // What a graph says of names that another one defines, ONNX Runtime holds against nothing.
        let put_out: HashSet<&str> =
            graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        let said = graph.value_info.iter().chain(&graph.output);
        let said = said.filter(|value| put_out.contains(value.name.as_str()));
        for value in graph.input.iter().chain(said) {
            let kind = value.r#type.as_ref().and_then(|t| t.value.as_ref());
            if let Some(type_proto::Value::TensorType(tensor)) = kind {
                self.learn(&value.name, tensor.elem_type);
            }
        }
        for tensor in &graph.initializer {
            self.learn(&tensor.name, tensor.data_type);
            // An input of the same name may replace it.
            if !graph.input.iter().any(|input| input.name == tensor.name) {
                self.keep(&tensor.name, tensor);
            }
        }
        graph.node.iter().for_each(|node| self.node(node));
    }

    fn keep(&mut self, name: &'a str, constant: &'a TensorProto) {
        if !self.ambiguous.contains(name) {
            self.constants.insert(name, constant);
            self.settled.insert(name);
        }
    }

    /// Learns whether a node's outputs are settled.
    fn settle(&mut self, node: &'a NodeProto) {
        let settled = match node.op_type.as_str() {
            "Shape" | "Size" | "Constant" => true,
            _ => {
                let inner = node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
                let mut inputs = node.input.iter().filter(|name| !name.is_empty()).peekable();
                !inner && inputs.peek().is_some() && inputs.all(|name| self.settled.contains(name.as_str()))
            }
        };
        if settled {
            let outputs = node.output.iter().map(String::as_str);
            self.settled.extend(outputs.filter(|name| !name.is_empty() && !self.ambiguous.contains(name)));
        }
    }

    fn learn(&mut self, name: &'a str, kind: i32) {
        let kind = if self.ambiguous.contains(name) { 0 } else { kind };
        let known = self.types.entry(name).or_insert(kind);
        if *known != kind {
            *known = 0;
        }
    }

    fn node(&mut self, node: &'a NodeProto) {
        let bounded = match node.domain.as_str() {
            "" | "ai.onnx" => BOUNDED.contains(&node.op_type.as_str()) || self.bounded_by_constants(node),
            "ai.onnx.ml" => BOUNDED_ML.contains(&node.op_type.as_str()),
            _ => BOUNDED_MICROSOFT.contains(&node.op_type.as_str()),
        };
        if !bounded {
            let name: String = node.op_type.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
            self.note(&name);
        }
        if self.hides_rank(node) {
            self.note(&format!("{} to an unknown number of dimensions", node.op_type));
        }
        let mut named = HashSet::new();
        if !node.attribute.iter().all(|a| named.insert(a.name.as_str())) {
            // ONNX Runtime takes the last of them; a table of what it does is not worth its mistakes.
            self.note("an attribute twice");
        }
        // Borders and shapes by attribute: a kernel's own, not a canvas.
        let large = |a: &&AttributeProto| {
            ["pads", "output_padding", "output_shape", "shape"].contains(&a.name.as_str())
                && a.ints.iter().any(|size| size.unsigned_abs() > CONSTANT_SIZE_MAX as u64)
        };
        if node.op_type != "Reshape" && node.attribute.iter().any(|a| large(&a)) {
            self.note(&format!("{} of a large size", node.op_type.chars().take(40).collect::<String>()));
        }
        for graph in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
            self.graph(graph);
        }
        self.learn_output(node);
        self.settle(node);
    }

    /// Whether nobody knows before it runs how many dimensions a node's output has. ONNX Runtime checks ranks when it
    /// opens a model, and some operators rely on it: a convolution of fewer than two dimensions ends the process.
    fn hides_rank(&self, node: &NodeProto) -> bool {
        let constant = |at: usize| node.input.get(at).is_some_and(|name| self.integers(name).is_some());
        let attribute = |name: &str| node.attribute.iter().any(|a| a.name == name);
        let operator = node.op_type.as_str();
        match operator {
            "Squeeze" | "Unsqueeze" => !constant(1) && !attribute("axes"),
            "Reshape" => !constant(1) && !attribute("shape"),
            "If" => true,
            // Without axes all of them are reduced, which leaves as many or none.
            _ if operator.starts_with("Reduce") => node.input.len() > 1 && !constant(1),
            _ => false,
        }
    }

    /// Operators that are bounded if what sizes them, or divides, is a harmless constant.
    fn bounded_by_constants(&self, node: &NodeProto) -> bool {
        let constant = |at: usize| self.integers(node.input.get(at)?);
        let product = |sizes: &[i64]| {
            sizes.iter().try_fold(1i64, |n, &size| n.checked_mul(size.max(1))).unwrap_or(i64::MAX)
        };
        // An input that is left out is a name without letters. Old versions of the standard have attributes instead.
        let sized_by_none = |from: usize| {
            let mut sizes = node.input.iter().skip(from).filter(|name| !name.is_empty());
            sizes.all(|name| self.settled.contains(name.as_str()))
        };
        let each_small = |sizes: &Vec<i64>| sizes.iter().all(|size| size.abs() <= CONSTANT_SIZE_MAX);
        match node.op_type.as_str() {
            "Div" | "Mod" => {
                let of_floats = |at: usize| {
                    node.input
                        .get(at)
                        .and_then(|name| self.types.get(name.as_str()))
                        .is_some_and(|kind| FLOATS.contains(kind))
                };
                // Of floats, Mod is the C library's fmod.
                of_floats(0)
                    || of_floats(1)
                    || constant(1).is_some_and(|by| by.iter().all(|n| *n != 0 && *n != -1))
            }
            // Sizes that a request's values choose may be multiplied with each other later on.
            "Slice" | "TopK" | "Split" => sized_by_none(1),
            "ConstantOfShape" => constant(0).is_some_and(|shape| product(&shape) <= CONSTANT_ELEMENTS_MAX),
            "Expand" => constant(1).is_some_and(|shape| product(&shape) <= CONSTANT_SIZE_MAX),
            "Tile" => constant(1).is_some_and(|repeats| product(&repeats) <= CONSTANT_SIZE_MAX),
            "Pad" => match node.input.len() {
                // Before version 11 of the standard the pads are an attribute, which is looked at for every operator.
                1 => true,
                _ => constant(1).as_ref().is_some_and(each_small),
            },
            _ => false,
        }
    }

    /// The numbers of a constant of integers, if it is small enough to be looked at.
    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.constants.get(name)?;
        // External data is not here to be looked at.
        if tensor.data_location != 0 {
            return None;
        }
        let raw = &tensor.raw_data;
        let wide = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("chunks have that size"));
        let narrow = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().expect("chunks have that size"));
        let numbers: Vec<i64> = match tensor.data_type {
            INT64 if !raw.is_empty() => raw.chunks_exact(8).take(4096).map(wide).collect(),
            INT64 => tensor.int64_data.iter().take(4096).copied().collect(),
            INT32 if !raw.is_empty() => raw.chunks_exact(4).take(4096).map(|b| narrow(b).into()).collect(),
            INT32 => tensor.int32_data.iter().take(4096).map(|n| i64::from(*n)).collect(),
            _ => return None,
        };
        let elements = tensor.dims.iter().try_fold(1i64, |n, d| n.checked_mul(*d))?;
        (elements == numbers.len() as i64 && elements < 4096).then_some(numbers)
    }

    fn learn_output(&mut self, node: &'a NodeProto) {
        let Some(first) = node.output.first().map(String::as_str) else { return };
        let of_input = |at: usize| node.input.get(at).and_then(|name| self.types.get(name.as_str())).copied();
        let operator = node.op_type.as_str();
        let kind = if let Some((_, kind)) = TYPED.iter().find(|(name, _)| *name == operator) {
            Some(*kind)
        } else if let Some((_, at)) = TYPED_BY_INPUT.iter().find(|(name, _)| *name == operator) {
            of_input(*at)
        } else if operator == "Cast" {
            node.attribute.iter().find(|a| a.name == "to").and_then(|a| i32::try_from(a.i).ok())
        } else if operator == "Constant" {
            // Of several attributes ONNX Runtime takes the first, whatever its name, and of what it holds that of its type.
            let value = match node.attribute.as_slice() {
                [only] if only.name == "value" && only.r#type == TENSOR => only.t.as_ref(),
                _ => None,
            };
            if let Some(tensor) = value {
                self.keep(first, tensor);
            }
            value.map(|tensor| tensor.data_type)
        } else if UNTYPED.contains(&operator) || !node.domain.is_empty() && node.domain != "ai.onnx" {
            None
        } else {
            of_input(0)
        };
        let Some(kind) = kind.filter(|kind| *kind != 0) else { return };
        self.learn(first, kind);
        // Split gives several of one type.
        if operator == "Split" {
            node.output.iter().skip(1).for_each(|output| self.learn(output, kind));
        }
    }
}

/// Names that a graph and its inner graphs define more than once. An input and its default are one definition.
fn ambiguous(graph: &GraphProto) -> HashSet<&str> {
    fn count<'a>(graph: &'a GraphProto, seen: &mut HashSet<&'a str>, again: &mut HashSet<&'a str>) {
        let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        let constants = graph.initializer.iter().map(|tensor| tensor.name.as_str());
        let constants = constants.filter(|name| !inputs.contains(name));
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        let sparse = sparse.map(|tensor| tensor.name.as_str());
        let put_out = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
        let named = graph.input.iter().map(|input| input.name.as_str());
        for name in named.chain(constants).chain(sparse).chain(put_out).filter(|name| !name.is_empty()) {
            if !seen.insert(name) {
                again.insert(name);
            }
        }
        let attributes = graph.node.iter().flat_map(|node| &node.attribute);
        attributes.flat_map(|a| a.g.iter().chain(&a.graphs)).for_each(|inner| count(inner, seen, again));
    }
    let mut again = HashSet::new();
    count(graph, &mut HashSet::new(), &mut again);
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::onnx::{OperatorSetIdProto, SparseTensorProto, TypeProto, ValueInfoProto};

    fn value(name: &str, kind: i32) -> ValueInfoProto {
        let tensor = type_proto::Tensor { elem_type: kind, shape: None };
        let r#type = Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) });
        ValueInfoProto { name: name.into(), r#type }
    }

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(|&name| name.into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    fn constant(name: &str, numbers: &[i64]) -> TensorProto {
        let dims = vec![numbers.len() as i64];
        TensorProto {
            name: name.into(),
            data_type: INT64,
            dims,
            int64_data: numbers.to_vec(),
            ..TensorProto::default()
        }
    }

    fn model(inputs: &[(&str, i32)], constants: &[TensorProto], nodes: Vec<NodeProto>) -> ModelProto {
        let graph = GraphProto {
            input: inputs.iter().map(|(name, kind)| value(name, *kind)).collect(),
            initializer: constants.to_vec(),
            node: nodes,
            ..GraphProto::default()
        };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
        ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() }
    }

    #[test]
    fn division_is_a_hazard_unless_it_is_of_floats_or_by_a_harmless_constant() {
        let div = || vec![node("Div", &["a", "b"], "y")];
        let found =
            |inputs: &[(&str, i32)], constants: &[TensorProto]| hazards(&model(inputs, constants, div()));
        assert_eq!(found(&[("a", INT64), ("b", INT64)], &[]), ["Div"]);
        assert_eq!(found(&[("a", FLOAT), ("b", FLOAT)], &[]), [""; 0]);
        assert_eq!(found(&[("a", INT64)], &[constant("b", &[2, 7])]), [""; 0]);
        assert_eq!(found(&[("a", INT64)], &[constant("b", &[2, 0])]), ["Div"]);
        assert_eq!(found(&[("a", INT64)], &[constant("b", &[-1])]), ["Div"]);
        // An input that only has a default is anybody's.
        assert_eq!(found(&[("a", INT64), ("b", INT64)], &[constant("b", &[2])]), ["Div"]);
        assert_eq!(found(&[], &[]), ["Div"], "nothing is known of its type");
    }

    #[test]
    fn of_a_name_that_is_defined_twice_nothing_is_known() {
        let div = || node("Div", &["a", "b"], "y");
        let harmless = || constant("b", &[2]);
        let minus_one = |attribute: &str| {
            let value = AttributeProto {
                name: attribute.into(),
                t: Some(constant("", &[-1])),
                r#type: TENSOR,
                ints: vec![-1],
                ..AttributeProto::default()
            };
            NodeProto { attribute: vec![value], ..node("Constant", &[], "b") }
        };
        let found = |constants: &[TensorProto], nodes: Vec<NodeProto>| {
            hazards(&model(&[("a", INT64)], constants, nodes))
        };
        assert_eq!(found(&[harmless()], vec![div()]), [""; 0]);
        for attribute in ["value", "value_ints"] {
            assert_eq!(found(&[harmless()], vec![div(), minus_one(attribute)]), ["Div"]);
            assert_eq!(found(&[harmless()], vec![minus_one(attribute), div()]), ["Div"]);
        }
        let mut first_wins = minus_one("value_ints");
        first_wins.attribute.push(AttributeProto {
            name: "value".into(),
            t: Some(harmless()),
            r#type: TENSOR,
            ..AttributeProto::default()
        });
        assert_eq!(found(&[], vec![first_wins, div()]), ["Div"]);
        let mut sparse = model(&[("a", INT64)], &[harmless()], vec![div()]);
        sparse.graph.as_mut().unwrap().sparse_initializer =
            vec![SparseTensorProto { values: Some(constant("b", &[-1])), indices: None }];
        assert_eq!(hazards(&sparse), ["Div"]);
    }

    #[test]
    fn an_attribute_is_what_onnx_runtime_takes_it_for() {
        let of = |kind: i32| {
            let value = AttributeProto {
                name: "value".into(),
                t: Some(constant("", &[2])),
                ints: vec![-1],
                r#type: kind,
                ..AttributeProto::default()
            };
            let constant = NodeProto { attribute: vec![value], ..node("Constant", &[], "b") };
            hazards(&model(&[("a", INT64)], &[], vec![constant, node("Div", &["a", "b"], "y")]))
        };
        assert_eq!(of(TENSOR), [""; 0]);
        // Seven is INTS.
        assert_eq!(of(7), ["Div"]);
        let to =
            |kind: i32| AttributeProto { name: "to".into(), i: i64::from(kind), ..AttributeProto::default() };
        let cast = |attribute: Vec<AttributeProto>| {
            let cast = NodeProto { attribute, ..node("Cast", &["a"], "b") };
            hazards(&model(&[("a", INT64)], &[], vec![cast, node("Div", &["b", "b"], "y")]))
        };
        assert_eq!(cast(vec![to(FLOAT)]), [""; 0]);
        assert_eq!(cast(vec![to(FLOAT), to(INT64)]), ["an attribute twice"]);
    }

    #[test]
    fn an_inner_graph_tells_nothing_of_an_outer_one() {
        const HIDDEN_IF: &str = "If to an unknown number of dimensions";
        let choice = |inner: GraphProto| {
            let branch =
                AttributeProto { name: "then_branch".into(), g: Some(inner), ..AttributeProto::default() };
            NodeProto { attribute: vec![branch], ..node("If", &["c"], "i") }
        };
        let shadowed = GraphProto { initializer: vec![constant("b", &[2])], ..GraphProto::default() };
        let nodes = vec![choice(shadowed), node("Div", &["a", "b"], "y")];
        assert_eq!(hazards(&model(&[("a", INT64)], &[constant("b", &[-1])], nodes)), ["Div", HIDDEN_IF]);
        // Of unknown type, but for what an inner graph says.
        let labels = || NodeProto { domain: "ai.onnx.ml".into(), ..node("LabelEncoder", &["a"], "q") };
        let said = GraphProto { value_info: vec![value("q", FLOAT)], ..GraphProto::default() };
        let float = TensorProto { data_type: FLOAT, ..constant("q", &[1]) };
        let defined = GraphProto { initializer: vec![float], ..GraphProto::default() };
        for inner in [said, defined] {
            let nodes = vec![labels(), choice(inner), node("Div", &["q", "a"], "y")];
            assert_eq!(hazards(&model(&[("a", INT64)], &[], nodes)), ["Div", HIDDEN_IF]);
        }
    }

    #[test]
    fn types_are_followed_through_a_graph() {
        let through = |first: &str| {
            let nodes =
                vec![node(first, &["a"], "b"), node("Relu", &["b"], "c"), node("Mod", &["c", "d"], "y")];
            hazards(&model(&[("a", FLOAT)], &[], nodes))
        };
        assert_eq!(through("Identity"), [""; 0]);
        assert_eq!(through("Shape"), ["Mod"]);
    }

    #[test]
    fn sizes_that_come_from_values_are_hazards() {
        for operator in ["ConstantOfShape", "Expand", "Tile", "Range", "Loop", "Resize", "Frobnicate"] {
            let nodes = vec![node(operator, &["a", "a"], "y")];
            assert_eq!(hazards(&model(&[("a", INT64)], &[], nodes)), [operator]);
        }
        let nodes = |size: i64| (vec![node("ConstantOfShape", &["s"], "y")], [constant("s", &[size, 16])]);
        let found = |size| hazards(&model(&[], &nodes(size).1, nodes(size).0));
        assert!(found(1000).is_empty() && !found(1 << 40).is_empty());
    }

    #[test]
    fn sizes_that_values_of_inputs_choose_are_hazards_where_they_are_said() {
        let found = |inputs: &[(&str, i32)], nodes: Vec<NodeProto>| {
            hazards(&model(inputs, &[constant("two", &[2, 2]), constant("k", &[1])], nodes))
        };
        let chosen = [("a", FLOAT), ("s", INT64)];
        for operator in ["Slice", "TopK", "Split"] {
            assert_eq!(found(&chosen, vec![node(operator, &["a", "s"], "y")]), [operator]);
            assert_eq!(found(&chosen, vec![node(operator, &["a", "k"], "y")]), [""; 0]);
            assert_eq!(found(&chosen, vec![node(operator, &["a"], "y")]), [""; 0], "by attributes");
            // A default that requests may replace.
            let replaced = [("a", FLOAT), ("k", INT64)];
            assert_eq!(found(&replaced, vec![node(operator, &["a", "k"], "y")]), [operator]);
            // Worked out from sizes and constants, and from a value on the way.
            let through = |other: &str| {
                let sum = node("Add", &["size", other], "sum");
                vec![node("Shape", &["a"], "size"), sum, node(operator, &["a", "sum"], "y")]
            };
            assert_eq!(found(&chosen, through("k")), [""; 0]);
            assert_eq!(found(&chosen, through("s")), [operator]);
        }
        let last = node("Slice", &["a", "two", "two", "", "s"], "y");
        assert_eq!(found(&chosen, vec![last]), ["Slice"]);
        assert_eq!(found(&chosen, vec![node("NonZero", &["a"], "y")]), ["NonZero"]);
    }

    #[test]
    fn inner_graphs_are_looked_into_and_foreign_domains_found() {
        let inner = GraphProto { node: vec![node("Loop", &[], "z")], ..GraphProto::default() };
        let branch =
            AttributeProto { name: "then_branch".into(), g: Some(inner), ..AttributeProto::default() };
        let mut choice = node("If", &["a"], "y");
        choice.attribute.push(branch);
        let mut looped = model(&[("a", BOOL)], &[], vec![choice]);
        assert!(hazards(&looped).iter().any(|hazard| hazard == "Loop"), "{:?}", hazards(&looped));
        assert_eq!(foreign_domain(&looped), None);
        let foreign = NodeProto { domain: "my.ops".into(), ..node("Add", &[], "q") };
        looped.graph.as_mut().unwrap().node[0].attribute[0].g.as_mut().unwrap().node.push(foreign);
        assert_eq!(foreign_domain(&looped).as_deref(), Some("my.ops"));
    }

    #[test]
    fn results_grow_unless_each_operator_keeps_the_size() {
        let found = |nodes: Vec<NodeProto>| {
            grows(
                model(&[("a", FLOAT)], &[constant("one", &[1]), constant("two", &[2, 2])], nodes)
                    .graph
                    .as_ref()
                    .unwrap(),
            )
        };
        assert!(!found(vec![node("Relu", &["a"], "b"), node("Mul", &["b", "one"], "y")]));
        assert!(found(vec![node("Mul", &["a", "two"], "y")]));
        assert!(found(vec![node("Add", &["a", "a"], "y")]), "broadcasting");
        assert!(found(vec![node("Concat", &["a", "a"], "y")]));
    }

    #[test]
    fn a_default_that_requests_may_replace_is_no_constant() {
        let grown = |inputs: &[(&str, i32)]| {
            let mut model = model(inputs, &[constant("one", &[1])], vec![node("Add", &["a", "one"], "y")]);
            let graph = model.graph.as_mut().unwrap();
            graph.output.push(value("y", FLOAT));
            grows(graph)
        };
        assert!(!grown(&[("a", FLOAT)]));
        assert!(grown(&[("a", FLOAT), ("one", FLOAT)]));
    }

    #[test]
    fn wider_elements_and_many_outputs_grow() {
        const UINT8: i32 = 2;
        const DOUBLE: i32 = 11;
        const STRING: i32 = 8;
        let casts = |from: i32, to: i32, count: usize| {
            let names: Vec<String> = (0..count).map(|i| format!("y{i}")).collect();
            let cast = |name: &String| {
                let to = AttributeProto { name: "to".into(), i: i64::from(to), ..AttributeProto::default() };
                NodeProto { attribute: vec![to], ..node("Cast", &["a"], name) }
            };
            let mut model = model(&[("a", from)], &[], names.iter().map(cast).collect());
            let graph = model.graph.as_mut().unwrap();
            graph.output = names.iter().map(|name| value(name, to)).collect();
            grows(graph)
        };
        for (from, to, count, expected) in [
            (FLOAT, FLOAT, 1, false),
            (FLOAT, FLOAT, 6, false),
            (FLOAT, FLOAT, 7, true),
            (FLOAT, DOUBLE, 1, false),
            (FLOAT, DOUBLE, 3, true),
            (UINT8, UINT8, 1, false),
            (BOOL, DOUBLE, 1, true),
            (UINT8, STRING, 1, true),
            (STRING, STRING, 1, true),
        ] {
            assert_eq!(casts(from, to, count), expected, "{count} times {from} to {to}");
        }
    }

    #[test]
    fn an_unknown_number_of_dimensions_is_a_hazard() {
        let found = |node: NodeProto| {
            hazards(&model(&[("a", FLOAT), ("s", INT64)], &[constant("two", &[2, 2])], vec![node]))
        };
        for operator in ["Squeeze", "Reshape", "ReduceSum"] {
            assert!(found(node(operator, &["a", "two"], "y")).is_empty(), "{operator}");
            assert_eq!(found(node(operator, &["a", "s"], "y")).len(), 1, "{operator}");
        }
        assert_eq!(found(node("Squeeze", &["a"], "y")).len(), 1);
    }

    #[test]
    fn large_borders_are_hazards() {
        let mut pool = node("MaxPool", &["a"], "y");
        let pads =
            |size| AttributeProto { name: "pads".into(), ints: vec![size], ..AttributeProto::default() };
        pool.attribute.push(pads(3));
        assert!(hazards(&model(&[("a", FLOAT)], &[], vec![pool.clone()])).is_empty());
        pool.attribute[0] = pads(1 << 40);
        assert_eq!(hazards(&model(&[("a", FLOAT)], &[], vec![pool])), ["MaxPool of a large size"]);
    }
}

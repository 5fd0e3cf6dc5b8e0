//! What in a graph could harm the process that runs it.
//!
//! Always: pure; what is not known to be harmless counts as a hazard. A graph without hazards takes time and memory that
//! its inputs' sizes bound, and does nothing that the processor refuses.
//! Known to harm, with ONNX Runtime 1.31: integer division ends the process (SIGFPE) by a zero divisor and by the
//! smallest number over −1; sizes that come from values take any memory; loops that are counted by values take any time.

mod operators;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};

use operators::{
    BOUNDED, BOUNDED_MICROSOFT, BOUNDED_ML, LINEAR, LINEAR_BY_ONE, TYPED, TYPED_BY_INPUT, UNTYPED,
};

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

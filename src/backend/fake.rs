//! A session made of a closure: the seam through which tests bring in slow, failing or panicking models.

use bytes::{Bytes, BytesMut};

use super::{BatchInput, Graph, GraphTensor, RunError, Session, Stop};
use crate::tensor::{ANY, DataType, Tensor};

type Behaviour = dyn Fn(&[BatchInput]) -> Result<Vec<Tensor>, RunError> + Send + Sync;

/// Runs `behaviour` in place of a model.
pub struct FakeSession {
    graph: Graph,
    behaviour: Box<Behaviour>,
}

impl FakeSession {
    pub fn new(
        graph: Graph,
        behaviour: impl Fn(&[BatchInput]) -> Result<Vec<Tensor>, RunError> + Send + Sync + 'static,
    ) -> Self {
        Self { graph, behaviour: Box::new(behaviour) }
    }

    /// One FP32 input `x` of shape `[-1,-1]`, given back as output `y`, after `before` ran on it.
    pub fn identity(before: impl Fn(&[BatchInput]) -> Result<(), RunError> + Send + Sync + 'static) -> Self {
        let tensor = |name: &str| GraphTensor {
            name: name.to_owned(),
            datatype: DataType::Fp32,
            dims: Some(vec![ANY, ANY]),
            symbols: vec![String::new(); 2],
            has_default: false,
        };
        let graph = Graph { inputs: vec![tensor("x")], outputs: vec![tensor("y")], ..Graph::default() };
        Self::new(graph, move |inputs| {
            before(inputs)?;
            Ok(inputs.iter().map(joined).collect())
        })
    }
}

/// The whole of an input whose parts are joined.
pub fn joined(input: &BatchInput) -> Tensor {
    let data: Bytes = match input.parts.as_slice() {
        [one] => one.clone(),
        parts => parts
            .iter()
            .fold(BytesMut::new(), |mut all, part| {
                all.extend_from_slice(part);
                all
            })
            .freeze(),
    };
    Tensor::new(input.datatype, input.shape.clone(), data).expect("a batch input is consistent")
}

impl Session for FakeSession {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn run_until(&self, inputs: &[BatchInput], _: &[usize], _: &Stop) -> Result<Vec<Tensor>, RunError> {
        (self.behaviour)(inputs)
    }

    fn concurrent(&self) -> bool {
        true
    }
}

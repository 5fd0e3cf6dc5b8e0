//! One ONNX Runtime session and how it is called.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use ort::AsPointer;
use ort::session::RunOptions;
use ort::sys::OrtValue;
use ort::value::{Outlet, TensorElementType, ValueType};
use smallvec::SmallVec;

use super::inspect::Findings;
use super::value::{self, Input, Value, check};
use crate::backend::{
    BatchInput, Device, Graph, GraphTensor, Interrupt, LoadError, RunError, Session, SessionOptions, Stop,
};
use crate::tensor::{ANY, DataType, Tensor};

/// A session with the names that its calls pass.
pub struct OnnxSession {
    session: Arc<ort::session::Session>,
    graph: Graph,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    run_entries: Vec<(String, String)>,
    concurrent: bool,
}

impl OnnxSession {
    pub fn new(
        session: ort::session::Session,
        device: &Device,
        options: &SessionOptions,
        findings: &Findings,
    ) -> Result<Self, LoadError> {
        let mut inputs: Vec<GraphTensor> = session
            .inputs()
            .iter()
            .map(|outlet| graph_tensor("input", outlet, findings))
            .collect::<Result<_, _>>()?;
        for initializer in session.overridable_initializers() {
            // One whose type cannot be sent keeps its default; nobody can ask for it.
            if let Some(tensor) = tensor_of(initializer.name(), initializer.dtype()) {
                inputs.push(GraphTensor { has_default: true, ..tensor });
            }
        }
        let outputs: Vec<GraphTensor> = session
            .outputs()
            .iter()
            .map(|outlet| graph_tensor("output", outlet, findings))
            .collect::<Result<_, _>>()?;
        let positions = |names: &[String]| {
            names.iter().filter_map(|name| outputs.iter().position(|o| o.name == *name)).collect()
        };
        let (class_scores, class_labels) =
            (positions(&findings.class_scores), positions(&findings.class_labels));
        let names = |tensors: &[GraphTensor]| {
            tensors.iter().map(|t| CString::new(t.name.as_str())).collect::<Result<Vec<_>, _>>()
        };
        let nul = |_| LoadError("a tensor's name holds a NUL".to_owned());
        Ok(Self {
            input_names: names(&inputs).map_err(nul)?,
            output_names: names(&outputs).map_err(nul)?,
            graph: Graph { inputs, outputs, class_scores, class_labels },
            session: Arc::new(session),
            run_entries: {
                // What is wrong with them is told now, not by the first call.
                run_options(&options.run_entries)?;
                options.run_entries.clone()
            },
            // ONNX Runtime's CPU provider takes concurrent calls of one session; other providers are not
            // promised to (ARCHITECTURE.md, decisions).
            concurrent: *device == Device::Cpu,
        })
    }
}

impl Session for OnnxSession {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn run_until(
        &self,
        inputs: &[BatchInput],
        outputs: &[usize],
        stop: &Stop,
    ) -> Result<Vec<Tensor>, RunError> {
        let api = ort::api();
        let options = stop.handle(|| Options(run_options(&self.run_entries).ok()));
        if stop.is_asked() {
            return Err(stopped());
        }
        let held: SmallVec<[Input; 4]> =
            inputs.iter().map(|input| Input::new(api, input)).collect::<Result<_, _>>()?;
        let values: SmallVec<[*const OrtValue; 4]> =
            held.iter().map(|i| i.value.as_ptr().cast_const()).collect();
        let input_names: SmallVec<[*const c_char; 4]> =
            inputs.iter().map(|input| self.input_names[input.index].as_ptr()).collect();
        let output_names: SmallVec<[*const c_char; 4]> =
            outputs.iter().map(|&index| self.output_names[index].as_ptr()).collect();
        let mut results: SmallVec<[*mut OrtValue; 4]> = SmallVec::from_elem(ptr::null_mut(), outputs.len());
        // SAFETY: the session lives as long as `self`; the arrays have the lengths that are passed with them;
        // names are NUL-terminated and owned by `self`; input values live in `held` until after the call. Run is
        // thread-safe by ONNX Runtime's contract, and callers keep to one thread where `concurrent` says so.
        let status = unsafe {
            (api.Run)(
                self.session.ptr().cast_mut(),
                options.and_then(|options| options.0.as_ref()).map_or(ptr::null(), AsPointer::ptr),
                input_names.as_ptr(),
                values.as_ptr(),
                values.len(),
                output_names.as_ptr(),
                output_names.len(),
                results.as_mut_ptr(),
            )
        };
        // Owned at once, so that a failure below releases all of them.
        let results: SmallVec<[Option<Value>; 4]> = results.into_iter().map(Value::from_raw).collect();
        if let Err(status) = check(api, status) {
            return Err(if stop.is_asked() { stopped() } else { status.into() });
        }
        let read = |(value, &index): (Option<Value>, &usize)| {
            let name = &self.graph.outputs[index].name;
            let value = value.ok_or_else(|| RunError::Failed(format!("output '{name}' was not computed")))?;
            value::read(api, value, name, &held, &self.session)
        };
        results.into_iter().zip(outputs).map(read).collect()
    }

    fn concurrent(&self) -> bool {
        self.concurrent
    }
}

/// The options of a call, by which it can be ended. `None`: there is no memory for them, so it cannot.
struct Options(Option<RunOptions>);

impl Interrupt for Options {
    fn interrupt(&self) {
        if let Some(options) = &self.0 {
            // Fails only without memory; whoever asks asks again.
            let _ = options.terminate();
        }
    }
}

fn stopped() -> RunError {
    RunError::Stopped("the call was ended: nobody waits for it any more, or it took too long".to_owned())
}

fn run_options(entries: &[(String, String)]) -> Result<RunOptions, LoadError> {
    let failed = |e: ort::Error| LoadError(format!("run options: {}", e.message()));
    let mut options = RunOptions::new().map_err(failed)?;
    for (key, value) in entries {
        options.set(key, value).map_err(failed)?;
    }
    Ok(options)
}

fn graph_tensor(role: &str, outlet: &Outlet, findings: &Findings) -> Result<GraphTensor, LoadError> {
    let mut tensor = tensor_of(outlet.name(), outlet.dtype()).ok_or_else(|| {
        if let ValueType::Tensor { shape, .. } = outlet.dtype()
            && shape.len() > RANK_MAX
        {
            return LoadError(format!("{role} '{}' has {} dimensions, more than {RANK_MAX}", outlet.name(), shape.len()));
        }
        LoadError(format!(
            "{role} '{}' has type {}, which the protocol cannot carry; make it a plain tensor inside the model",
            outlet.name(),
            outlet.dtype()
        ))
    })?;
    // ONNX Runtime shows a tensor of unknown rank and a scalar alike: no dimensions. The file tells them apart.
    if tensor.dims.as_ref().is_some_and(Vec::is_empty) && findings.any_rank.contains(&tensor.name) {
        tensor.dims = None;
    }
    Ok(tensor)
}

/// Dimensions of an input or output at the most: requests cannot have more either.
const RANK_MAX: usize = 64;

fn tensor_of(name: &str, value_type: &ValueType) -> Option<GraphTensor> {
    let ValueType::Tensor { ty, shape, dimension_symbols } = value_type else { return None };
    if shape.len() > RANK_MAX {
        return None;
    }
    Some(GraphTensor {
        name: name.to_owned(),
        datatype: datatype_of(*ty)?,
        dims: Some(shape.iter().map(|&d| if d < 0 { ANY } else { d }).collect()),
        symbols: dimension_symbols.iter().cloned().collect(),
        has_default: false,
    })
}

fn datatype_of(element: TensorElementType) -> Option<DataType> {
    value::datatype_of(element.into())
}

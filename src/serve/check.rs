//! Holds a request against a signature: what passes can be run.
//!
//! Always: pure; a request that fails here never costs the model anything.

use smallvec::SmallVec;

use crate::error::{ServeError, excerpt};
use crate::infer::{InputTensor, Inputs, RequestedOutput, TensorRow};
use crate::tensor::{ANY, DataType, Shape, Signature, Tensor, TensorSpec, format_dims, strings};

/// A request that fits its servable.
#[derive(Debug)]
pub struct Checked {
    /// In the order of the signature, with the model's own shapes.
    pub inputs: TensorRow,
    /// Rows on the batch axis; 1 when the signature has none.
    pub rows: usize,
    /// Outputs asked for, in the client's order: position in the signature, and classes.
    pub outputs: SmallVec<[(usize, usize); 2]>,
}

/// Checks names, types, shapes and row counts. `model` is for messages.
pub fn check(
    signature: &Signature,
    model: &str,
    inputs: Inputs,
    outputs: &[RequestedOutput],
) -> Result<Checked, ServeError> {
    let outputs = requested_outputs(signature, model, outputs)?;
    let named = match inputs {
        Inputs::Named(named) => named,
        Inputs::Raw(body) => vec![raw_input(signature, model, body)?],
    };
    let mut row: TensorRow = SmallVec::from_elem(None, signature.inputs.len());
    let mut rows = None;
    for InputTensor { name, tensor } in named {
        let Some(index) = signature.input(&name) else {
            return Err(ServeError::invalid(format!(
                "unexpected inference input '{}' for model '{model}'; it takes {}",
                excerpt(&name),
                list(signature.inputs.iter())
            )));
        };
        if row[index].is_some() {
            return Err(ServeError::invalid(format!(
                "input '{name}' already exists in request for model '{model}'"
            )));
        }
        let spec = &signature.inputs[index];
        row[index] = Some(input(signature, model, spec, &tensor, &mut rows)?);
    }
    let missing =
        signature.inputs.iter().zip(&row).filter(|(spec, tensor)| tensor.is_none() && !spec.optional);
    let missing: Vec<&TensorSpec> = missing.map(|(spec, _)| spec).collect();
    if !missing.is_empty() {
        return Err(ServeError::invalid(format!(
            "expected {} inputs but got {} inputs for model '{model}'. Missing required input(s) {}",
            signature.inputs.len(),
            row.iter().flatten().count(),
            list(missing.into_iter())
        )));
    }
    Ok(Checked { inputs: row, rows: rows.unwrap_or(1), outputs })
}

fn list<'a>(specs: impl Iterator<Item = &'a TensorSpec>) -> String {
    let names: Vec<String> = specs.map(|spec| format!("'{}'", spec.name)).collect();
    format!("[{}]", names.join(", "))
}

/// One input in the model's own shape. `rows` is what the inputs before it agreed on.
fn input(
    signature: &Signature,
    model: &str,
    spec: &TensorSpec,
    tensor: &Tensor,
    rows: &mut Option<usize>,
) -> Result<Tensor, ServeError> {
    let name = &spec.name;
    if tensor.datatype() != spec.datatype {
        return Err(ServeError::invalid(format!(
            "inference input '{name}' data-type is '{}', but model '{model}' expects '{}'",
            tensor.datatype(),
            spec.datatype
        )));
    }
    let unexpected_shape = || {
        ServeError::invalid(format!(
            "unexpected shape for input '{name}' for model '{model}'. Expected {}, got {}",
            format_dims(&signature.wire_dims(spec)),
            tensor.shape()
        ))
    };
    let dims = tensor.shape().dims();
    let (batch, own) = match signature.batched() {
        true => dims.split_first().map(|(first, rest)| (Some(*first), rest)).ok_or_else(unexpected_shape)?,
        false => (None, dims),
    };
    // Triton shows a scalar as one element, so its clients send it so.
    let scalar_as_one = spec.dims.is_empty() && !spec.any_rank && own == [1];
    let own = if scalar_as_one { &[] } else { own };
    if !spec.fits(own) {
        return Err(unexpected_shape());
    }
    if let Some(batch) = batch {
        let count = usize::try_from(batch).unwrap_or(usize::MAX);
        if count > signature.max_batch_size {
            return Err(ServeError::invalid(format!(
                "inference request batch-size must be <= {} for '{model}', got {count}",
                signature.max_batch_size
            )));
        }
        if *rows.get_or_insert(count) != count {
            return Err(ServeError::invalid(format!(
                "input '{name}' batch size does not match other inputs for '{model}'"
            )));
        }
    }
    if spec.reshape.is_none() && !scalar_as_one {
        return Ok(tensor.clone());
    }
    let own = spec.model_dims(own).ok_or_else(unexpected_shape)?;
    let shape = batch.map_or_else(|| own.clone(), |batch| own.prepend(batch));
    tensor.with_shape(shape).ok_or_else(unexpected_shape)
}

fn requested_outputs(
    signature: &Signature,
    model: &str,
    outputs: &[RequestedOutput],
) -> Result<SmallVec<[(usize, usize); 2]>, ServeError> {
    if outputs.is_empty() {
        return Ok((0..signature.outputs.len()).map(|index| (index, 0)).collect());
    }
    let mut found: SmallVec<[(usize, usize); 2]> = SmallVec::new();
    for output in outputs {
        let Some(index) = signature.output(&output.name) else {
            return Err(ServeError::invalid(format!(
                "unexpected inference output '{}' for model '{model}'; it gives {}",
                excerpt(&output.name),
                list(signature.outputs.iter())
            )));
        };
        if found.iter().any(|(other, _)| *other == index) {
            return Err(ServeError::invalid(format!("output '{}' is requested twice", output.name)));
        }
        found.push((index, output.classes));
    }
    Ok(found)
}

/// The only input out of a raw body. One open dimension is worked out from the size; a string input takes the
/// whole body as its one element.
fn raw_input(signature: &Signature, model: &str, body: bytes::Bytes) -> Result<InputTensor, ServeError> {
    let [spec] = signature.inputs.as_slice() else {
        return Err(ServeError::invalid(format!(
            "a raw-binary request needs a model with one input, and model '{model}' has {}",
            signature.inputs.len()
        )));
    };
    let unclear = |why: String| {
        ServeError::invalid(format!(
            "a raw-binary request does not suit input '{}' of model '{model}': {why}",
            spec.name
        ))
    };
    let open = spec.dims.iter().filter(|&&d| d == ANY).count();
    if open > 1 {
        return Err(unclear(format!("shape {} has more than one open dimension", format_dims(&spec.dims))));
    }
    let fixed = spec.dims.iter().filter(|&&d| d != ANY).try_fold(1i64, |n, &d| n.checked_mul(d));
    let fixed =
        fixed.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| unclear("it is too large".to_owned()))?;
    let (size, data) = match spec.datatype.size() {
        Some(size) => (size, body),
        None => (1, strings::pack([&*body])),
    };
    let elements = if spec.datatype == DataType::Bytes { 1 } else { data.len() / size };
    let open_size = elements.checked_div(fixed).unwrap_or(0);
    let dims = spec.dims.iter().map(|&d| if d == ANY { open_size as i64 } else { d });
    let batch = signature.batched().then_some(1);
    let shape = Shape::from_dims(batch.into_iter().chain(dims))
        .ok_or_else(|| unclear("its shape is unknown".to_owned()))?;
    let tensor = Tensor::new(spec.datatype, shape, data).map_err(|e| unclear(e.to_string()))?;
    Ok(InputTensor { name: spec.name.to_string(), tensor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    fn spec(name: &str, dims: &[i64]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            datatype: DataType::Uint8,
            dims: dims.to_vec(),
            any_rank: false,
            reshape: None,
            optional: false,
            labels: Arc::default(),
        }
    }

    fn signature(max_batch_size: usize) -> Signature {
        Signature {
            inputs: vec![spec("a", &[2]), spec("b", &[ANY])],
            outputs: vec![spec("y", &[1])],
            max_batch_size,
        }
    }

    fn named(name: &str, dims: &[i64]) -> InputTensor {
        let shape = Shape::from_dims(dims.iter().copied()).unwrap();
        let data = Bytes::from(vec![0; shape.elements().unwrap()]);
        InputTensor { name: name.to_owned(), tensor: Tensor::new(DataType::Uint8, shape, data).unwrap() }
    }

    fn refused(signature: &Signature, inputs: Vec<InputTensor>) -> String {
        check(signature, "m", Inputs::Named(inputs), &[]).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_does_not_fit_is_said_in_the_words_clients_look_for() {
        let s = signature(4);
        for (inputs, beginning) in [
            (
                vec![named("a", &[1, 3]), named("b", &[1, 1])],
                "unexpected shape for input 'a' for model 'm'. Expected [-1,2], got [1,3]",
            ),
            (
                vec![named("a", &[2])],
                "unexpected shape for input 'a' for model 'm'. Expected [-1,2], got [2]",
            ),
            (vec![named("a", &[5, 2])], "inference request batch-size must be <= 4 for 'm'"),
            (
                vec![named("a", &[1, 2]), named("b", &[2, 2])],
                "input 'b' batch size does not match other inputs",
            ),
            (
                vec![named("a", &[1, 2])],
                "expected 2 inputs but got 1 inputs for model 'm'. Missing required input(s) ['b']",
            ),
            (vec![named("z", &[1, 2])], "unexpected inference input 'z' for model 'm'"),
            (vec![named("a", &[1, 2]), named("a", &[1, 2])], "input 'a' already exists in request"),
        ] {
            let message = refused(&s, inputs);
            assert!(message.starts_with(beginning), "{message}");
        }
    }

    #[test]
    fn rows_are_counted_and_inputs_put_in_order() {
        let inputs = vec![named("b", &[3, 7]), named("a", &[3, 2])];
        let checked = check(&signature(4), "m", Inputs::Named(inputs), &[]).unwrap();
        assert_eq!(checked.rows, 3);
        assert_eq!(checked.inputs[0].as_ref().unwrap().shape().dims(), [3, 2]);
        assert_eq!(checked.outputs.as_slice(), [(0, 0)]);
    }

    #[test]
    fn a_scalar_may_come_as_one_element() {
        let scalar = Signature { inputs: vec![spec("a", &[])], ..signature(0) };
        for dims in [&[][..], &[1]] {
            let checked = check(&scalar, "m", Inputs::Named(vec![named("a", dims)]), &[]).unwrap();
            assert_eq!(checked.inputs[0].as_ref().unwrap().shape().rank(), 0);
        }
        assert!(check(&scalar, "m", Inputs::Named(vec![named("a", &[2])]), &[]).is_err());
    }

    #[test]
    fn a_raw_body_takes_its_shape_from_the_signature() {
        let one = Signature { inputs: vec![spec("b", &[2, ANY])], ..signature(4) };
        let raw = |body: &'static [u8]| check(&one, "m", Inputs::Raw(Bytes::from_static(body)), &[]);
        assert_eq!(raw(&[0; 6]).unwrap().inputs[0].as_ref().unwrap().shape().dims(), [1, 2, 3]);
        assert!(raw(&[0; 5]).is_err());
        assert!(check(&signature(4), "m", Inputs::Raw(Bytes::new()), &[]).is_err());
    }
}

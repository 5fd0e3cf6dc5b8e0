//! A request's HTTP body: JSON, then maybe binary tensors.

use std::borrow::Cow;

use bytes::Bytes;

use super::json_body::{self, Body, Data, Input, Output};
pub use super::json_values::Parameters;
use super::{
    Parameter, RequestLimits, RequestParameters, boolean, datatype, json_data, no_shared_memory, pin, shape,
    tensor, unsigned,
};
use crate::error::{ServeError, excerpt};
use crate::infer::{InferRequest, InputTensor, Inputs, Limits, RequestedOutput, VersionPin};

/// What an answer should look like.
#[derive(Debug)]
pub struct AnswerForm {
    pub id: Option<String>,
    /// Outputs whose form was said, by name.
    binary: Vec<(String, bool)>,
    /// The form of the others.
    binary_default: bool,
}

impl AnswerForm {
    /// Whether an output goes behind the JSON.
    pub fn is_binary(&self, output: &str) -> bool {
        self.binary.iter().find(|(name, _)| name == output).map_or(self.binary_default, |(_, binary)| *binary)
    }
}

/// A request whose body is the tensor itself; the answer is binary too.
pub fn raw(model: &str, body: Bytes) -> Parsed {
    let request = InferRequest {
        model: model.to_owned(),
        pin: VersionPin::Routed,
        inputs: Inputs::Raw(body),
        outputs: Vec::new(),
        limits: Limits::default(),
    };
    let form = AnswerForm { id: None, binary: Vec::new(), binary_default: true };
    Parsed { request, form, parameters: Parameters::default() }
}

/// What a body says.
#[derive(Debug)]
pub struct Parsed {
    pub request: InferRequest,
    pub form: AnswerForm,
    parameters: Parameters,
}

impl Parsed {
    /// The request for the pipeline, what its answer should look like, and its parameters.
    pub fn into_parts(self) -> (InferRequest, AnswerForm, Parameters) {
        (self.request, self.form, self.parameters)
    }
}

/// Reads a body whose first `json_length` bytes are JSON; the rest are the binary inputs, in order.
///
/// Errors: everything that is wrong with it, named.
pub fn parse(
    model: &str,
    body: &Bytes,
    json_length: usize,
    limits: &RequestLimits,
) -> Result<Parsed, ServeError> {
    if json_length > body.len() {
        return Err(ServeError::invalid(format!(
            "Inference-Header-Content-Length is {json_length}, but the body has {} bytes",
            body.len()
        )));
    }
    let binary = body.slice(json_length..);
    let text = std::str::from_utf8(&body[..json_length])
        .map_err(|_| ServeError::invalid("failed to parse the request JSON: it is not UTF-8"))?;
    if let Ok(body) = json_body::read(text, limits, true) {
        return read(model, body, binary, limits);
    }
    let failed = |e: serde_json::Error| ServeError::invalid(format!("failed to parse the request JSON: {e}"));
    match json_body::read(text, limits, false) {
        Ok(parsed) => read(model, parsed, binary, limits),
        // Python writes NaN and Infinity, which JSON does not have. That is rare, so only a failure looks for it.
        Err(error) => match quote_nonfinite(text) {
            Some(quoted) => {
                read(model, json_body::read(&quoted, limits, false).map_err(failed)?, binary, limits)
            }
            None => Err(failed(error)),
        },
    }
}

fn read(
    model: &str,
    body: Body<'_>,
    mut binary: Bytes,
    limits: &RequestLimits,
) -> Result<Parsed, ServeError> {
    let mut parameters = RequestParameters::default();
    for (key, value) in body.parameters.present() {
        parameters.set(key, &plain(key, value)?)?;
    }
    let inputs = body.inputs.ok_or_else(|| ServeError::invalid("the request has no \"inputs\""))?;
    let inputs = inputs
        .into_iter()
        .map(|input| read_input(model, input, &mut binary, limits))
        .collect::<Result<Vec<_>, _>>()?;
    if !binary.is_empty() {
        return Err(ServeError::invalid(format!(
            "unexpected additional input data for model '{}': {} bytes are left over after the binary inputs",
            excerpt(model),
            binary.len()
        )));
    }
    let mut outputs = Vec::new();
    let mut forms = Vec::new();
    for output in &body.outputs {
        let (classes, is_binary) = output_parameters(output)?;
        forms.push((output.name.clone().into_owned(), is_binary.unwrap_or(parameters.binary_data_output)));
        outputs.push(RequestedOutput { name: output.name.clone().into_owned(), classes });
    }
    let waits = Limits { deadline: None, timeout: parameters.timeout, priority: parameters.priority };
    let request = InferRequest {
        model: model.to_owned(),
        pin: pin(VersionPin::Routed, parameters.label)?,
        inputs: Inputs::Named(inputs),
        outputs,
        limits: waits,
    };
    let form = AnswerForm {
        id: body.id.map(Cow::into_owned).filter(|id| !id.is_empty()),
        binary: forms,
        binary_default: parameters.binary_data_output,
    };
    Ok(Parsed { request, form, parameters: body.parameters })
}

fn read_input(
    model: &str,
    input: Input<'_>,
    binary: &mut Bytes,
    limits: &RequestLimits,
) -> Result<InputTensor, ServeError> {
    let name = &*input.name;
    let mut binary_size = None;
    for (key, value) in input.parameters.present() {
        match (key, plain(key, value)?) {
            ("binary_data_size", value) => binary_size = Some(unsigned(key, &value)?),
            ("shared_memory_region", _) => return Err(no_shared_memory("input", name)),
            _ => {}
        }
    }
    let datatype = datatype(name, &input.datatype)?;
    let shape = shape(name, &input.shape)?;
    let data = match (input.data, binary_size) {
        (Data::Packed(bytes), None) => bytes,
        (Data::Text(json), None) => {
            let elements = shape.elements().expect("checked with the shape");
            json_data::parse(json.get(), datatype, elements, json_body::data_bounds(limits))
                .map_err(|e| ServeError::invalid(format!("input '{}': {e}", excerpt(name))))?
        }
        (Data::Absent, Some(size)) => {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > binary.len() {
                return Err(ServeError::invalid(format!(
                    "input '{}' has binary_data_size {size}, but only {} bytes are left in the body",
                    excerpt(name),
                    binary.len()
                )));
            }
            binary.split_to(size)
        }
        (Data::Packed(_) | Data::Text(_), Some(_)) => {
            return Err(ServeError::invalid(format!(
                "input '{}' has both \"data\" and binary_data_size; give one of them",
                excerpt(name)
            )));
        }
        (Data::Absent, None) => {
            return Err(ServeError::invalid(format!(
                "input '{}' has neither \"data\" nor binary_data_size; give one of them",
                excerpt(name)
            )));
        }
    };
    let tensor = tensor(model, name, datatype, shape, data)?;
    Ok(InputTensor { name: name.to_owned(), tensor })
}

/// Classes asked for, and whether the form was said.
fn output_parameters(output: &Output<'_>) -> Result<(usize, Option<bool>), ServeError> {
    let mut classes = 0;
    let mut binary = None;
    for (key, value) in output.parameters.present() {
        match (key, plain(key, value)?) {
            ("classification", value) => {
                classes = usize::try_from(unsigned(key, &value)?).unwrap_or(usize::MAX)
            }
            ("binary_data", value) => binary = Some(boolean(key, &value)?),
            ("shared_memory_region", _) => return Err(no_shared_memory("output", &output.name)),
            _ => {}
        }
    }
    Ok((classes, binary))
}

/// A plain value. Errors: a list or an object, which no parameter takes.
fn plain<'a>(key: &str, value: Option<Parameter<'a>>) -> Result<Parameter<'a>, ServeError> {
    value.ok_or_else(|| {
        ServeError::invalid(format!("parameter '{}' must be a number, a string, true or false", excerpt(key)))
    })
}

/// The text with the literals NaN, Infinity and -Infinity put in quotes; `None` when it has none outside strings.
fn quote_nonfinite(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut copied = 0;
    let mut in_string = false;
    let mut position = 0;
    let bytes = text.as_bytes();
    while position < bytes.len() {
        match bytes[position] {
            b'\\' if in_string => position += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                let literal =
                    ["NaN", "-Infinity", "Infinity"].into_iter().find(|l| text[position..].starts_with(l));
                if let Some(literal) = literal {
                    out.push_str(&text[copied..position]);
                    out.push('"');
                    out.push_str(literal);
                    out.push('"');
                    position += literal.len();
                    copied = position;
                    continue;
                }
            }
            _ => {}
        }
        position += 1;
    }
    (copied > 0).then(|| out + &text[copied..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str, binary: &[u8]) -> Result<(InferRequest, AnswerForm), ServeError> {
        let body = [json.as_bytes(), binary].concat();
        let (request, form, _) =
            parse("m", &Bytes::from(body), json.len(), &RequestLimits::default())?.into_parts();
        Ok((request, form))
    }

    fn inputs(request: InferRequest) -> Vec<InputTensor> {
        match request.inputs {
            Inputs::Named(inputs) => inputs,
            Inputs::Raw(_) => panic!("named inputs were sent"),
        }
    }

    #[test]
    fn json_and_binary_inputs_are_read_in_order() {
        let json = r#"{"id":"7","inputs":[
            {"name":"a","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}},
            {"name":"b","data":[[1.5]],"shape":[1,1],"datatype":"FP32","parameters":null},
            {"name":"c","datatype":"UINT8","shape":[0],"parameters":{"binary_data_size":0},"data":null}]}"#;
        let (request, form) = parsed(json, &[8, 9]).unwrap();
        assert_eq!(form.id.as_deref(), Some("7"));
        let inputs = inputs(request);
        assert_eq!(inputs[0].tensor.data().as_ref(), [8, 9]);
        assert_eq!(inputs[1].tensor.data().as_ref(), 1.5f32.to_le_bytes());
        assert_eq!(inputs[2].tensor.elements(), 0);
    }

    #[test]
    fn members_may_stand_in_any_order_but_once() {
        let members = [
            r#""name":"x""#,
            r#""datatype":"FP32""#,
            r#""shape":[2]"#,
            r#""data":[1,2.5]"#,
            r#""more":[{}]"#,
        ];
        let body = |members: &[&str]| format!(r#"{{"inputs":[{{{}}}]}}"#, members.join(","));
        for first in 0..members.len() {
            let mut order = members;
            order.rotate_left(first);
            let inputs = inputs(parsed(&body(&order), &[]).unwrap().0);
            assert_eq!(inputs[0].tensor.data().as_ref(), [1f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat());
        }
        for (twice, member) in ["name", "datatype", "shape", "data"].into_iter().zip(members) {
            let doubled = body(&[&members[..], &[member]].concat());
            let error = parsed(&doubled, &[]).unwrap_err();
            assert!(error.message().contains(&format!("duplicate field `{twice}`")), "{}", error.message());
        }
        let error =
            parsed(&body(&[members[0], members[1], members[2], r#""data":[1,"x"]"#]), &[]).unwrap_err();
        assert!(error.message().starts_with("input 'x': "), "{}", error.message());
        assert!(error.message().ends_with("(after 1 elements)"), "{}", error.message());
    }

    #[test]
    fn output_forms_follow_the_most_specific_word() {
        let json = r#"{"parameters":{"binary_data_output":true,"timeout":5,"priority":2},"inputs":[],
            "outputs":[{"name":"x"},{"name":"y","parameters":{"binary_data":false,"classification":3}}]}"#;
        let (request, form) = parsed(json, &[]).unwrap();
        assert!(form.is_binary("x") && !form.is_binary("y") && form.is_binary("z"));
        assert_eq!(request.outputs[1].classes, 3);
        assert_eq!(request.limits.priority, 2);
        assert_eq!(request.limits.timeout, Some(std::time::Duration::from_micros(5)));
    }

    #[test]
    fn pythons_literals_are_read() {
        let json = r#"{"id":"NaN","inputs":[{"name":"-Infinity \" NaN","datatype":"FP32","shape":[3],"data":[NaN,-Infinity,Infinity]}]}"#;
        let inputs = inputs(parsed(json, &[]).unwrap().0);
        assert_eq!(inputs[0].name, "-Infinity \" NaN");
        assert_eq!(inputs[0].tensor.data()[4..8], f32::NEG_INFINITY.to_le_bytes());
        assert_eq!(quote_nonfinite(r#"{"a":"NaN"}"#), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let input =
            |rest: &str| format!(r#"{{"inputs":[{{"name":"a","datatype":"UINT8","shape":[2]{rest}}}]}}"#);
        for (json, binary, part) in [
            ("{".to_owned(), 0, "failed to parse the request JSON"),
            ("{}".to_owned(), 0, "no \"inputs\""),
            (input(""), 0, "neither"),
            (input(r#","data":[1,2],"parameters":{"binary_data_size":2}"#), 2, "both"),
            (input(r#","data":[1]"#), 0, "needs 2 elements"),
            (input(r#","parameters":{"binary_data_size":3}"#), 2, "only 2 bytes are left"),
            (input(r#","parameters":{"binary_data_size":2}"#), 3, "1 bytes are left over"),
            (input(r#","parameters":{"binary_data_size":1}"#), 1, "Expected 2, got 1"),
            (input(r#","parameters":{"binary_data_size":-1}"#), 0, "not negative"),
            (input(r#","parameters":{"shared_memory_region":"r"}"#), 0, "no shared memory"),
            (input(r#","data":[1,2]"#).replace("UINT8", "UINT9"), 0, "unknown data-type 'UINT9'"),
            (input(r#","data":[1,2]"#).replace("[2]", "[-2]"), 0, "must not be negative"),
            (input(r#","data":[1,2]"#).replace("[2]", "[4611686018427387904,4]"), 0, "too large"),
            (r#"{"inputs":[],"parameters":{"triton_x":1}}"#.to_owned(), 0, "reserved"),
            (r#"{"inputs":[],"parameters":{"x":[1]}}"#.to_owned(), 0, "must be a number"),
        ] {
            let error = parsed(&json, &vec![0; binary]).expect_err(&json);
            assert!(error.message().contains(part), "{json}: {error}");
        }
    }
}

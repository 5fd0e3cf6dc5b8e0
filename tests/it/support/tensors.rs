//! Request bodies and the numbers in answers.

use serde_json::{Value, json};

use super::http::Answer;

/// A body with the one input `INPUT0` of FP32: what most models of the tests take.
pub fn fp32(shape: &[usize], data: &[f32]) -> Value {
    json!({"inputs": [tensor("INPUT0", "FP32", shape, &json!(data))]})
}

/// `rows` rows of four numbers that count up.
pub fn rows_of_four(rows: usize) -> Value {
    let data: Vec<f32> = (0..rows * 4).map(|i| i as f32).collect();
    fp32(&[rows, 4], &data)
}

/// The two inputs of `simple`, one row each, told apart by `seed`.
pub fn simple(seed: i32) -> Value {
    let row = |first: i32| json!((0..16).map(|i| first + i * seed).collect::<Vec<_>>());
    let inputs = [("INPUT0", row(seed)), ("INPUT1", row(-7))];
    json!({"inputs": inputs.map(|(name, data)| tensor(name, "INT32", &[1, 16], &data))})
}

/// The same body with one more request parameter.
pub fn with_parameter(mut body: Value, key: &str, value: impl Into<Value>) -> Value {
    body["parameters"][key] = value.into();
    body
}

pub fn tensor(name: &str, datatype: &str, shape: &[usize], data: &Value) -> Value {
    json!({"name": name, "datatype": datatype, "shape": shape, "data": data})
}

/// The numbers of the answer's output `OUTPUT0`, and their shape.
#[track_caller]
pub fn output0(answer: Answer) -> (Vec<usize>, Vec<f32>) {
    let body = answer.expect(200).json();
    let outputs = body["outputs"].as_array().expect("an answer has outputs");
    let output = outputs.iter().find(|output| output["name"] == "OUTPUT0").expect("OUTPUT0 is among them");
    let take = |key: &str| output[key].clone();
    (serde_json::from_value(take("shape")).unwrap(), serde_json::from_value(take("data")).unwrap())
}

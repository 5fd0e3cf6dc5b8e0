//! Texts of different lengths that share batches.

use serde_json::{Value, json};

use crate::support::http::{Answer, Connection};
use crate::support::repository::Repository;
use crate::support::tensors::tensor;
use crate::support::weir::Weir;

const MODEL: &str = "tests/models/text";

fn padding(inputs: &str) -> String {
    format!("parameters {{ key: \"pad_inputs\" value {{ string_value: \"{inputs}\" }} }}")
}

/// A request of so many rows of that length, told apart by `seed`.
fn text(rows: usize, length: usize, seed: usize) -> Value {
    let numbers = |number: &dyn Fn(usize) -> usize| json!((0..rows * length).map(number).collect::<Vec<_>>());
    let inputs = [
        ("input_ids", numbers(&|at| (7 * at + 11 * seed) % 64)),
        // The second word of every text is one that the client itself masks.
        ("attention_mask", numbers(&|at| usize::from(at % length != 1))),
        ("token_type_ids", numbers(&|at| (at + seed) % 2)),
    ];
    json!({"inputs": inputs.map(|(name, data)| tensor(name, "INT64", &[rows, length], &data))})
}

/// Each output's name, shape and numbers.
fn outputs(answer: &Answer) -> Vec<(String, Vec<usize>, Vec<f64>)> {
    let body = answer.json();
    let outputs = body["outputs"].as_array().expect("an answer has outputs").iter();
    let read = |output: &Value| {
        let part = |key: &str| output[key].clone();
        (
            part("name").as_str().unwrap().to_owned(),
            serde_json::from_value(part("shape")).unwrap(),
            serde_json::from_value(part("data")).unwrap(),
        )
    };
    outputs.map(read).collect()
}

#[track_caller]
fn assert_same(together: &Answer, alone: &Answer) {
    for ((name, shape, ours), (_, shape_alone, theirs)) in outputs(together).iter().zip(outputs(alone)) {
        assert_eq!(*shape, shape_alone, "{name}");
        let far = ours.iter().zip(&theirs).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(ours.len() == theirs.len() && far <= 1e-5, "{name} differs by {far}");
    }
}

/// Sizes of requests, rows × length, that fall into buckets of four rows each.
const BUCKETS: [&[(usize, usize)]; 6] = [
    &[(1, 7), (1, 8), (1, 7), (1, 8)],
    &[(1, 9), (1, 10), (1, 10), (1, 9)],
    &[(1, 11), (1, 12), (1, 13), (1, 12)],
    &[(1, 14), (1, 15), (1, 16), (1, 17)],
    &[(2, 18), (1, 22), (1, 20)],
    &[(3, 39), (1, 50)],
];

#[test]
fn texts_of_different_lengths_share_batches_and_get_the_answers_they_get_alone() {
    let repository = Repository::new();
    repository.model("alone", MODEL, "max_batch_size: 16");
    // A batch goes when it has four rows; else it goes after three seconds, and there are more of them.
    let batches = "dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 3000000 }";
    let padded = padding("input_ids:0,attention_mask:mask,token_type_ids:0");
    repository.model("text", MODEL, &format!("max_batch_size: 16 {batches} {padded}"));
    let weir = Weir::start(&repository, &[]);
    let requests: Vec<Value> =
        BUCKETS.concat().iter().enumerate().map(|(seed, &(rows, length))| text(rows, length, seed)).collect();
    let asked: Vec<Connection> = requests.iter().map(|request| weir.ask("text", request)).collect();
    for (mut connection, request) in asked.into_iter().zip(&requests) {
        let together = connection.receive().expect("it is answered").expect(200);
        assert_same(&together, &weir.infer("alone", request).expect(200));
    }
    let statistics = weir.get("/v2/models/text/stats").expect(200).json();
    let of_model = &statistics["model_stats"][0];
    assert_eq!(of_model["execution_count"], BUCKETS.len(), "{statistics}");
    assert_eq!(of_model["inference_count"], 4 * BUCKETS.len(), "{statistics}");
}

#[test]
fn a_request_whose_inputs_differ_in_length_fails_alone() {
    let repository = Repository::new();
    let padded = padding("input_ids:0,attention_mask:mask,token_type_ids:0");
    repository.model("text", MODEL, &format!("max_batch_size: 16 dynamic_batching {{ }} {padded}"));
    let weir = Weir::start(&repository, &[]);
    let mut uneven = text(1, 8, 1);
    uneven["inputs"][1] = tensor("attention_mask", "INT64", &[1, 7], &json!(vec![1; 7]));
    assert_ne!(weir.infer("text", &uneven).status, 200);
    weir.infer("text", &text(1, 8, 1)).expect(200);
}

#[test]
fn padding_that_does_not_suit_the_model_is_refused() {
    let repository = Repository::new();
    let batched = "max_batch_size: 16 dynamic_batching { }";
    for (name, from, config, inputs) in [
        ("unknown", MODEL, batched, "words:0,attention_mask:mask"),
        ("value", MODEL, batched, "input_ids:none,attention_mask:mask"),
        ("unmasked", MODEL, batched, "input_ids:0,token_type_ids:0"),
        // What is not padded keeps its own length, which the model does not take.
        ("incomplete", MODEL, batched, "input_ids:0,attention_mask:mask"),
        ("single", MODEL, "max_batch_size: 16", "input_ids:0,attention_mask:mask,token_type_ids:0"),
        ("strings", "tests/models/identity_bytes", batched, "INPUT0:mask"),
        ("fixed", "tests/models/slow", batched, "INPUT0:mask"),
    ] {
        repository.model(name, from, &format!("{config} {}", padding(inputs)));
    }
    let weir = Weir::start(&repository, &[]);
    for (name, part) in [
        ("unknown", "no input 'words'; it takes input_ids"),
        ("value", "'input_ids' of INT64 cannot be padded with 'none'"),
        ("unmasked", "attention_mask:mask"),
        ("incomplete", "a trial run failed"),
        ("single", "add dynamic_batching"),
        ("strings", "holds strings"),
        ("fixed", "no open dimension after the batch dimension"),
    ] {
        let (state, reason) = weir.state(name);
        assert_eq!(state, "UNAVAILABLE", "{name}");
        assert!(reason.contains("pad_inputs") && reason.contains(part), "{name}: {reason}");
    }
}

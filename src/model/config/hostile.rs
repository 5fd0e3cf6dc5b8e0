//! Configs that ask for too much, and the reasons that they are refused with.

use super::{Defaults, ModelConfig, pbtxt, resolve};
use crate::backend::Folder;
use crate::error::excerpt;
use crate::id::ModelName;

fn resolved(text: &str) -> Result<ModelConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let model = Folder::new(folder.path(), "");
    resolve(&pbtxt::parse(text)?, &ModelName::parse("m").unwrap(), &model, &Defaults::default())
}

#[test]
fn numbers_have_limits_that_are_told() {
    let many = |key: &str, count: usize| format!("{key} ").repeat(count);
    let x = |dims: &str| format!("input {{ name: \"x\" data_type: TYPE_FP32 dims: {dims} }}");
    let warm = |keys: &str, input: &str| {
        format!(
            "model_warmup {{ name: \"w\" {keys} inputs {{ key: \"x\" value {{ data_type: TYPE_FP32 {input} }} }} }}"
        )
    };
    for (text, part) in [
        ("max_batch_size: 2147483647".to_owned(), "max_batch_size 2147483647 must be at most 1048576"),
        ("instance_group { count: 257 }".to_owned(), "count 257 must be between 1 and 256"),
        (many("instance_group { count: 200 }", 2), "asks for 400 instances in all; at most 256"),
        (format!("instance_group {{ kind: KIND_GPU gpus: [ {} 0 ] }}", "0,".repeat(300)), "asks for 301"),
        ("instance_group { kind: KIND_GPU gpus: -1 }".to_owned(), "gpus -1 must be between 0 and 1023"),
        (many(&x("1"), 1025), "input has 1025 entries; at most 1024"),
        (many(&x("1"), 2), "input 'x' is there twice"),
        (x(&format!("[ {} 1 ]", "1,".repeat(32))), "input 'x' has more than 32 dimensions"),
        (x("[ 4294967296, 4294967296 ]"), "more elements than there can be"),
        (x("[ 9223372036854775807 ]"), "more elements than there can be"),
        (x("-9223372036854775808"), "use -1 for an open one"),
        (x("1").replace("\"x\"", "\"a\\nb\""), "without control characters"),
        (x("1").replace("\"x\"", &format!("\"{}\"", "a".repeat(2000))), "must be at most 1024 bytes"),
        ("dynamic_batching { priority_levels: 1001 default_priority_level: 1 }".to_owned(), "more than 1000"),
        ("dynamic_batching { priority_levels: 18446744073709551615 }".to_owned(), "more than 1000"),
        ("dynamic_batching { default_priority_level: 5 }".to_owned(), "5 needs priority_levels"),
        ("dynamic_batching { priority_queue_policy { key: 2 value { } } }".to_owned(), "names level 2"),
        (
            "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }".to_owned(),
            "max_queue_delay_microseconds 18446744073709551615 must be at most 3000000",
        ),
        (
            "dynamic_batching { default_queue_policy { default_timeout_microseconds: 18446744073709551615 } }"
                .to_owned(),
            "default_timeout_microseconds 18446744073709551615 must be at most 86400000000",
        ),
        (
            "dynamic_batching { default_queue_policy { max_queue_size: 4294967295 } }".to_owned(),
            "max_queue_size 4294967295 must be at most 16777216",
        ),
        ("dynamic_batching { preferred_batch_size: -2147483648 }".to_owned(), "preferred_batch_size"),
        (format!("dynamic_batching {{ preferred_batch_size: [ {} 1 ] }}", "1,".repeat(2000)), "2001 entries"),
        ("version_policy { specific { } }".to_owned(), "specific names no version"),
        ("version_policy { specific { versions: -1 } }".to_owned(), "-1 is not a version number"),
        (warm("count: 4000000000", "dims: 1"), "makes more than 100000 runs"),
        (warm("batch_size: 4000000000", "dims: 1"), "makes more than 67108864 bytes"),
        (warm("", "dims: [ 4294967296, 4294967296, 4294967296 ]"), "makes more than 67108864 bytes"),
        (many(&warm("", "dims: 10000000"), 2), "makes more than 67108864 bytes with those before it"),
        (warm("", "dims: 1 input_data_file: \"../labels.txt\""), "'../labels.txt' leaves its folder"),
        (warm("", "dims: 1 input_data_file: \"no\""), "'no' is not there"),
        ("parameters { key: \"latency_objective_ms\" value { string_value: \"NaN\" } }".to_owned(), "'NaN'"),
        ("parameters { key: \"latency_objective_ms\" value { string_value: \"inf\" } }".to_owned(), "'inf'"),
        ("parameters { key: \"isolation\" value { string_value: \"cage\" } }".to_owned(), "auto, process or none"),
        ("parameters { key: \"intra_op_thread_count\" value { string_value: \"1000000\" } }".to_owned(), "number of threads"),
        (
            (0..1025).map(|i| format!("parameters {{ key: \"{i}\" value {{ }} }} ")).collect(),
            "parameters has 1025 entries",
        ),
        (
            format!("parameters {{ key: \"pad_inputs\" value {{ string_value: \"{}\" }} }}", "a:0,".repeat(200_000)),
            "names more than 64 inputs",
        ),
        ("default_model_filename: \"a\\nb\"".to_owned(), "plain file name"),
        ("default_model_filename: \"m/\"".to_owned(), "plain file name"),
        ("default_model_filename: \"..\"".to_owned(), "plain file name"),
    ] {
        let error = resolved(&text).expect_err(&text);
        assert!(error.contains(part), "{}: {error}", excerpt(&text));
    }
}

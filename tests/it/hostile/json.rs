//! Bodies whose JSON is meant to cost more than it is worth.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{impatient, still_well};
use crate::support::weir::{Weir, infer_path};

fn input(rest: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"INPUT0","datatype":"INT32",{rest}}}]}}"#)
}

#[track_caller]
fn refused(weir: &Weir, body: &str, words: &str) {
    let answer = weir.connect().ask("POST", &infer_path("simple"), &[], body.as_bytes());
    let message = answer.error(400);
    assert!(message.contains(words), "{}: {message}", &body[..body.len().min(200)]);
    still_well(weir);
}

#[test]
fn what_is_too_deep_too_long_or_too_many_is_refused_with_the_limit() {
    let weir = impatient(&["--max-json-depth", "10", "--max-string-bytes", "50", "--max-tensors", "4"]);
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let long = "a".repeat(51);
    let many = |item: &str, n: usize| vec![item; n].join(",");
    let named = |n: usize| (0..n).map(|i| format!(r#""p{i}":1"#)).collect::<Vec<_>>().join(",");
    let empty = r#"{"name":"x","datatype":"INT32","shape":[0],"data":[]}"#;
    for (body, words) in [
        (format!(r#"{{"unknown":{}}}"#, deep(10)), "nested deeper than 10"),
        (format!(r#"{{"inputs":[],"parameters":{{"a":{}}}}}"#, deep(9)), "nested deeper than 10"),
        (format!(r#"{{"inputs":[],"parameters":{{"a":{}}}}}"#, deep(3)), "must be a number"),
        (input(&format!(r#""shape":[1],"data":{}"#, deep(8))), "nested deeper than 7"),
        (input(&format!(r#""data":{},"shape":[1]"#, deep(8))), "nested deeper than 7"),
        (input(&format!(r#""more":{},"shape":[1]"#, deep(9))), "nested deeper than 10"),
        (format!(r#"{{"id":"{long}","inputs":[]}}"#), "a string has 51 bytes, the limit is 50"),
        (format!(r#"{{"inputs":[],"parameters":{{"a":"{long}"}}}}"#), "a string has 51 bytes"),
        (format!(r#"{{"inputs":[],"parameters":{{"{long}":1}}}}"#), "a string has 51 bytes"),
        (format!(r#"{{"inputs":[{}]}}"#, many(empty, 5)), "more than 4 inputs"),
        (format!(r#"{{"inputs":[],"outputs":[{}]}}"#, many(r#"{"name":"y"}"#, 5)), "more than 4 outputs"),
        (format!(r#"{{"inputs":[],"parameters":{{{}}}}}"#, named(257)), "more than 256 parameters"),
        (input(&format!(r#""shape":[{}],"data":[1]"#, many("1", 33))), "more than 32 dimensions"),
        (input(r#""shape":[9223372036854775807,9223372036854775807],"data":[1]"#), "too large"),
        (input(r#""shape":[4611686018427387904],"data":[1]"#), ""),
        (input(r#""shape":[1000000000],"data":[1]"#), ""),
        (input(r#""shape":[1],"data":[1],"data":[1]"#), "duplicate field `data`"),
        (r#"{"inputs":[]}{"inputs":[]}"#.to_owned(), "trailing characters"),
        ("[]".to_owned(), "a request, which is an object"),
        ("null".to_owned(), "a request, which is an object"),
        ("\u{feff}{}".to_owned(), "failed to parse"),
        (r#"{"id":"\ud800","inputs":[]}"#.to_owned(), "failed to parse"),
        (input(r#""shape":[1],"data":[1e999]"#), "number out of range"),
        (input(r#""shape":[1],"data":[NaN]"#), ""),
    ] {
        refused(&weir, &body, words);
    }
}

#[test]
fn megabytes_of_brackets_take_little_time_and_memory() {
    let weir = impatient(&[]);
    let before = weir.resident_bytes();
    let brackets = "[".repeat(16 << 20);
    let pairs = "[],".repeat(4 << 20);
    for body in [
        brackets.clone(),
        format!(r#"{{"x":{brackets}"#),
        input(&format!(r#""shape":[1],"data":{brackets}"#)),
        input(&format!(r#""data":{brackets}"#)),
        input(&format!(r#""shape":[0],"data":[{pairs}[]]"#)),
        input(&format!(r#""shape":[1],"parameters":{{"a":[{pairs}1]}}"#)),
        format!(
            r#"{{"inputs":[{}"#,
            r#"{"name":"a","datatype":"INT32","shape":[0],"data":[]},"#.repeat(200_000)
        ),
        format!("{}NaN", "N".repeat(16 << 20)),
    ] {
        let begun = std::time::Instant::now();
        let answer = weir.connect().ask("POST", &infer_path("simple"), &[], body.as_bytes());
        assert!(matches!(answer.status, 400 | 413), "{}", answer.text());
        assert!(begun.elapsed() < super::IN_TIME, "{:?}", begun.elapsed());
    }
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 300 << 20, "{} MB", grown >> 20);
    still_well(&weir);
}

#[test]
fn a_small_body_that_unpacks_to_a_large_one_is_refused_by_its_ratio() {
    let weir = impatient(&["--max-decompression-ratio", "50"]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&vec![b' '; 32 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    let headers = [("content-encoding", "gzip")];
    let answer = weir.connect().ask("POST", &infer_path("simple"), &headers, &bomb);
    let message = answer.error(413);
    assert!(message.contains("packed too tightly"), "{message}");
    // What follows a packed body, or is missing of it, is a mistake.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(b"{}").unwrap();
    let whole = gzip.finish().unwrap();
    for wrong in [[&whole[..], b"more"].concat(), whole[..whole.len() - 1].to_vec()] {
        let answer = weir.connect().ask("POST", &infer_path("simple"), &headers, &wrong);
        let message = answer.error(400);
        assert!(message.contains("not in the gzip format"), "{message}");
    }
    still_well(&weir);
}

#[test]
fn an_answer_that_would_be_too_long_is_refused() {
    let weir = impatient(&["--max-answer-bytes", "100"]);
    let message = weir.infer("simple", &crate::support::tensors::simple(1)).error(413);
    assert!(message.contains("more than 100 bytes"), "{message}");
}

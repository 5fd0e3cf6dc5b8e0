//! ONNX Runtime in this process: the only user of `ort`, and the only place where `unsafe` stands.
//!
//! Always: the library is loaded once and stays; a session's values are released before the session.
//! Not here: batching, configuration files.

// The raw API is what allows concurrent calls of one session, bytes of any value in strings, and answers without
// a copy; the safe wrapper of `ort` offers none of the three. Each block states what makes it sound.
#![allow(unsafe_code)]

mod files;
mod hazards;
pub mod inspect;
mod library;
mod load;
mod memory;
mod open;
mod options;
mod session;
mod value;
#[cfg(target_os = "linux")]
pub mod worker;

pub use library::{LibraryError, Runtime, end_process, opt_out_of_telemetry};
pub use load::{LoadLimits, OnnxLoader, WORKER_ARGUMENT, run_as_worker};
pub use memory::release_memory;

/// Drops ONNX Runtime's own source positions (`/onnxruntime_src/…/file.cc:123`) from its messages, with the C++
/// signature that follows each.
fn without_source_location(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, position)) = split_at_position(rest) {
        out.push_str(before);
        out.push(' ');
        rest = after_signature(position);
    }
    out.push_str(rest);
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text before the first source position, and the text after it.
fn split_at_position(text: &str) -> Option<(&str, &str)> {
    let end =
        [".cc:", ".h:", ".cpp:"].iter().filter_map(|suffix| Some(text.find(suffix)? + suffix.len())).min()?;
    let start = text[..end].rfind(|c: char| c.is_whitespace()).map_or(0, |i| i + 1);
    let start = start + text[start..end].find('/')?;
    Some((&text[..start], text[end..].trim_start_matches(|c: char| c.is_ascii_digit())))
}

/// The text after a C++ signature, if it begins with one.
fn after_signature(text: &str) -> &str {
    let Some(open) = text.find('(').filter(|open| text[..*open].contains("::") || *open < 40) else {
        return text;
    };
    let mut depth = 0;
    for (i, c) in text[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            let rest = text[open + i + 1..].trim_start();
            let rest = rest.strip_prefix("const ").unwrap_or(rest);
            return match rest.strip_prefix("[with ").and_then(|types| types.split_once("] ")) {
                Some((_, rest)) => rest,
                None => rest,
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_source_positions_and_keep_their_sense() {
        for (text, expected) in [
            (
                "Load model from the model file failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:256 \
                 onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void(int)>&) Unsupported IR version: 14",
                "Load model from the model file failed: Unsupported IR version: 14",
            ),
            (
                "Status Message: /onnxruntime_src/conv_integer.cc:52 virtual Status onnxruntime::C::Compute(K*) const \
                 Padding must be zero",
                "Status Message: Padding must be zero",
            ),
            ("x /a/b.h:7 void f(T) [with T = float; U = int] too large (by 3)", "x too large (by 3)"),
            ("no position (here)", "no position (here)"),
            ("a ratio of 3/4.cc", "a ratio of 3/4.cc"),
        ] {
            assert_eq!(without_source_location(text), expected);
        }
    }
}

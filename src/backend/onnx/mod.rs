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

/// Drops ONNX Runtime's own source positions from its messages: the long form, `/onnxruntime_src/…/file.cc:123` and the C++
/// signature of the function, and the short one, `file.cc:123` and the function's name.
fn without_source_location(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, position, after)) = split_at_position(rest) {
        out.push_str(before);
        out.push(' ');
        rest = if position.contains('/') { after_signature(after) } else { after_name(after) };
    }
    out.push_str(rest);
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What source files are called.
const SOURCES: [&str; 5] = [".cc:", ".h:", ".cpp:", ".hpp:", ".cu:"];

/// The text before the first source position, the position, and the text after it.
fn split_at_position(text: &str) -> Option<(&str, &str, &str)> {
    let starts = text.match_indices('.').map(|(i, _)| i);
    let mut ends = starts.filter_map(|dot| {
        let suffix = SOURCES.iter().find(|suffix| text[dot..].starts_with(**suffix))?;
        let number = &text[dot + suffix.len()..];
        let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
        let whole = rest.len() < number.len() && !rest.starts_with(|c: char| c.is_alphanumeric());
        whole.then_some((dot, text.len() - rest.len()))
    });
    ends.find_map(|(dot, end)| {
        // A name may hold whitespace of several bytes.
        let mut before = text[..dot].char_indices().rev();
        let word = before.find(|(_, c)| c.is_whitespace()).map_or(0, |(i, c)| i + c.len_utf8());
        let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let name = text[..dot].trim_end_matches(in_name).len();
        let start = text[word..dot].find('/').map_or(name, |slash| word + slash);
        (start < dot).then(|| (&text[..start], &text[start..end], &text[end..]))
    })
}

/// The text after the name of a function.
fn after_name(text: &str) -> &str {
    let text = text.trim_start();
    let text = text.strip_prefix("operator()").unwrap_or(text);
    text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '~' | ':' | '<' | '>'))
}

/// The text after a C++ signature, if it begins with one.
fn after_signature(text: &str) -> &str {
    let Some(open) = text.find('(').filter(|open| text[..*open].contains("::") || *open < 40) else {
        return text;
    };
    let mut rest = after_group(&text[open..]);
    // A call operator has its parameters behind its name; what is in a function goes on behind the function's own.
    loop {
        let here = rest.trim_start();
        rest = if rest.starts_with('(') {
            after_group(rest)
        } else if let Some(inner) = rest.strip_prefix(" const").filter(|inner| inner.starts_with("::")) {
            inner
        } else if rest.starts_with("::") {
            let name = rest.find(|c: char| c == '(' || c.is_whitespace()).unwrap_or(rest.len());
            let parameters = &rest[name..];
            let inner = if parameters.starts_with('(') { after_group(parameters) } else { parameters };
            inner.strip_prefix('>').unwrap_or(inner)
        } else if let Some(after) = ["const ", "noexcept "].iter().find_map(|word| here.strip_prefix(word)) {
            after
        } else if here.starts_with("[with ") {
            after_group(here)
        } else {
            return here;
        };
    }
}

/// The text after the brackets that it begins with; nothing if they do not close.
fn after_group(text: &str) -> &str {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return &text[i + 1..];
        }
    }
    ""
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
            ("node '\u{3000}a.cc:1' failed", "node ' ' failed"),
            (
                "Status Message: /onnxruntime_src/window_functions.cc:9 onnxruntime::common::Status \
                 onnxruntime::M<T>::operator()(onnxruntime::OpKernelContext*, int64_t, float) [with T = float; int64_t = \
                 long int] lowest_index >= 0 was false",
                "Status Message: lowest_index >= 0 was false",
            ),
            (
                "failed: /onnxruntime_src/normalizer.cc:77 onnxruntime::N::N(const K&)::<lambda()> Failed to construct it",
                "failed: Failed to construct it",
            ),
            (
                "failed: /a/b.cc:77 onnxruntime::N::f(int) const::<lambda(const std::vector<int>&)> Failed (x)",
                "failed: Failed (x)",
            ),
            (
                "Status Message: element_wise_ops.cc:692 Compute Integer division by zero",
                "Status Message: Integer division by zero",
            ),
            ("x: element_wise_ops.cc:2256 operator() Integer modulo by zero", "x: Integer modulo by zero"),
            (
                "upsamplebase.h:548 ScalesValidation Scale value should be greater",
                "Scale value should be greater",
            ),
            (
                "[ONNXRuntimeError] : 1 : FAIL : tensorprotoutils.cc:2507 CopySparseData Sparse tensor: w index. Got:-1",
                "[ONNXRuntimeError] : 1 : FAIL : Sparse tensor: w index. Got:-1",
            ),
            (
                "affine_grid.cc:124 Compute AffineGrid: size[0] (0) must equal",
                "AffineGrid: size[0] (0) must equal",
            ),
            ("dft.cc:546 short_time_fourier_transform frame_step must", "frame_step must"),
            ("a .cc:1 and a x.cc:y and an é.h:", "a .cc:1 and a x.cc:y and an é.h:"),
            ("a ratio of 3/4.cc", "a ratio of 3/4.cc"),
        ] {
            assert_eq!(without_source_location(text), expected);
        }
    }
}

//! Protobuf text to and from the message that it describes.

use std::sync::OnceLock;

use miette::Diagnostic;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use crate::proto::{DESCRIPTORS, inference as pb};

/// The descriptor of `inference.ModelConfig`.
pub fn descriptor() -> MessageDescriptor {
    static DESCRIPTOR: OnceLock<MessageDescriptor> = OnceLock::new();
    let find = || {
        let pool = DescriptorPool::decode(DESCRIPTORS).expect("the build wrote valid descriptors");
        pool.get_message_by_name("inference.ModelConfig").expect("the protocol has a ModelConfig")
    };
    DESCRIPTOR.get_or_init(find).clone()
}

/// Parses a config's text. Errors: the line and the unknown or malformed key.
pub fn parse(text: &str) -> Result<DynamicMessage, String> {
    let text = normalise(text)?;
    DynamicMessage::parse_text_format(descriptor(), &text).map_err(|e| {
        let place = e.labels().and_then(|mut labels| labels.next());
        let before = place.and_then(|place| text.get(..place.offset())).unwrap_or_default();
        format!("config.pbtxt, line {}: {e}", before.matches('\n').count() + 1)
    })
}

/// Parses a config that is JSON. Errors: the unknown or malformed key.
pub fn parse_json(json: &str) -> Result<DynamicMessage, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(descriptor(), &mut reader)
        .map_err(|e| format!("the config's JSON: {e}"))?;
    reader.end().map_err(|e| format!("the config's JSON: {e}"))?;
    Ok(message)
}

/// A config as JSON, with the names and the defaults that Triton's clients read.
pub fn to_json(config: &pb::ModelConfig) -> serde_json::Value {
    let mut message = DynamicMessage::new(descriptor());
    message.transcode_from(config).expect("the message is of that type");
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).expect("a config is plain JSON")
}

/// Keys within keys. A config's own messages go six deep; the parser takes some of the stack for each.
const DEPTH_MAX: usize = 32;

/// Puts two habits of hand-written configs into the form that the parser reads: `input [ … ]` without the colon,
/// and a comma before a closing bracket. Comments are left out. Strings stay as they are, and so do positions by line.
///
/// Errors: brackets are open within each other without end. Cost: one look at each character.
fn normalise(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 16);
    // The last character that is neither white space nor part of a comment, with its place.
    let mut last: Option<(usize, char)> = None;
    let mut depth = 0usize;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            // Nothing in it is for the parser.
            '#' => {
                if characters.any(|c| c == '\n') {
                    out.push('\n');
                }
                continue;
            }
            '"' | '\'' => {
                out.push(c);
                let mut escaped = false;
                for s in characters.by_ref() {
                    out.push(s);
                    if escaped {
                        escaped = false;
                    } else if s == '\\' {
                        escaped = true;
                    } else if s == c {
                        break;
                    }
                }
                last = Some((out.len(), c));
                continue;
            }
            '[' if last.is_some_and(|(_, last)| last.is_ascii_alphanumeric() || last == '_') => {
                out.push(':');
            }
            ']' | '}' => {
                if let Some((at, ',')) = last {
                    out.replace_range(at..at + 1, " ");
                }
            }
            _ => {}
        }
        match c {
            '[' | '{' | '<' => depth += 1,
            ']' | '}' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            let line = out.matches('\n').count() + 1;
            return Err(format!(
                "config.pbtxt, line {line}: brackets are open more than {DEPTH_MAX} deep; no key lies so deep"
            ));
        }
        if !c.is_whitespace() {
            last = Some((out.len(), c));
        }
        out.push(c);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> pb::ModelConfig {
        parse(text).unwrap_or_else(|e| panic!("{e}")).transcode_to().unwrap()
    }

    #[test]
    fn tritons_usual_style_is_read() {
        let config = config(
            r#"
            name: "a [ b ,] # c"   # input [ x ],
            max_batch_size: 8
            input [
              { name: "X" data_type: TYPE_FP32 dims: [ 3, -1 ], }, # trailing comma
              {
                name: 'Y', data_type: TYPE_STRING
                dims [ 1 ]
              },
            ]
            instance_group [{ count: 2 kind: KIND_CPU }]
            parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
            dynamic_batching { preferred_batch_size: [ 2, 4 ] }
            "#,
        );
        assert_eq!(config.name, "a [ b ,] # c");
        assert_eq!(config.input.len(), 2);
        assert_eq!(config.input[0].dims, [3, -1]);
        assert_eq!(config.input[1].dims, [1]);
        assert_eq!(config.instance_group[0].count, 2);
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = parse("name: \"m\"\n\ninput [\n { name: \"x\" },\n]\nmax_batchsize: 8").unwrap_err();
        assert!(error.contains("line 6") && error.contains("max_batchsize"), "{error}");
        assert!(parse("max_batch_size: \"eight\"").is_err());
        assert!(parse("input [ { name: \"x\" ").is_err());
    }

    #[test]
    fn json_has_tritons_names_and_plain_numbers() {
        let json = to_json(&config("name: \"m\" input { name: \"x\" data_type: TYPE_INT64 dims: 4 }"));
        assert_eq!(json["max_batch_size"], 0);
        assert_eq!(json["input"][0]["dims"], serde_json::json!([4]));
        assert_eq!(json["input"][0]["data_type"], "TYPE_INT64");
        assert_eq!(json["input"][0]["is_shape_tensor"], false);
    }

    #[test]
    fn no_text_takes_long_or_the_stack() {
        let size = 1 << 20;
        let texts = [
            "[",
            "{",
            "<",
            "]",
            "}",
            ",",
            "\"",
            "'",
            "#",
            "\\",
            "a",
            "a:",
            "a{",
            "a[",
            "a<",
            "[,",
            ",]",
            "{}",
            " ",
            "\n",
            "-",
            "0",
            "\"\"",
            "a:\"\"",
            "input{",
            "input[",
            "input:[{",
            "input{}",
            "dims:1 ",
            "#\n",
            ",#\n]",
            "é",
            "\0",
            "name:\"a\" ",
            "/",
            ";",
            "0x",
            "parameters{}",
            "input{name:\"a\"}",
            "[a.b/c]:{",
            "1.",
            "1e",
            ":",
        ];
        for piece in texts {
            let text = piece.repeat(size / piece.len());
            let within = [
                format!("name: \"m\" {text}"),
                format!("name: \"{text}\""),
                format!("input [ {{ dims: [ {}", piece.repeat(1000)),
            ];
            for text in within.iter().chain([&text]) {
                let started = std::time::Instant::now();
                let _ = parse(text);
                let took = started.elapsed();
                // About a tenth of that on a slow machine; with anything quadratic it would be minutes.
                assert!(took.as_secs() < 10, "{piece:?} took {took:?}");
            }
        }
        let deep = format!("input {}", "{ reshape ".repeat(100_000));
        assert!(parse(&deep).unwrap_err().contains("more than 32 deep"));
        for json in ["[", "{\"input\":", "{\"input\":[", "{\"model_warmup\":[{\"inputs\":{\"a\":"] {
            assert!(parse_json(&json.repeat(100_000)).is_err(), "{json}");
        }
    }

    #[test]
    fn a_comma_before_a_bracket_is_found_behind_comments() {
        assert_eq!(normalise("a [ 1, # b ]\n # c\n ]").unwrap(), "a :[ 1  \n \n ]");
        assert_eq!(normalise("a: \"x,\" ]").unwrap(), "a: \"x,\" ]");
    }
}

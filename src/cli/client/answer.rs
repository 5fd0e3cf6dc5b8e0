//! An answer of the control API: its JSON as it came, and as a message.

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a server answered with success.
#[derive(Debug, Clone)]
pub struct Answer {
    text: String,
    json: Value,
}

impl Answer {
    pub(super) fn new(body: &[u8], json: Value) -> Self {
        Self { text: String::from_utf8_lossy(body).into_owned(), json }
    }

    /// The sentence of an error's body, `{"error": "…"}`.
    pub(super) fn refusal(mut json: Value) -> Option<String> {
        escape_controls(&mut json);
        Some(json.get("error")?.as_str()?.to_owned())
    }

    /// The body as it came.
    pub fn json(&self) -> &str {
        &self.text
    }

    /// The body as a message. Its strings hold no control characters, so that no label, name or value that passed
    /// through the server moves the cursor of who reads it here.
    ///
    /// Errors: the body is another message, which only a server of another version would send.
    pub fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        self.read_after(|_| ())
    }

    /// Like [`Self::read`], with `reshape` applied to the JSON first.
    pub fn read_after<T: DeserializeOwned>(&self, reshape: impl FnOnce(&mut Value)) -> anyhow::Result<T> {
        let mut json = self.json.clone();
        reshape(&mut json);
        // JSON has no NaN: what has no value is null, and counts as absent.
        drop_absent(&mut json);
        escape_controls(&mut json);
        serde_json::from_value(json).context(
            "the answer is not understood; are this weir and the server of one version? --json shows it",
        )
    }
}

/// Removes keys whose value is null, or empty text.
pub(super) fn drop_absent(json: &mut Value) {
    match json {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
            map.values_mut().for_each(drop_absent);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_absent),
        _ => {}
    }
}

fn escape_controls(json: &mut Value) {
    match json {
        Value::String(text) if text.contains(char::is_control) => *text = visible(text),
        Value::Array(items) => items.iter_mut().for_each(escape_controls),
        Value::Object(map) => {
            map.values_mut().for_each(escape_controls);
            if map.keys().any(|key| key.contains(char::is_control)) {
                *map = std::mem::take(map).into_iter().map(|(key, value)| (visible(&key), value)).collect();
            }
        }
        _ => {}
    }
}

fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::control::{Labels, Rollout};

    fn answer(text: &str) -> Answer {
        Answer::new(text.as_bytes(), serde_json::from_str(text).unwrap())
    }

    #[test]
    fn null_counts_as_absent() {
        let rollout: Rollout =
            answer(r#"{"id":"r1","share":null,"guards":[{"name":"errors","evidence":null}]}"#)
                .read()
                .unwrap();
        assert_eq!((rollout.share, rollout.guards[0].evidence), (0.0, 0.0));
    }

    #[test]
    fn control_characters_are_shown_not_sent_to_the_terminal() {
        let labels: Labels = answer(r#"{"labels":{"a\u001b[2J":1}}"#).read().unwrap();
        assert_eq!(labels.labels.keys().collect::<Vec<_>>(), ["a\\u{1b}[2J"]);
        let rollout: Rollout = answer(r#"{"reason":"one\ntwo \u009b"}"#).read().unwrap();
        assert_eq!(rollout.reason, "one\\ntwo \\u{9b}");
        let refusal = Answer::refusal(serde_json::json!({"error": "no\u{7}"}));
        assert_eq!(refusal.as_deref(), Some("no\\u{7}"));
    }

    #[test]
    fn another_message_is_told_as_such_and_its_json_is_kept() {
        let answer = answer(r#"{"labels":{},"extra":1}"#);
        let error = format!("{:#}", answer.read::<Labels>().unwrap_err());
        assert!(error.contains("of one version?") && error.contains("extra"), "{error}");
        assert_eq!(answer.json(), r#"{"labels":{},"extra":1}"#);
    }
}

//! What can go wrong with a request, named by what failed.
//!
//! Always: a message is fit for a client's eyes: no path, no other client's data, no line breaks of a client's.
//! Not here: status codes. `api::status` is the one place that knows them.

use std::fmt;

/// The closed set of reasons for which a request is not answered with a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: a tensor, a name, a number.
    InvalidArgument,
    /// No model of that name was ever known.
    UnknownModel,
    /// The model is known, the version is not, or none can be served.
    NotFound,
    /// The version is loading; or the server drains.
    Unavailable,
    /// A queue or the server is full; try again later.
    Overloaded,
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// The client went away.
    Cancelled,
    /// What is asked for does not go together with what stands: something else must be changed first.
    Conflict,
    /// The caller's idea of what stands is out of date.
    Stale,
    /// A feature that this server does not have.
    Unsupported,
    /// A body or message over the limit.
    TooLarge,
    /// A body that comes too slowly, or not at all.
    TooSlow,
    /// A body in a coding that this server does not read.
    UnsupportedEncoding,
    /// Our fault, or the model's.
    Internal,
}

/// A failed request: its kind and a sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeError {
    kind: ErrorKind,
    message: String,
}

impl ServeError {
    /// An error of `kind`. Control characters in the message are replaced, so that text which quotes a client
    /// cannot forge a log line or a header.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: on_one_line(message.into()) }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServeError {}

/// At most 80 characters of a client's text, for quoting in a message.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn on_one_line(text: String) -> String {
    match text.contains(|c: char| c.is_control()) {
        true => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        false => text,
    }
}

/// Characters of a reason at the most: some lines of a terminal.
const REASON_MAX: usize = 1000;

/// Why a model is not served, fit to be logged and shown: on one line, and not without end, whatever of the model's
/// own words is in it.
pub fn reason(text: String) -> String {
    let end = text.char_indices().nth(REASON_MAX).map(|(end, _)| end);
    on_one_line(match end {
        None => text,
        Some(end) => format!("{}…", &text[..end]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let error = ServeError::invalid("unknown 'a\r\nINFO all is well'");
        assert_eq!(error.message(), "unknown 'a  INFO all is well'");
    }

    #[test]
    fn a_reason_is_one_line_and_ends() {
        assert_eq!(reason("a\x1b[31m\nb".to_owned()), "a [31m b");
        assert_eq!(reason("é".repeat(5000)).chars().count(), 1001);
    }

    #[test]
    fn long_text_is_cut_on_a_character() {
        assert_eq!(excerpt("né"), "né");
        assert_eq!(excerpt(&"é".repeat(100)), format!("{}…", "é".repeat(80)));
    }
}

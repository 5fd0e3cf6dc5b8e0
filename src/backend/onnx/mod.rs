//! ONNX Runtime in this process: the only user of `ort`, and the only place where `unsafe` stands.
//!
//! Always: the library is loaded once and stays; a session's values are released before the session.
//! Not here: batching, configuration files.

// The raw API is what allows concurrent calls of one session, bytes of any value in strings, and answers without
// a copy; the safe wrapper of `ort` offers none of the three. Each block states what makes it sound.
#![allow(unsafe_code)]

mod inspect;
mod library;
mod options;
mod session;
mod value;

pub use library::{LibraryError, Runtime};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Artefact, Device, LoadError, Loader, Session, SessionOptions};

/// Loads ONNX files.
pub struct OnnxLoader {
    runtime: &'static Runtime,
}

impl OnnxLoader {
    pub fn new(runtime: &'static Runtime) -> Self {
        Self { runtime }
    }
}

impl Loader for OnnxLoader {
    fn load(
        &self,
        artefact: &Artefact,
        device: &Device,
        options: &SessionOptions,
    ) -> Result<Arc<dyn Session>, LoadError> {
        let findings = inspect::inspect(artefact)?;
        let load = || {
            let mut builder = options::builder(self.runtime, device, options)?;
            let session = builder
                .commit_from_file(&artefact.file)
                .map_err(|e| LoadError(public_text(e.message(), artefact)))?;
            session::OnnxSession::new(session, device, findings)
        };
        // `ort` panics on types that it does not know; such a file is broken for us, the process is not.
        match catch_unwind(AssertUnwindSafe(load)) {
            Ok(outcome) => Ok(Arc::new(outcome?)),
            Err(_) => Err(LoadError("the model uses a type that this build cannot read".to_owned())),
        }
    }
}

/// ONNX Runtime's words without the paths of this machine.
fn public_text(text: &str, artefact: &Artefact) -> String {
    let text = text.replace(&*artefact.file.to_string_lossy(), "the model file");
    without_source_location(&text.replace(&*artefact.folder.to_string_lossy(), "the model's folder"))
}

/// Drops ONNX Runtime's own source positions (`/onnxruntime_src/…/file.cc:123 …`) from its messages.
fn without_source_location(text: &str) -> String {
    let is_position = |word: &str| {
        word.starts_with('/') && [".cc:", ".h:", ".cpp:"].iter().any(|suffix| word.contains(suffix))
    };
    let words: Vec<&str> = text.split_whitespace().filter(|word| !is_position(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_source_positions_and_keep_their_sense() {
        let text = "Non-zero status code. Status Message: /onnxruntime_src/core/x.cc:12 void f() indices out of bounds";
        assert_eq!(
            without_source_location(text),
            "Non-zero status code. Status Message: void f() indices out of bounds"
        );
    }
}

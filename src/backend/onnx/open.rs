//! From files in memory to a session.

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ort::AsPointer;
use ort::session::builder::SessionBuilder;

use super::files::Files;
use super::inspect::Findings;
use super::library::Runtime;
use super::session::OnnxSession;
use super::value::{Status, check};
use super::{options, without_source_location};
use crate::backend::{Device, LoadError, SessionOptions};

/// Opens a session in this process. Errors: what ONNX Runtime finds wrong with the model or the options.
pub fn open(
    runtime: &Runtime,
    files: &Files,
    device: &Device,
    options: &SessionOptions,
    findings: &Findings,
) -> Result<OnnxSession, LoadError> {
    let open = || {
        let mut builder = options::builder(runtime, device, options)?;
        let names = lend_data(&mut builder, files)?;
        let session = builder
            .commit_from_memory((*files.model).as_ref())
            .map_err(|e| LoadError(without_source_location(e.message())))?;
        drop(names);
        OnnxSession::new(session, device, options, findings)
    };
    // `ort` panics on types that it does not know; such a file is broken for us, the process is not.
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(LoadError("the model uses a type that this build cannot read".to_owned())))
}

/// Gives ONNX Runtime the external data, so that it opens no file by itself. The names must live until the session is
/// there; the data is copied by then.
fn lend_data(builder: &mut SessionBuilder, files: &Files) -> Result<Vec<CString>, LoadError> {
    if files.data.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<CString> = files
        .data
        .iter()
        .map(|(location, _)| CString::new(location.as_str()))
        .collect::<Result<_, _>>()
        .map_err(|_| LoadError("the name of a data file holds a NUL".to_owned()))?;
    let name_pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let contents = || files.data.iter().map(|(_, blob)| (**blob).as_ref());
    let pointers: Vec<*mut c_char> = contents().map(|data| data.as_ptr().cast_mut().cast()).collect();
    let lengths: Vec<usize> = contents().map(<[u8]>::len).collect();
    let api = ort::api();
    // SAFETY: the options live as long as the builder; the arrays have the length that is passed with them, and ONNX
    // Runtime takes their entries over; names and data outlive the session's creation, and are only read.
    let status = unsafe {
        (api.AddExternalInitializersFromMemory)(
            builder.ptr().cast_mut(),
            name_pointers.as_ptr(),
            pointers.as_ptr(),
            lengths.as_ptr(),
            names.len(),
        )
    };
    check(api, status).map_err(|Status { message, .. }| LoadError(without_source_location(&message)))?;
    Ok(names)
}

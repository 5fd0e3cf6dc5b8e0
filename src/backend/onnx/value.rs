//! Values of ONNX Runtime: made from our tensors, read into them.
//!
//! Always: a value is released exactly once; bytes that a value borrows outlive it.

use std::ffi::{CStr, c_char, c_void};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use ort::sys::{
    ONNXTensorElementDataType as Element, ONNXType, OrtAllocatorType, OrtApi, OrtErrorCode, OrtMemType,
    OrtMemoryInfo, OrtStatusPtr, OrtTensorTypeAndShapeInfo, OrtValue,
};

use crate::backend::{BatchInput, RunError};
use crate::tensor::{DataType, Shape, Tensor, strings};

/// Outputs below this many bytes are copied: a copy is then cheaper than keeping the value alive.
const SHARED_OUTPUT_BYTES_MIN: usize = 1024;

/// A failed call of the C API.
pub struct Status {
    pub code: OrtErrorCode,
    pub message: String,
}

impl From<Status> for RunError {
    fn from(status: Status) -> Self {
        let text = super::without_source_location(&status.message);
        match status.code {
            OrtErrorCode::ORT_INVALID_ARGUMENT => Self::InvalidInput(text),
            _ => Self::Failed(text),
        }
    }
}

/// Turns a status into a result and releases it.
pub fn check(api: &OrtApi, status: OrtStatusPtr) -> Result<(), Status> {
    if status.0.is_null() {
        return Ok(());
    }
    // SAFETY: a status that is not null is valid until it is released, which happens here, once; its message is
    // a NUL-terminated string inside it and is copied before that.
    unsafe {
        let code = (api.GetErrorCode)(status.0);
        let message = CStr::from_ptr((api.GetErrorMessage)(status.0)).to_string_lossy().into_owned();
        (api.ReleaseStatus)(status.0);
        Err(Status { code, message })
    }
}

/// Owns an `OrtValue`.
pub struct Value(NonNull<OrtValue>);

// SAFETY: a value is plain data with an owner; ONNX Runtime ties none to the thread that made it.
unsafe impl Send for Value {}
// SAFETY: through a shared reference values are only read.
unsafe impl Sync for Value {}

impl Value {
    /// Takes over a value that the C API gave out; `None` when it is null.
    pub fn from_raw(raw: *mut OrtValue) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    pub fn as_ptr(&self) -> *mut OrtValue {
        self.0.as_ptr()
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the C API and only this owner releases it.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// Sixty-four bytes, aligned as the widest vector loads of ONNX Runtime like them.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Block([u8; 64]);

/// The bytes of an input while a call runs. Nothing reads them here: they are kept for ONNX Runtime.
#[allow(dead_code)]
enum Buffer {
    /// Borrowed from the request.
    Shared(Bytes),
    Joined(Vec<Block>),
    /// Strings live inside the value.
    None,
}

/// An input of a session call and the bytes that it stands on.
pub struct Input {
    // Before the buffer, so that it is dropped first.
    pub value: Value,
    _buffer: Buffer,
    /// Addresses of the bytes that the value borrows.
    borrowed: Range<usize>,
}

impl Input {
    /// Cost: no copy for one part that is aligned, one copy otherwise.
    pub fn new(api: &OrtApi, input: &BatchInput) -> Result<Self, RunError> {
        match input.datatype.size() {
            Some(_) => Self::fixed(api, input),
            None => Self::strings(api, input),
        }
    }

    fn fixed(api: &OrtApi, input: &BatchInput) -> Result<Self, RunError> {
        // Every input starts on a block, borrowed or not: some kernels sum in another order, and so to other last
        // bits, where data starts elsewhere (seen with ReduceMean), and the same request must get the same answer.
        let (buffer, data, length) = match input.parts.as_slice() {
            [one] if !one.is_empty() && one.as_ptr().align_offset(align_of::<Block>()) == 0 => {
                (Buffer::Shared(one.clone()), one.as_ptr(), one.len())
            }
            parts => {
                let (blocks, length) = join(parts);
                let data = blocks.as_ptr().cast::<u8>();
                (Buffer::Joined(blocks), data, length)
            }
        };
        let dims = input.shape.dims();
        let mut raw = ptr::null_mut();
        // SAFETY: `data` points at `length` readable bytes, aligned for the element type, owned by `buffer`,
        // which outlives the value; ONNX Runtime checks `length` against the shape and never writes to inputs.
        let status = unsafe {
            (api.CreateTensorWithDataAsOrtValue)(
                cpu_memory(api)?,
                data.cast_mut().cast::<c_void>(),
                length,
                dims.as_ptr(),
                dims.len(),
                element_of(input.datatype),
                &mut raw,
            )
        };
        check(api, status)?;
        let value = Value::from_raw(raw).ok_or_else(no_value)?;
        let start = data as usize;
        Ok(Self { value, _buffer: buffer, borrowed: start..start + length })
    }

    /// Whether this input lends its bytes to a value that has them at `data`.
    fn lends(&self, data: *const u8) -> bool {
        self.borrowed.contains(&(data as usize))
    }

    fn strings(api: &OrtApi, input: &BatchInput) -> Result<Self, RunError> {
        let dims = input.shape.dims();
        let mut allocator = ptr::null_mut();
        let mut raw = ptr::null_mut();
        // SAFETY: both out-pointers are valid; the default allocator is never released by callers.
        unsafe {
            check(api, (api.GetAllocatorWithDefaultOptions)(&mut allocator))?;
            check(
                api,
                (api.CreateTensorAsOrtValue)(
                    allocator,
                    dims.as_ptr(),
                    dims.len(),
                    Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
                    &mut raw,
                ),
            )?;
        }
        let value = Value::from_raw(raw).ok_or_else(no_value)?;
        let elements = input.parts.iter().flat_map(|part| strings::iter(part));
        for (index, element) in elements.enumerate() {
            let mut buffer: *mut c_char = ptr::null_mut();
            // SAFETY: the index is within the tensor (ONNX Runtime checks it too); the buffer that comes back
            // has room for exactly the length asked for, and nothing else uses it yet.
            unsafe {
                let status = (api.GetResizedStringTensorElementBuffer)(
                    value.as_ptr(),
                    index,
                    element.len(),
                    &mut buffer,
                );
                check(api, status)?;
                if !element.is_empty() {
                    ptr::copy_nonoverlapping(element.as_ptr().cast::<c_char>(), buffer, element.len());
                }
            }
        }
        Ok(Self { value, _buffer: Buffer::None, borrowed: 0..0 })
    }
}

/// Joins parts into one aligned buffer; returns it with the number of bytes that count.
fn join(parts: &[Bytes]) -> (Vec<Block>, usize) {
    let length: usize = parts.iter().map(Bytes::len).sum();
    // At least one block, so that an empty tensor has an address too.
    let count = length.div_ceil(size_of::<Block>()).max(1);
    let mut blocks: Vec<Block> = Vec::with_capacity(count);
    let mut target = blocks.as_mut_ptr().cast::<u8>();
    // SAFETY: the vector has room for `count` blocks, and the parts together are no longer than that. The tail
    // of the last block is zeroed, so that every byte below the new length is initialised.
    unsafe {
        for part in parts {
            ptr::copy_nonoverlapping(part.as_ptr(), target, part.len());
            target = target.add(part.len());
        }
        ptr::write_bytes(target, 0, count * size_of::<Block>() - length);
        blocks.set_len(count);
    }
    (blocks, length)
}

struct CpuMemory(*const OrtMemoryInfo);
// SAFETY: the description is never changed after it was made.
unsafe impl Send for CpuMemory {}
// SAFETY: as above.
unsafe impl Sync for CpuMemory {}

/// The description of plain CPU memory, made once and kept for the process.
fn cpu_memory(api: &OrtApi) -> Result<*const OrtMemoryInfo, Status> {
    static CPU: OnceLock<CpuMemory> = OnceLock::new();
    if let Some(memory) = CPU.get() {
        return Ok(memory.0);
    }
    let mut raw = ptr::null_mut();
    // SAFETY: the out-pointer is valid. Two threads may both get here: the loser's description is released.
    unsafe {
        let status = (api.CreateCpuMemoryInfo)(
            OrtAllocatorType::OrtArenaAllocator,
            OrtMemType::OrtMemTypeDefault,
            &mut raw,
        );
        check(api, status)?;
        if CPU.set(CpuMemory(raw)).is_err() {
            (api.ReleaseMemoryInfo)(raw);
        }
    }
    Ok(CPU.get().expect("set above, by this thread or another").0)
}

/// The bytes of an output inside ONNX Runtime's own buffer.
///
/// `keep` is whatever must live as long: the session, whose allocator the buffer belongs to.
struct SharedOutput<K> {
    data: *const u8,
    length: usize,
    // Before `keep`, so that it is dropped first.
    _value: Value,
    _keep: K,
}

// SAFETY: the buffer is read only, and both owners may move between threads.
unsafe impl<K: Send> Send for SharedOutput<K> {}

impl<K> AsRef<[u8]> for SharedOutput<K> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the value owns `length` bytes at `data` and lives as long as `self`; nobody writes to them.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

/// Reads an output. Cost: no copy above a kilobyte, except for strings and for an output that is an input.
///
/// A graph may name an input among its outputs. Such a value borrows the bytes of `inputs`, which end with the
/// call; so it is copied.
pub fn read<K: Send + Sync + 'static>(
    api: &OrtApi,
    value: Value,
    name: &str,
    inputs: &[Input],
    keep: &Arc<K>,
) -> Result<Tensor, RunError> {
    let mut kind = ONNXType::ONNX_TYPE_UNKNOWN;
    // SAFETY: the value is valid and the out-pointer too.
    check(api, unsafe { (api.GetValueType)(value.as_ptr(), &mut kind) })?;
    if kind != ONNXType::ONNX_TYPE_TENSOR {
        return Err(RunError::Failed(format!("output '{name}' is not a tensor")));
    }
    let (element, shape) = type_and_shape(api, &value)?;
    let datatype = datatype_of(element).ok_or_else(|| {
        RunError::Failed(format!("output '{name}' has a type that the protocol cannot carry"))
    })?;
    let elements =
        shape.elements().ok_or_else(|| RunError::Failed(format!("output '{name}' is too large")))?;
    let data = match datatype.size() {
        None => read_strings(api, &value, elements)?,
        Some(size) => {
            let length = elements * size;
            let mut data: *mut c_void = ptr::null_mut();
            // SAFETY: the value is a tensor of a fixed-size type, so it has `length` bytes at the address that
            // comes back (which may be null when there are none).
            check(api, unsafe { (api.GetTensorMutableData)(value.as_ptr(), &mut data) })?;
            if length == 0 {
                Bytes::new()
            } else if length < SHARED_OUTPUT_BYTES_MIN
                || inputs.iter().any(|input| input.lends(data.cast::<u8>().cast_const()))
            {
                // SAFETY: as above; copied before the value, and the inputs that it may borrow, are released.
                Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) })
            } else {
                let data = data.cast::<u8>().cast_const();
                Bytes::from_owner(SharedOutput { data, length, _value: value, _keep: Arc::clone(keep) })
            }
        }
    };
    Tensor::new(datatype, shape, data).map_err(|e| RunError::Failed(format!("output '{name}': {e}")))
}

fn type_and_shape(api: &OrtApi, value: &Value) -> Result<(Element, Shape), RunError> {
    let mut info: *mut OrtTensorTypeAndShapeInfo = ptr::null_mut();
    let mut element = Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let mut rank = 0;
    // SAFETY: the value is a tensor; the description is released exactly once, below, whatever happens between;
    // `dims` has room for the `rank` that ONNX Runtime reported.
    let read = unsafe {
        check(api, (api.GetTensorTypeAndShape)(value.as_ptr(), &mut info))?;
        let read = (|| {
            check(api, (api.GetTensorElementType)(info, &mut element))?;
            check(api, (api.GetDimensionsCount)(info, &mut rank))?;
            let mut dims = vec![0i64; rank];
            check(api, (api.GetDimensions)(info, dims.as_mut_ptr(), rank))?;
            Ok::<_, Status>(dims)
        })();
        (api.ReleaseTensorTypeAndShapeInfo)(info);
        read
    };
    let shape =
        Shape::from_dims(read?).ok_or_else(|| RunError::Failed("an output has no size".to_owned()))?;
    Ok((element, shape))
}

fn read_strings(api: &OrtApi, value: &Value, elements: usize) -> Result<Bytes, RunError> {
    if elements == 0 {
        return Ok(Bytes::new());
    }
    let mut total = 0;
    // SAFETY: the value is a string tensor.
    check(api, unsafe { (api.GetStringTensorDataLength)(value.as_ptr(), &mut total) })?;
    let mut content = vec![0u8; total];
    let mut offsets = vec![0usize; elements];
    // SAFETY: both buffers have the lengths that are passed with them.
    check(api, unsafe {
        (api.GetStringTensorContent)(
            value.as_ptr(),
            content.as_mut_ptr().cast::<c_void>(),
            total,
            offsets.as_mut_ptr(),
            elements,
        )
    })?;
    let mut packed = BytesMut::with_capacity(total + 4 * elements);
    for (i, &start) in offsets.iter().enumerate() {
        let end = offsets.get(i + 1).copied().unwrap_or(total);
        let element = &content[start..end];
        packed.put_u32_le(
            u32::try_from(element.len()).map_err(|_| RunError::Failed("a string is too long".to_owned()))?,
        );
        packed.put_slice(element);
    }
    Ok(packed.freeze())
}

fn no_value() -> RunError {
    RunError::Failed("ONNX Runtime made no value".to_owned())
}

/// Our types and ONNX Runtime's, side by side.
const ELEMENTS: [(DataType, Element); 14] = [
    (DataType::Bool, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL),
    (DataType::Uint8, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
    (DataType::Uint16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16),
    (DataType::Uint32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32),
    (DataType::Uint64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64),
    (DataType::Int8, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8),
    (DataType::Int16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16),
    (DataType::Int32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32),
    (DataType::Int64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
    (DataType::Fp16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16),
    (DataType::Bf16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16),
    (DataType::Fp32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT),
    (DataType::Fp64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE),
    (DataType::Bytes, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING),
];

pub fn element_of(datatype: DataType) -> Element {
    let (_, element) = ELEMENTS[datatype as usize];
    element
}

pub fn datatype_of(element: Element) -> Option<DataType> {
    ELEMENTS.iter().find(|(_, e)| *e == element).map(|(datatype, _)| *datatype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_table_stands_in_the_order_of_data_types() {
        for datatype in DataType::ALL {
            assert_eq!(ELEMENTS[datatype as usize].0, datatype);
            assert_eq!(datatype_of(element_of(datatype)), Some(datatype));
        }
    }

    #[test]
    fn parts_are_joined_in_order_and_aligned() {
        let parts = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cde")];
        let (blocks, length) = join(&parts);
        assert_eq!((blocks.len(), length), (1, 5));
        assert_eq!(&blocks[0].0[..6], b"abcde\0");
        assert_eq!(blocks.as_ptr().align_offset(64), 0);
    }
}

"""Runs a model directly on ONNX Runtime: the answers that Weir's must equal.

Tensors are numpy arrays throughout; BF16 is `ml_dtypes.bfloat16`, BYTES an array of objects.
"""

import ctypes
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime

# Datatype of the protocol → numpy's type, ONNX's element number (onnx.proto, TensorProto.DataType) and name.
DATATYPES = {
    "BOOL": (np.dtype(bool), 9, "tensor(bool)"),
    "UINT8": (np.dtype(np.uint8), 2, "tensor(uint8)"),
    "UINT16": (np.dtype(np.uint16), 4, "tensor(uint16)"),
    "UINT32": (np.dtype(np.uint32), 12, "tensor(uint32)"),
    "UINT64": (np.dtype(np.uint64), 13, "tensor(uint64)"),
    "INT8": (np.dtype(np.int8), 3, "tensor(int8)"),
    "INT16": (np.dtype(np.int16), 5, "tensor(int16)"),
    "INT32": (np.dtype(np.int32), 6, "tensor(int32)"),
    "INT64": (np.dtype(np.int64), 7, "tensor(int64)"),
    "FP16": (np.dtype(np.float16), 10, "tensor(float16)"),
    "BF16": (np.dtype(ml_dtypes.bfloat16), 16, "tensor(bfloat16)"),
    "FP32": (np.dtype(np.float32), 1, "tensor(float)"),
    "FP64": (np.dtype(np.float64), 11, "tensor(double)"),
    "BYTES": (np.dtype(object), 8, "tensor(string)"),
}
FLOATS = ("FP16", "BF16", "FP32", "FP64")

DTYPE = {name: dtype for name, (dtype, _, _) in DATATYPES.items()}
_NAME_OF_DTYPE = {dtype: name for name, dtype in DTYPE.items()}
_NAME_OF_ONNX_TYPE = {onnx_type: name for name, (_, _, onnx_type) in DATATYPES.items()}


def datatype(array):
    """The protocol's name for the array's type."""
    return _NAME_OF_DTYPE[array.dtype]


def datatype_of_onnx(onnx_type):
    """The protocol's name for a type as ONNX Runtime writes it, or None if the protocol has none."""
    return _NAME_OF_ONNX_TYPE.get(onnx_type)


def finite(array):
    """Whether JSON has a number for every element."""
    if datatype(array) not in FLOATS:
        return True
    return bool(np.isfinite(array.astype(np.float64)).all())


def assert_same(got, expected, name=""):
    """Equal in type, shape and every bit; one NaN is as good as another."""
    assert got.dtype == expected.dtype, f"{name}: {got.dtype} is not {expected.dtype}"
    assert got.shape == expected.shape, f"{name}: shape {got.shape} is not {expected.shape}"
    if got.dtype == object:
        assert [_bytes(x) for x in got.flat] == [_bytes(x) for x in expected.flat], f"{name}: strings differ"
        return
    if got.tobytes() == expected.tobytes():
        return
    same = _bits(got) == _bits(expected)
    if datatype(got) in FLOATS:
        same |= np.isnan(got.astype(np.float64)) & np.isnan(expected.astype(np.float64))
    at = np.argwhere(~same)
    if len(at):
        first = tuple(at[0])
        raise AssertionError(
            f"{name}: {len(at)} of {same.size} elements differ, first at {list(map(int, first))}: "
            f"{got[first]!r} is not {expected[first]!r}"
        )


def _bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def _bytes(text):
    return text if isinstance(text, bytes) else str(text).encode()


class Model:
    """One session on one file, single-threaded so that many fit beside the server."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(str(Path(path)), options, providers=["CPUExecutionProvider"])
        self.inputs = self._session.get_inputs()
        self.outputs = self._session.get_outputs()

    def run(self, feed):
        """All outputs by name. The feed's strings are text or UTF-8 bytes."""
        names = [output.name for output in self.outputs]
        if any(array.dtype == object for array in feed.values()):
            # ONNX Runtime makes no OrtValue of strings; its numpy way in and out knows them.
            feed = {name: _as_text(a) if a.dtype == object else a for name, a in feed.items()}
            answers = [_as_bytes(answer) for answer in self._session.run(names, feed)]
        else:
            values = {name: _to_ort(array) for name, array in feed.items()}
            answers = [_from_ort(v) for v in self._session.run_with_ort_values(names, values)]
        return dict(zip(names, answers))


def _as_text(array):
    text = [x.decode() if isinstance(x, bytes) else x for x in array.flat]
    return np.array(text, dtype=object).reshape(array.shape)


def _as_bytes(array):
    if array.dtype.kind not in "OUS":
        return array
    return np.array([str(x).encode() for x in array.flat], dtype=object).reshape(array.shape)


def _to_ort(array):
    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), DATATYPES[datatype(array)][1])
    # Through the pointer, because numpy's own way in knows no bfloat16.
    if array.size:
        ctypes.memmove(value.data_ptr(), np.ascontiguousarray(array).ctypes.data, array.nbytes)
    return value


def _from_ort(value):
    name = datatype_of_onnx(value.data_type())
    if name == "BYTES":
        return _as_bytes(value.numpy())
    dtype, shape = DTYPE[name], tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(data, dtype=dtype).reshape(shape)

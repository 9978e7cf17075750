"""Small helpers over the flatbuffer object API, shared by reader and writer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qhyvit.errors import InputError
from qhyvit_device import flat

OUR_MARK = "qhyvit"  # description of the files that our writer made


def enum_names(enum: type) -> dict[int, str]:
    """Value -> name of a generated enum class."""
    return {v: k for k, v in vars(enum).items() if isinstance(v, int) and not k.startswith("_")}


BUILTIN = enum_names(schema.BuiltinOperator)
BUILTIN_CODE = {name: code for code, name in BUILTIN.items()}
TENSOR_TYPE = enum_names(schema.TensorType)
TENSOR_TYPE_CODE = {name: code for code, name in TENSOR_TYPE.items()}
ENUM_FIELDS = {
    "padding": enum_names(schema.Padding),
    "fused_activation_function": enum_names(schema.ActivationFunctionType),
    "mode": enum_names(schema.MirrorPadMode),
}
NUMPY = {
    "FLOAT32": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "uint8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "BOOL": "bool",
}  # fmt: skip


def packed(codes: np.ndarray) -> np.ndarray:
    """Bytes [ceil(N / 2)], uint8, of INT4 codes [*], int8: two each, the earlier one in the lower half."""
    flat = codes.astype(np.int8).ravel().view(np.uint8) & 15
    pairs = np.append(flat, np.zeros(flat.size % 2, np.uint8)).reshape(-1, 2)
    found: np.ndarray = pairs[:, 0] | pairs[:, 1] << 4
    return found


def unpacked(data: np.ndarray, count: int) -> np.ndarray:
    """The inverse of :func:`packed`: ``count`` codes, int8."""
    halves = np.stack([data & 15, data >> 4], axis=1).ravel()[:count].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)


def camel(name: str) -> str:
    """snake_case -> camelCase."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def load_model(data: bytes) -> Any:
    """Parse a ``.tflite`` into a ModelT.

    Raises:
        InputError: not a TFLite flatbuffer, or truncated.
    """
    flat.check(data, "model")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    except Exception as error:  # flatbuffers raises struct.error, IndexError, TypeError and more on bad bytes
        raise InputError(f"the .tflite file is truncated or damaged ({type(error).__name__})") from error
    if not model.subgraphs or not model.operatorCodes or model.buffers is None:
        raise InputError("the .tflite file is truncated or damaged (no subgraph)")
    return model


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Whole tables may still contradict each other: a shape and its constant, an op and its options.

    Raises:
        InputError: the block does not know what to make of a file.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"the .tflite file is damaged ({type(error).__name__}: {said})") from error


def op_name(model: Any, operator: Any) -> str:
    """Builtin name of an operator of ``model``; of a custom one, that which its maker gave it."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == BUILTIN_CODE["CUSTOM"]:
        return f"custom {text(code.customCode)}"
    return BUILTIN.get(number, f"BUILTIN_{number}")


def text(value: Any) -> str:
    """Strings of the schema come as bytes; those that are no text become escapes."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else (value or "")


class _Sharing(flatbuffers.Builder):  # type: ignore[misc]
    """Writes equal arrays once: zero points are 8 bytes a channel, and all of them are 0."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802, the library's name
        """Offset of the array."""
        key = x.dtype.str, x.tobytes()
        if key not in self.written:
            self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]


def pack(model: Any, *, small: bool = False) -> bytes:
    """Serialize a ModelT; ``small``: equal arrays are written once."""
    builder = (_Sharing if small else flatbuffers.Builder)(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=flat.IDENTIFIER)
    return bytes(builder.Output())


def embed(model: Any, data: bytes) -> None:
    """Bring weights that lie behind the flatbuffer into it."""
    for buffer in model.buffers:
        if buffer.offset and buffer.offset > 1:
            raw = data[buffer.offset : buffer.offset + buffer.size]
            buffer.data, buffer.offset, buffer.size = np.frombuffer(raw, np.uint8), 0, 0


def constant(model: Any, tensor: Any) -> np.ndarray | None:
    """The values of a tensor, in its shape; None where the file holds none."""
    buffer = model.buffers[tensor.buffer] if tensor.buffer else None
    if buffer is None or buffer.data is None or len(buffer.data) == 0:
        return None
    shape = [int(v) for v in tensor.shape] if tensor.shape is not None else []
    raw = bytes(bytearray(buffer.data))
    if TENSOR_TYPE[tensor.type] == "INT4":
        return unpacked(np.frombuffer(raw, np.uint8), math.prod(shape)).reshape(shape)
    return np.frombuffer(raw, NUMPY[TENSOR_TYPE[tensor.type]]).reshape(shape)


def hold(model: Any, tensor: Any, data: np.ndarray) -> None:
    """Give a tensor values, in a buffer of its own."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1

"""Builds a ``.tflite`` of one op, float or int8, and runs it: the oracle of the op tests. No tensorflow needed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import flatbuffers
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Fixed, OpSpec, Tied, activate

TYPES = {"float32": 0, "int32": 2, "int64": 4, "bool": 6, "int16": 7, "int8": 9}
ENUMS = {"padding": schema.Padding, "fused_activation_function": schema.ActivationFunctionType,
         "mode": schema.MirrorPadMode}  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """An operand that is fed at run time, drawn evenly from [low, high]."""

    shape: tuple[int, ...]
    low: float = -3.0
    high: float = 3.0


Operand = Activation | NDArray[Any] | None


@dataclass(frozen=True)
class Case:
    """One op with attributes and operands; constants are arrays, absent operands None."""

    op: str
    operands: tuple[Operand, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = [list(o.shape) if isinstance(o, Activation) else _short(o) for o in self.operands]
        options = [f"{k}={v}" for k, v in self.options.items()]
        return f"{self.op}({','.join(map(str, [*shapes, *options]))})".replace(" ", "")

    @cached_property
    def spec(self) -> OpSpec:
        """The op's specification."""
        return spec(self.op)

    @cached_property
    def attrs(self) -> Any:
        """The op's attributes."""
        return self.spec.attrs(**self.options)

    def images(self, count: int) -> list[NDArray[Any] | None]:
        """Random values [count, *shape] for the activations, None for the rest. The same at every call."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        return [
            rng.uniform(o.low, o.high, (count, *o.shape)).astype(np.float32) if isinstance(o, Activation) else None
            for o in self.operands
        ]

    def inferred(self) -> tuple[tuple[int, ...], ...]:
        """The output shapes that the op's rule says."""
        shapes = [() if o is None else tuple(o.shape) for o in self.operands]
        constants = [o if isinstance(o, np.ndarray) and o.dtype != np.float32 else None for o in self.operands]
        shape: Any = self.spec.infer_shape(shapes, self.attrs, constants)
        return shape if shape and isinstance(shape[0], tuple) else (shape,)

    def forward(self, activations: Sequence[Any], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
        """The op's forward with its fused activation, on activations [B, *shape]; constants as the executor gives them.

        An activation may also stand for a constant (already in the form that forward takes).
        """
        operands = [
            given if isinstance(given, torch.Tensor) else _tensor_of(self, i, given, dtype)
            for i, given in enumerate(activations)
        ]
        result = self.spec.forward(operands, self.attrs)
        outputs = result if isinstance(result, tuple) else (result,)
        return tuple(activate(y, getattr(self.attrs, "fused_activation_function", "NONE")) for y in outputs)


def act(*shape: int, low: float = -3.0, high: float = 3.0) -> Activation:
    return Activation(shape, low, high)


def const(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(sum(shape) + 17 * len(shape))
    return rng.uniform(low, high, shape).astype(np.float32)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def case(op: str, *operands: Operand, **options: Any) -> Case:
    return Case(op, operands, options)


def _short(operand: Any) -> str:
    if operand is None:
        return "-"
    if operand.dtype == np.float32 or operand.dtype == bool:
        return f"c{list(operand.shape)}"
    return str(operand.tolist())


def _tensor_of(case: Case, position: int, given: Any, dtype: torch.dtype) -> Any:
    """What forward gets at ``position``: the batch, or the constant in its convention."""
    if given is not None:
        return torch.tensor(given, dtype=dtype)
    constant = case.operands[position]
    if constant is None or constant.dtype != np.float32:
        return constant
    tensor = torch.tensor(constant, dtype=dtype)
    return tensor if position in (case.spec.weight_input, case.spec.bias_input) else tensor.unsqueeze(0)


@dataclass(frozen=True)
class Grid:
    """Scales and zero points of one tensor; ``axis`` for a weight; ``bits``: of its type."""

    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int = 0
    bits: int = 8

    def codes(self, values: NDArray[Any], low: int = -128, high: int = 127) -> NDArray[np.int64]:
        """Round to the grid."""
        steps = np.rint(values / self._shaped(self.scale, values.ndim)) + self._zero(values)
        return np.clip(steps, low, high).astype(np.int64)

    @property
    def dtype(self) -> str:
        """The type of the codes."""
        return f"int{self.bits}"

    def values(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Back to real numbers, in float64."""
        return (codes.astype(np.float64) - self._zero(codes)) * self._shaped(self.scale, codes.ndim)

    def _zero(self, like: NDArray[Any]) -> Any:
        return self._shaped(self.zero_point, like.ndim)

    def _shaped(self, per_channel: NDArray[Any], rank: int) -> Any:
        if per_channel.size == 1:
            return per_channel.item()
        shape = [1] * rank
        shape[self.axis] = -1
        return per_channel.reshape(shape)


def layer_grid(low: float, high: float, zero_point: int | None = None) -> Grid:
    """A per-tensor grid over [low, high] (0 included), or one with the zero point that a kernel wants."""
    low, high = min(low, 0.0), max(high, 0.0)
    steps = max(-low, high) / 127 if zero_point == 0 else (high - low) / 255
    scale = np.float32(max(steps, 1e-9))
    zero = int(np.rint(-128 - low / scale)) if zero_point is None else zero_point
    return Grid(np.array([scale], np.float64), np.array([zero]))


@dataclass(frozen=True)
class Quantized:
    """A grid for each operand that has one, and one for each output."""

    operands: tuple[Grid | None, ...]
    outputs: tuple[Grid, ...]


def _limits(case: Case, position: int) -> tuple[int, int]:
    """Lowest and highest code of an operand."""
    if position == case.spec.bias_input:
        return -(2**31), 2**31 - 1
    return (-127, 127) if position == case.spec.weight_input else (-128, 127)


def dequantized(case: Case, codes: Sequence[Any], grids: Quantized) -> list[Any]:
    """What the integer file computes with, as forward takes it: float64, rounded constants included."""
    given: list[Any] = []
    for i, (x, grid) in enumerate(zip(codes, grids.operands, strict=True)):
        if grid is None:
            given.append(None)
            continue
        operand = case.operands[i]
        values = grid.values(grid.codes(operand, *_limits(case, i)) if x is None else x)
        constant = x is None and i not in (case.spec.weight_input, case.spec.bias_input)
        given.append(torch.tensor(values).unsqueeze(0) if constant else torch.tensor(values))
    return given


def _weight_grid(weight: NDArray[Any], axis: int) -> Grid:
    peak = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    scale = (np.maximum(peak, 1e-6) / 127).astype(np.float32).astype(np.float64)
    return Grid(scale, np.zeros(scale.size, np.int64), axis)


def quantize(case: Case, images: Sequence[Any]) -> Quantized:
    """Grids as the contract of the op asks, from min and max of the images."""
    op = case.spec
    outputs = [y.numpy() for y in case.forward(images)]
    low, high = min(float(y.min()) for y in outputs), max(float(y.max()) for y in outputs)
    operands: list[Grid | None] = []
    for i, (given, operand) in enumerate(zip(images, case.operands, strict=True)):
        values: Any = operand if given is None else given
        if values is None or values.dtype != np.float32 or i == op.bias_input:
            operands.append(None)
        elif i == op.weight_input:
            operands.append(_weight_grid(values, op.weight_axis))
        else:
            zero = 0 if i in op.symmetric_inputs else op.input_zero_point
            operands.append(layer_grid(float(values.min()), float(values.max()), zero))
    if isinstance(op.out, Fixed):
        out = Grid(np.array([op.out.scale]), np.array([op.out.zero_point]))
    elif isinstance(op.out, Tied):
        tied = [i for i, g in enumerate(operands) if g is not None and (op.out.inputs is None or i in op.out.inputs)]
        ranges = [case.operands[i] if images[i] is None else images[i] for i in tied]
        out = layer_grid(min(float(r.min()) for r in ranges), max(float(r.max()) for r in ranges))
        operands = [out if i in tied else g for i, g in enumerate(operands)]
    else:
        out = layer_grid(low, high)
    if op.bias_input >= 0 and case.operands[op.bias_input] is not None:
        first, weight = operands[op.data_input], operands[op.weight_input]
        assert first is not None
        assert weight is not None
        scale = first.scale * weight.scale
        operands[op.bias_input] = Grid(scale, np.zeros(scale.size, np.int64))
    return Quantized(tuple(operands), (out,) * len(outputs))


class _Builder:
    def __init__(self) -> None:
        self.buffers: list[Any] = [schema.BufferT()]
        self.tensors: list[Any] = []

    def add(self, name: str, shape: Sequence[int], dtype: str, data: Any = None, grid: Grid | None = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.hasRank = name, list(shape), TYPES[dtype], True
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        if grid is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = grid.scale.astype(np.float32)
            tensor.quantization.zeroPoint = grid.zero_point.astype(np.int64)
            tensor.quantization.quantizedDimension = grid.axis
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def _operand(builder: _Builder, case: Case, position: int, grid: Grid | None) -> int:
    operand, name = case.operands[position], f"in{position}"
    if operand is None:
        return -1
    if isinstance(operand, Activation):
        return builder.add(name, operand.shape, grid.dtype if grid else "float32", None, grid)
    if grid is None:
        return builder.add(name, operand.shape, str(operand.dtype), operand)
    dtype = np.int32 if position == case.spec.bias_input else grid.dtype
    codes = grid.codes(operand, *_limits(case, position)).astype(dtype)
    return builder.add(name, operand.shape, str(codes.dtype), codes, grid)


def _options(case: Case) -> tuple[int, Any]:
    name = case.spec.options
    if not name:
        return 0, None
    options = getattr(schema, f"{name}T")()
    if hasattr(options, "potScaleInt16"):
        options.potScaleInt16 = False  # scales of int16 need not be powers of two
    for f in fields(case.spec.attrs):
        value = getattr(case.attrs, f.name)
        if f.name in ENUMS:
            value = getattr(ENUMS[f.name], value)
        setattr(options, camel(f.name), list(value) if isinstance(value, tuple) else value)
    return getattr(schema.BuiltinOptions, name), options


def schema_name(code: int) -> str:
    """Builtin name of an operator code."""
    return next(k for k, v in vars(schema.BuiltinOperator).items() if v == code)


def camel(name: str) -> str:
    """snake_case -> camelCase."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def build(case: Case, quantized: Quantized | None = None, honest: bool = True) -> bytes:
    """The case as a ``.tflite``: float, or integer on the grids of ``quantized``; shapes are all ones if not honest."""
    builder = _Builder()
    grids = quantized.operands if quantized else (None,) * len(case.operands)
    inputs = [_operand(builder, case, i, grid) for i, grid in enumerate(grids)]
    outputs = []
    for i, shape in enumerate(case.inferred()):
        grid = quantized.outputs[i] if quantized else None
        # The file may lie about the shape: what the interpreter says comes from its own kernels then.
        declared = shape if honest else [1] * len(shape)
        outputs.append(builder.add(f"out{i}", declared, grid.dtype if grid else "float32", None, grid))
    operator, code, subgraph, model = schema.OperatorT(), schema.OperatorCodeT(), schema.SubGraphT(), schema.ModelT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, outputs
    operator.builtinOptionsType, operator.builtinOptions = _options(case)
    code.builtinCode = getattr(schema.BuiltinOperator, case.op)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), case.spec.version
    subgraph.tensors, subgraph.operators, subgraph.name = builder.tensors, [operator], "main"
    subgraph.inputs = [inputs[i] for i, o in enumerate(case.operands) if isinstance(o, Activation)]
    subgraph.outputs = outputs
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [subgraph], builder.buffers, [code]
    packer = flatbuffers.Builder(1024)
    packer.Finish(model.Pack(packer), file_identifier=b"TFL3")
    return bytes(packer.Output())


def interpreter(data: bytes, kind: OpResolverType) -> Any:
    """LiteRT with XNNPACK (``BUILTIN``), with its own optimized kernels only, or with its reference kernels."""
    made = Interpreter(model_content=data, experimental_op_resolver_type=kind, num_threads=1)
    made.allocate_tensors()
    return made


def delegated(made: Any) -> bool:
    """Whether XNNPACK took the op."""
    return any(d["op_name"] == "DELEGATE" for d in made._get_ops_details())


def run(made: Any, images: Sequence[Any]) -> tuple[NDArray[Any], ...]:
    """Run image by image; the outputs as [B, *shape]."""
    feeds = [x for x in images if x is not None]
    rows = []
    for i in range(len(feeds[0])):
        for detail, x in zip(made.get_input_details(), feeds, strict=True):
            made.set_tensor(detail["index"], x[i])
        made.invoke()
        rows.append([np.array(made.get_tensor(d["index"])) for d in made.get_output_details()])
    return tuple(np.stack(column) for column in zip(*rows, strict=True))

"""A Graph as a ``.tflite``: float, or integer from a plan, through ai-edge-quantizer.

The quantizer is told the exact result through ranges (FLOAT64, or one ulp is lost): activations by
min = (qmin - zp) * s and max = (qmax - zp) * s, weights by buffers that already lie on their grid.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qhyvit import affine
from qhyvit.errors import PlanError
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.tflite import _flat, stand_ins
from qhyvit.tflite.int16_islands import in_int16
from qhyvit.tflite.legal import check_plan
from qhyvit.tflite.smaller import clamp
from qhyvit.tflite.squares import as_written
from qhyvit.tflite.wide import rescale


def _options(node: Node) -> tuple[int, Any]:
    """Flatbuffer options of a node, from its attributes by field name."""
    op = spec(node.op)
    if not op.options:
        return 0, None
    options = getattr(schema, f"{op.options}T")()
    for f in fields(op.attrs):
        value = getattr(node.attrs, f.name)
        if f.name in _flat.ENUM_FIELDS:
            value = {v: k for k, v in _flat.ENUM_FIELDS[f.name].items()}[value]
        setattr(options, _flat.camel(f.name), list(value) if isinstance(value, tuple) else value)
    return getattr(schema.BuiltinOptions, op.options), options


def _tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    raw = schema.TensorT()
    raw.name, raw.shape, raw.type = tensor.name, list(tensor.shape), _flat.TENSOR_TYPE_CODE[tensor.dtype]
    raw.hasRank = True
    raw.buffer = 0
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        buffers.append(buffer)
        raw.buffer = len(buffers) - 1
    return raw


def _operator_codes(graph: Graph) -> dict[str, tuple[int, Any]]:
    versions: Mapping[str, int] = graph.facts.get("op_versions", {})
    codes: dict[str, tuple[int, Any]] = {}
    for op in dict.fromkeys(node.op for node in graph.nodes):
        code = schema.OperatorCodeT()
        code.builtinCode = _flat.BUILTIN_CODE[op]
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = versions.get(op, 1)
        codes[op] = (len(codes), code)
    return codes


def _signature(graph: Graph, index: Mapping[int, int]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    ends = (("inputs", graph.inputs), ("outputs", graph.outputs))
    for attribute, ids in ends:
        maps = []
        for t in ids:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = graph.tensors[t].name, index[t]
            maps.append(entry)
        setattr(signature, attribute, maps)
    return signature


def write_float(graph: Graph) -> bytes:
    """The graph as a float ``.tflite``; constants that no node reads are left out."""
    graph.check()
    used = {t for node in graph.nodes for t in (*node.inputs, *node.outputs) if t >= 0} | set(graph.inputs)
    buffers: list[Any] = [schema.BufferT()]
    index = {t: i for i, t in enumerate(t for t in graph.tensors if t in used)}
    subgraph = schema.SubGraphT()
    subgraph.tensors = [_tensor(graph.tensors[t], buffers) for t in index]
    subgraph.inputs, subgraph.outputs = [index[t] for t in graph.inputs], [index[t] for t in graph.outputs]
    subgraph.name = "main"
    codes = _operator_codes(graph)
    subgraph.operators = []
    for node in graph.nodes:
        operator = schema.OperatorT()
        operator.opcodeIndex = codes[node.op][0]
        operator.inputs = [index[t] if t >= 0 else -1 for t in node.inputs]
        operator.outputs = [index[t] for t in node.outputs]
        operator.builtinOptionsType, operator.builtinOptions = _options(node)
        subgraph.operators.append(operator)
    model = schema.ModelT()
    model.version, model.description = 3, _flat.OUR_MARK
    model.subgraphs, model.buffers = [subgraph], buffers
    model.operatorCodes = [code for _, code in codes.values()]
    model.signatureDefs = [_signature(graph, index)]
    return _flat.pack(model)


def _range(tensor: Tensor, quant: TensorQuant) -> dict[str, np.ndarray]:
    """The range that makes the quantizer arrive at exactly ``quant``. float64, keepdims shape."""
    scale, zero = np.asarray(quant.scale, np.float64), np.asarray(quant.zero_point, np.float64)
    if quant.axis is None:
        half = 1 << (quant.bits - 1 if quant.bits == 16 else 7)
        low = -half if quant.bits != 16 else -half + 1
        return {"min": (low - zero[0]) * scale[0], "max": (half - 1 - zero[0]) * scale[0]}
    shape = [1] * len(tensor.shape)
    shape[quant.axis] = -1
    return {"min": (-127.0 * scale).reshape(shape), "max": (127.0 * scale).reshape(shape)}


def on_grid(data: np.ndarray, quant: TensorQuant) -> np.ndarray:
    """Constant values rounded to their grid, float32. Weights leave out the lowest code: [-127, 127]."""
    per_channel = quant.axis is not None
    scale: object = quant.scale if per_channel else quant.scale[0]
    zero: object = quant.zero_point if per_channel else quant.zero_point[0]
    low, high = quant.limits
    codes = affine.quantize(data, scale, zero, affine.Grid(low + per_channel, high), quant.axis)
    return np.asarray(affine.dequantize(codes, scale, zero, quant.axis), np.float32)  # a scalar stays an array


def constants_on_grid_of(graph: Graph, quants: Mapping[str, TensorQuant]) -> Graph:
    """Round every constant that ``quants`` names to its grid; biases stay (the file holds them in int32)."""
    values = {}
    for tensor in graph.tensors.values():
        if tensor.data is not None and tensor.name in quants and tensor.dtype == "FLOAT32":
            values[tensor.id] = on_grid(tensor.data, quants[tensor.name])
    return edit.with_constants(graph, values)


def _islands(graph: Graph) -> list[dict[str, Any]]:
    """Recipe entries that leave the float nodes alone, or give them int16, by the names of their outputs."""
    from ai_edge_quantizer import recipe

    no_change = {"algorithm_key": "no_quantize", "op_config": {}}
    (wide,) = recipe.static_wi8_ai16()
    return [
        {**(wide if graph.wide.intersection(node.outputs) else no_change),
         "regex": f"^{re.escape(graph.tensors[node.outputs[0]].name)};?$", "operation": node.op}
        for node in graph.nodes if graph.is_float(node)
    ]  # fmt: skip


def quantize(graph: Graph, plan: QuantPlan) -> bytes:
    """The integer ``.tflite`` of ``graph`` as ``plan`` says.

    Raises:
        PlanError: the plan does not fit the graph, or TFLite cannot express it.
    """
    from ai_edge_quantizer import quantizer, recipe

    check_plan(graph, plan)
    graph = as_written(constants_on_grid_of(graph, plan.tensors), plan)
    float_model = stand_ins.put(write_float(graph), graph)
    ranges = {t.name: _range(t, plan.tensors[t.name]) for t in graph.tensors.values() if t.name in plan.tensors}
    tool = quantizer.Quantizer(bytearray(float_model), [*recipe.static_wi8_ai8(), *_islands(graph)])
    noise = io.StringIO()
    with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    data = result.quantized_model
    if data is None:
        raise PlanError("the quantizer produced no model")
    data = stand_ins.take_back(bytes(data), graph)
    data = rescale(data, graph, plan.tensors)
    return clamp(in_int16(data, plan.int16) if plan.int16 else data, graph, plan.tensors)

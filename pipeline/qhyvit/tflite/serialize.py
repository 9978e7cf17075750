"""A Graph as a ``.tflite``, tensor for tensor and op for op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qhyvit.graph.ir import INT4, Graph, Node, Quantization, Tensor
from qhyvit.ops import spec
from qhyvit.tflite import flatbuffer


def _options(node: Node) -> tuple[int, Any]:
    """Flatbuffer options of a node, from its attributes by field name."""
    op = spec(node.op)
    if not op.options:
        return 0, None
    options = getattr(schema, f"{op.options}T")()
    for f in fields(op.attrs):
        value = getattr(node.attrs, f.name)
        if f.name in flatbuffer.ENUM_FIELDS:
            value = {v: k for k, v in flatbuffer.ENUM_FIELDS[f.name].items()}[value]
        setattr(options, flatbuffer.camel(f.name), list(value) if isinstance(value, tuple) else value)
    if hasattr(options, "potScaleInt16"):
        options.potScaleInt16 = False  # scales of int16 operands are no powers of two
    return getattr(schema.BuiltinOptions, op.options), options


def _tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    raw = schema.TensorT()
    raw.name, raw.shape, raw.type = tensor.name, list(tensor.shape), flatbuffer.TENSOR_TYPE_CODE[tensor.dtype]
    raw.hasRank, raw.buffer = True, 0
    if tensor.quantization is not None:
        raw.quantization = _parameters(tensor.quantization)
    if tensor.data is not None:
        buffer = schema.BufferT()
        data = flatbuffer.packed(tensor.data) if tensor.dtype == INT4 else tensor.data
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        buffers.append(buffer)
        raw.buffer = len(buffers) - 1
    return raw


def _parameters(quantization: Quantization) -> Any:
    raw = schema.QuantizationParametersT()
    raw.scale = np.asarray(quantization.scale, np.float32)
    raw.zeroPoint = np.full(len(quantization.scale), quantization.zero_point, np.int64)
    raw.quantizedDimension = quantization.axis or 0
    return raw


def _operator_codes(graph: Graph) -> dict[str, tuple[int, Any]]:
    versions: Mapping[str, int] = graph.facts.get("op_versions", {})
    codes: dict[str, tuple[int, Any]] = {}
    for op in dict.fromkeys(node.op for node in graph.nodes):
        code = schema.OperatorCodeT()
        code.builtinCode = flatbuffer.BUILTIN_CODE[op]
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = versions.get(op, spec(op).version)
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


def serialize(graph: Graph) -> bytes:
    """The graph as a ``.tflite``; constants that no node reads are left out."""
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
    model.version, model.description = 3, flatbuffer.OUR_MARK
    model.subgraphs, model.buffers = [subgraph], buffers
    model.operatorCodes = [code for _, code in codes.values()]
    model.signatureDefs = [_signature(graph, index)]
    # of weights of four bits the zero points of their channels would be a tenth
    return flatbuffer.pack(model, small=any(t.dtype == INT4 for t in graph.tensors.values()))

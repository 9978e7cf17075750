"""A ``.tflite`` as a typed Graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from qhyvit.errors import GraphError
from qhyvit.graph.ir import Graph, Node, Quantization, Tensor
from qhyvit.ops import all_ops
from qhyvit.ops.shared.spec import OpSpec
from qhyvit.tflite import flatbuffer

BITS = {"INT4": 4, "INT8": 8, "INT16": 16, "INT32": 32}
# what makes ops whose names tell nothing to those who write torch
FROM_TORCH = {
    "STABLEHLO_SORT": "sort, argsort, topk or median", "STABLEHLO_REDUCE_WINDOW": "pooling without the padding",
    "STABLEHLO_IOTA": "affine_grid or an index", "STABLEHLO_SCATTER": "scatter or index assignment",
    "STABLEHLO_COMPOSITE": "a fused function", "STABLEHLO_WHILE": "a loop", "WHILE": "a loop", "IF": "a condition",
    "CONV_3D": "conv3d",
}  # fmt: skip


def _attributes(spec: OpSpec, options: Any) -> Any:
    """Fill an op's attribute dataclass from the flatbuffer options by field name."""
    values = {}
    for f in fields(spec.attrs):
        value = getattr(options, flatbuffer.camel(f.name), None) if options is not None else None
        if value is None:
            continue
        if f.name in flatbuffer.ENUM_FIELDS:
            value = flatbuffer.ENUM_FIELDS[f.name][int(value)]
        elif isinstance(value, np.ndarray | list):
            value = tuple(int(v) for v in value)
        values[f.name] = value
    return spec.attrs(**values)


def _names(model: Any, modules: Mapping[str, str]) -> tuple[dict[int, str], dict[int, str]]:
    """Short unique tensor names, and the module of each node, from the module map of the export."""
    subgraph = model.subgraphs[0]
    if flatbuffer.text(model.description) == flatbuffer.OUR_MARK:  # a file of our own writer keeps its names
        names = {i: flatbuffer.text(t.name) for i, t in enumerate(subgraph.tensors)}
        firsts = [names[int(operator.outputs[0])] for operator in subgraph.operators]
        return names, {i: name.rpartition("/")[0] for i, name in enumerate(firsts)}
    names, blocks = {}, {}
    taken: set[str] = set()

    def take(t: int, wish: str) -> None:
        unique, n = wish, 1
        while unique in taken:
            n += 1
            unique = f"{wish}.{n}"
        taken.add(unique)
        names[t] = unique

    for k, t in enumerate(subgraph.inputs):
        take(t, "input" if len(subgraph.inputs) == 1 else f"input{k}")
    outputs = {int(t): k for k, t in enumerate(subgraph.outputs)}
    for index, operator in enumerate(subgraph.operators):
        op = flatbuffer.op_name(model, operator).lower()
        first = int(operator.outputs[0])
        block = modules.get(flatbuffer.text(subgraph.tensors[first].name), "")
        blocks[index] = block
        stem = f"{block}/{op}" if block else op
        for t in operator.outputs:
            final = "output" if len(outputs) == 1 else f"output{outputs.get(int(t), 0)}"
            take(int(t), final if int(t) in outputs else stem)
        for position, t in enumerate(operator.inputs):
            if t >= 0 and int(t) not in names:
                take(int(t), f"{names[first]}:{_role(op.upper(), position)}")
    return names, blocks


def _role(op: str, position: int) -> str:
    spec = all_ops().get(op)
    if spec is not None and position == spec.weight_input:
        return "weight"
    return "bias" if spec is not None and position == spec.bias_input else f"in{position}"


def _refuse_unknown(model: Any, modules: Mapping[str, str]) -> None:
    """Name every op that is not supported, and what in torch it comes from where that is known.

    Raises:
        GraphError: there are such ops.
    """
    subgraph, table = model.subgraphs[0], all_ops()
    unknown: dict[str, list[str]] = {}
    for operator in subgraph.operators:
        op = flatbuffer.op_name(model, operator)
        if op not in table:
            name = flatbuffer.text(subgraph.tensors[operator.outputs[0]].name)
            place = "the model's own forward" if modules else name[-60:]
            unknown.setdefault(op, []).append(modules.get(name) or place)
    if unknown:
        parts = [f"{len(where)} x {op} (first in {where[0]}{_hint(op)})" for op, where in sorted(unknown.items())]
        listed = ", ".join(parts)
        raise GraphError(f"the model holds ops that are not supported: {listed}")


def _hint(op: str) -> str:
    """What makes such an op, where its name does not tell."""
    if op.startswith("custom Flex"):
        return "; TensorFlow's own: convert with TFLITE_BUILTINS alone"
    return f"; torch's {FROM_TORCH[op]}" if op in FROM_TORCH else ""


def _quantization(raw: Any, dtype: str) -> Quantization | None:
    """What the codes of a tensor stand for; None where the file says nothing of it."""
    found = raw.quantization
    if found is None or found.scale is None or len(found.scale) == 0:
        return None
    axis = int(found.quantizedDimension) if len(found.scale) > 1 else None
    return Quantization(tuple(map(float, found.scale)), int(found.zeroPoint[0]), axis, BITS[dtype])


def read(data: bytes, modules: Mapping[str, str] | None = None) -> Graph:
    """Read a model. Every reason why it cannot be read is named at once.

    Args:
        data: the file's bytes.
        modules: module path of each of the file's tensor names, for short readable names.

    Raises:
        InputError: the bytes are no model, or contradict each other.
        GraphError: more than one subgraph, dynamic shapes, or ops that we do not support.
    """
    model = flatbuffer.load_model(data)
    with flatbuffer.refusing():
        return _graph(model, data, modules or {})


def _graph(model: Any, data: bytes, modules: Mapping[str, str]) -> Graph:
    flatbuffer.embed(model, data)
    subgraph, table = model.subgraphs[0], all_ops()
    _refuse_unknown(model, modules)
    if len(model.subgraphs) != 1:
        raise GraphError(f"the model has {len(model.subgraphs)} subgraphs; exactly one is supported")
    names, blocks = _names(model, modules)
    tensors = {}
    for t, name in names.items():
        raw = subgraph.tensors[t]
        shape = tuple(int(v) for v in raw.shape) if raw.shape is not None else ()
        if any(s <= 0 for s in shape):
            raise GraphError(f"tensor {name!r} has the dynamic or empty shape {list(shape)}; export with static shapes")
        dtype = flatbuffer.TENSOR_TYPE[raw.type]
        tensors[t] = Tensor(t, name, shape, dtype, flatbuffer.constant(model, raw), _quantization(raw, dtype))
    nodes = []
    for index, operator in enumerate(subgraph.operators):
        spec = table[flatbuffer.op_name(model, operator)]
        ids = tuple(int(t) for t in operator.inputs)
        attrs = _attributes(spec, operator.builtinOptions or operator.builtinOptions2)
        nodes.append(Node(spec.name, attrs, ids, tuple(int(t) for t in operator.outputs), blocks[index]))
    versions = {
        flatbuffer.op_name(model, o): int(model.operatorCodes[o.opcodeIndex].version) for o in subgraph.operators
    }
    ends = tuple(int(t) for t in subgraph.inputs), tuple(int(t) for t in subgraph.outputs)
    graph = Graph(tensors, tuple(nodes), *ends, facts={"op_versions": versions})
    graph.check()
    return graph

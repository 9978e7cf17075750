"""Grids smaller than int8 in an int8 file: QUANTIZE ops whose saturation at -128 and 127 clamps the codes.

A tensor with b bits uses 2^b codes of its int8. Its op writes with a zero point that puts the highest of them at 127,
so that int8 clamps there; a QUANTIZE of the same scale then moves them down until the lowest is at -128, and int8
clamps that end. A tensor that needs zero point 0 is moved once more. For studies: the ops cost time, and no kernel is
faster for fewer bits.

A matrix product's right operand leaves out -128 alone, see :func:`qhyvit.methods._ranges.grid_for`: its op writes one
code lower, and one QUANTIZE moves it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from qhyvit.graph.ir import Graph
from qhyvit.ops import spec
from qhyvit.ops._spec import Tied
from qhyvit.plan import TensorQuant
from qhyvit.tflite import _flat


def clamped_tensors(graph: Graph, quants: Mapping[str, TensorQuant]) -> list[str]:
    """Names of the activations that are rounded on a smaller grid than int8's."""
    names = []
    for node in graph.nodes:
        if graph.is_float(node):
            continue
        for t in node.outputs:
            name = graph.tensors[t].name
            if quants[name].limits != (-128, 127) and not isinstance(spec(node.op).out, Tied):
                names.append(name)
    return names


def _shifts(quant: TensorQuant) -> list[int]:
    """What is added to the final zero point, from the op's own output to the tensor before the last."""
    low, high = quant.limits
    ends = [127 - high, -128 - low]
    return [shift for shift in ends if shift]


def _copy(model: Any, index: int, name: str, shift: int) -> int:
    """A tensor like ``index`` with its zero point moved by ``shift``; its new index."""
    subgraph = model.subgraphs[0]
    old, new = subgraph.tensors[index], schema.TensorT()
    new.name, new.shape, new.type, new.buffer, new.hasRank = name, old.shape, old.type, 0, True
    new.quantization = schema.QuantizationParametersT()
    new.quantization.scale = list(old.quantization.scale)
    new.quantization.zeroPoint = [int(old.quantization.zeroPoint[0]) + shift]
    subgraph.tensors.append(new)
    return len(subgraph.tensors) - 1


def clamp(data: bytes, graph: Graph, quants: Mapping[str, TensorQuant]) -> bytes:
    """The file ``data`` with a clamp behind every op that writes on a smaller grid; unchanged where there is none."""
    names = clamped_tensors(graph, quants)
    if not names:
        return data
    model = _flat.load_model(data)
    _flat.embed(model, data)
    subgraph, code = model.subgraphs[0], _flat.code_index(model, "QUANTIZE", version=2)
    index = {_flat.text(t.name): i for i, t in enumerate(subgraph.tensors)}
    chains = {}
    for name in names:
        steps = [_copy(model, index[name], f"{name}.unclamped{k}", s) for k, s in enumerate(_shifts(quants[name]))]
        chains[index[name]] = [*steps, index[name]]
    operators = []
    for operator in subgraph.operators:
        written = list(operator.outputs)
        operator.outputs = [chains[t][0] if t in chains else t for t in written]
        operators.append(operator)
        for t in written:
            for source, target in zip(chains.get(t, []), chains.get(t, [])[1:], strict=False):
                step = schema.OperatorT()
                step.opcodeIndex, step.inputs, step.outputs = code, [source], [target]
                operators.append(step)
    subgraph.operators = operators
    return _flat.pack(model)

"""Nodes that depend on constants alone are computed once, here, and not on every image.

Position encodings come through the converter as chains of FLOOR_DIV, POW, SIN, COS: no op of them has to be known. So
do shapes of tensors, which TensorFlow's converter computes where a batch may be any.
"""

from __future__ import annotations

from typing import Any

from qhyvit.tflite import flatbuffer
from qhyvit.tflite.plain import plain_run


def _constant_operators(model: Any) -> list[int]:
    """Positions of the operators whose operands, or their shapes, are all known before the model runs."""
    subgraph = model.subgraphs[0]
    known = {i for i, t in enumerate(subgraph.tensors) if _has_data(model, t)}
    found = []
    for position, operator in enumerate(subgraph.operators):
        operands = [int(t) for t in operator.inputs if t >= 0]
        # shapes are part of the file: a reader takes no others
        if operands and (flatbuffer.op_name(model, operator) == "SHAPE" or all(t in known for t in operands)):
            known |= {int(t) for t in operator.outputs}
            found.append(position)
    return found


def _has_data(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data if tensor.buffer else None
    return data is not None and len(data) > 0


def without_constant_nodes(data: bytes) -> bytes:
    """The same model with such nodes replaced by their results; unchanged where there are none, or it does not run."""
    model = flatbuffer.load_model(data)
    positions = set(_constant_operators(model))
    if not positions:
        return data
    flatbuffer.embed(model, data)
    try:
        interpreter = plain_run(data)  # what is read depends on constants alone
    except (RuntimeError, ValueError):  # an op that the interpreter does not know: the reader names it, and its module
        return data
    subgraph = model.subgraphs[0]
    kept = [o for i, o in enumerate(subgraph.operators) if i not in positions]
    wanted = {int(t) for o in kept for t in o.inputs} | {int(t) for t in subgraph.outputs}
    for position in sorted(positions):
        for t in (int(t) for t in subgraph.operators[position].outputs):
            if t in wanted:
                flatbuffer.hold(model, subgraph.tensors[t], interpreter.get_tensor(t))
    subgraph.operators = kept
    return flatbuffer.pack(model)

"""A softmax or sigmoid at the end of a model is cut off: the task applies its own, and searches compare logits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from qhyvit.tflite import flatbuffer

PASSED = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def last_op(data: bytes) -> str:
    """Name of the op that makes the first output, reshaping aside; "" where there is none."""
    found = _last(flatbuffer.load_model(data))
    return "" if found is None else found[1]


def without_final(data: bytes, cut: Collection[str]) -> bytes:
    """The same model up to the input of its final op, where that is one of ``cut``; unchanged where it is not."""
    model = flatbuffer.load_model(data)
    found = _last(model)
    if found is None or found[1] not in cut:
        return data
    flatbuffer.embed(model, data)
    subgraph, operator = model.subgraphs[0], found[0]
    old, new = int(operator.outputs[0]), int(operator.inputs[0])
    subgraph.operators = [o for o in subgraph.operators if o is not operator]
    for other in subgraph.operators:
        other.inputs = [new if int(t) == old else int(t) for t in other.inputs]
    subgraph.outputs = [new if int(t) == old else int(t) for t in subgraph.outputs]
    for signature in model.signatureDefs or []:
        for end in signature.outputs:
            end.tensorIndex = new if end.tensorIndex == old else end.tensorIndex
    return flatbuffer.pack(model)


def _last(model: Any) -> tuple[Any, str] | None:
    """The operator behind which only reshaping stands, and its name."""
    subgraph = model.subgraphs[0]
    made_by = {int(t): o for o in subgraph.operators for t in o.outputs}
    operator = made_by.get(int(subgraph.outputs[0]))
    while operator is not None and flatbuffer.op_name(model, operator) in PASSED:
        operator = made_by.get(int(operator.inputs[0]))
    return None if operator is None else (operator, flatbuffer.op_name(model, operator))

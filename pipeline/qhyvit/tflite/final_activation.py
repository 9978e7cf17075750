"""A softmax or sigmoid at the end of a model is cut off: the task applies its own, and searches compare logits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from qhyvit.tflite import flatbuffer

PASSED = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def last_op(data: bytes) -> str:
    """What makes the first output, reshaping aside: an op's name; "" where there is none.

    x less the logarithm of the sum of its exponentials, as a LOG_SOFTMAX of maps is written, is one.
    """
    found = _last(flatbuffer.load_model(data))
    return "" if found is None else found.op


def without_final(data: bytes, cut: Collection[str]) -> bytes:
    """The same model up to the input of its final op, where that is one of ``cut``; unchanged where it is not."""
    model = flatbuffer.load_model(data)
    found = _last(model)
    if found is None or found.op not in cut:
        return data
    flatbuffer.embed(model, data)
    subgraph, old, new = model.subgraphs[0], found.output, found.input
    subgraph.operators = [o for o in subgraph.operators if old not in map(int, o.outputs)]
    for other in subgraph.operators:
        other.inputs = [new if int(t) == old else int(t) for t in other.inputs]
    subgraph.outputs = [new if int(t) == old else int(t) for t in subgraph.outputs]
    _drop_unread(subgraph)
    for signature in model.signatureDefs or []:
        for end in signature.outputs:
            end.tensorIndex = new if end.tensorIndex == old else end.tensorIndex
    return flatbuffer.pack(model)


def _drop_unread(subgraph: Any) -> None:
    """Take out the operators whose results nothing reads."""
    read, kept = {int(t) for t in subgraph.outputs}, []
    for operator in reversed(subgraph.operators):
        if read & {int(t) for t in operator.outputs}:
            kept.append(operator)
            read |= {int(t) for t in operator.inputs}
    subgraph.operators = kept[::-1]


@dataclass(frozen=True)
class _Final:
    """The op behind which only reshaping stands: its name, the tensors that it reads and writes."""

    op: str
    input: int
    output: int


def _last(model: Any) -> _Final | None:
    subgraph = model.subgraphs[0]
    made_by = {int(t): o for o in subgraph.operators for t in o.outputs}
    end = _passed(model, made_by, int(subgraph.outputs[0]))
    if end not in made_by:
        return None
    logits = _under_log_softmax(model, made_by, end)
    if logits is not None:
        return _Final("LOG_SOFTMAX", logits, end)
    operator = made_by[end]
    return _Final(flatbuffer.op_name(model, operator), int(operator.inputs[0]), end)


def _passed(model: Any, made_by: dict[int, Any], tensor: int) -> int:
    """The tensor that is only reshaped to this one."""
    while tensor in made_by and flatbuffer.op_name(model, made_by[tensor]) in PASSED:
        tensor = int(made_by[tensor].inputs[0])
    return tensor


def _under_log_softmax(model: Any, made_by: dict[int, Any], tensor: int) -> int | None:
    """The logits x, where the tensor is x - log(sum(exp(x))) by rows; what all of a row lose does not count."""
    operands = _operands(model, made_by, tensor, "SUB")
    if operands is None or not _is_of_rows(model, *operands):
        return None
    inside = operands[1]
    for op in ("LOG", "SUM", "EXP"):
        found = _operands(model, made_by, _passed(model, made_by, inside), op)
        if found is None:
            return None
        inside = found[0]
    logits: int | None = operands[0] if inside == operands[0] else None
    while logits is not None:
        shifted = _operands(model, made_by, logits, "SUB")
        if shifted is None or not _is_of_rows(model, *shifted):
            break
        logits = shifted[0]
    return logits


def _operands(model: Any, made_by: dict[int, Any], tensor: int, op: str) -> list[int] | None:
    """What the op of that name reads, if it makes the tensor."""
    operator = made_by.get(tensor)
    is_it = operator is not None and flatbuffer.op_name(model, operator) == op
    return [int(t) for t in operator.inputs] if is_it and operator is not None else None


def _is_of_rows(model: Any, values: int, each: int) -> bool:
    """Whether ``each`` has one value for every row of ``values``."""
    shapes = (model.subgraphs[0].tensors[t].shape for t in (values, each))
    whole, one = ([] if shape is None else [*shape] for shape in shapes)
    return len(whole) > 1 and whole[-1] > 1 and one == [*whole[:-1], 1]

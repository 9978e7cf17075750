"""Census of a ``.tflite``: ops by type and dtype, float tensors, what XNNPACK took, the oldest runtime."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from qhyvit.ops import all_ops
from qhyvit.tflite import _flat

# Int8 files of these ops ran on tflite-runtime 2.14.0; it lacks some int16 kernels, int8 SQRT and int8 LOG.
OLDEST_INT8, NEWER = "2.14.0", "newer than 2.14.0"
NEWER_OPS = ("SQRT", "LOG")


@dataclass(frozen=True)
class Census:
    """What is in a file.

    Args:
        ops: (op, dtype of its first output) -> count.
        float_tensors: names of all tensors of a float type.
        int16_tensors: names of all activations in int16.
        partitions: delegate partitions that the interpreter made (0 = XNNPACK took nothing).
        not_delegated: integer ops left to the builtin kernels -> count.
        size_bytes: length of the file.
        oldest_runtime: oldest TFLite release known to run every op of it, as a statement.
    """

    ops: dict[tuple[str, str], int]
    float_tensors: tuple[str, ...]
    int16_tensors: tuple[str, ...]
    partitions: int
    not_delegated: dict[str, int]
    size_bytes: int
    oldest_runtime: str

    @property
    def op_count(self) -> int:
        """Number of ops."""
        return sum(self.ops.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        ops = {f"{op}:{dtype}": n for (op, dtype), n in sorted(self.ops.items())}
        return {**vars(self), "ops": ops, "op_count": self.op_count}


def _delegation(data: bytes) -> tuple[int, dict[str, int]]:
    """Partitions, and the ops that stayed outside them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    model = _flat.load_model(data)
    count = sum(d["op_name"] == "DELEGATE" for d in details)
    if count == 0:
        return 0, dict(Counter(_flat.op_name(model, o) for o in model.subgraphs[0].operators))
    # The details do not tell which nodes are inside a partition: the op facts do.
    left: Counter[str] = Counter()
    dtype = [_flat.TENSOR_TYPE[t.type] for t in model.subgraphs[0].tensors]
    for operator in model.subgraphs[0].operators:
        op = _flat.op_name(model, operator)
        spec = all_ops().get(op)
        if dtype[operator.outputs[0]].startswith("FLOAT"):
            continue
        if spec is None or spec.delegate or not _right_zero(model, operator, spec.symmetric_inputs):
            left[op] += 1
    return count, dict(left)


def _right_zero(model: Any, operator: Any, positions: tuple[int, ...]) -> bool:
    """Whether the inputs that XNNPACK wants symmetric are so."""
    tensors = model.subgraphs[0].tensors
    for i in positions:
        zero = tensors[operator.inputs[i]].quantization
        if zero is not None and zero.zeroPoint is not None and any(int(z) for z in zero.zeroPoint):
            return False
    return True


def census(data: bytes) -> Census:
    """Count what is in a ``.tflite``.

    Raises:
        InputError: the bytes are no model.
    """
    model = _flat.load_model(data)
    subgraph = model.subgraphs[0]
    dtype = [_flat.TENSOR_TYPE[t.type] for t in subgraph.tensors]
    name = [_flat.text(t.name) for t in subgraph.tensors]
    ops = Counter((_flat.op_name(model, o), dtype[o.outputs[0]]) for o in subgraph.operators)
    floats = tuple(name[i] for i, d in enumerate(dtype) if d.startswith("FLOAT"))
    produced = {int(t) for o in subgraph.operators for t in o.outputs}
    wide = tuple(name[i] for i in sorted(produced) if dtype[i] == "INT16")
    partitions, left = _delegation(data)
    newer = wide or any(op in NEWER_OPS for op, _ in ops)
    oldest = f"TFLite {NEWER if newer else OLDEST_INT8} (releases before 2.14.0 were not tried)"
    return Census(dict(ops), floats, wide, partitions, left, len(data), oldest)

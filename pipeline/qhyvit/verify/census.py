"""Census of a ``.tflite``: ops by type and dtype, float tensors, what XNNPACK took, the oldest runtime."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from qhyvit.ops import all_ops
from qhyvit.tflite import flatbuffer

# Int8 files ran on tflite-runtime 2.14.0; it lacks some int16 kernels, and the int8 ones of which the ops say so. Int4
# weights beside int8 activations ran on LiteRT 2.3 alone.
OLDEST_INT8, NEWER = "2.14.0", "newer than 2.14.0"


@dataclass(frozen=True)
class Census:
    """What is in a file.

    Args:
        ops: (op, dtype of its first output) -> count.
        float_tensors: names of all tensors of a float type.
        int16_tensors: names of all activations in int16.
        partitions: delegate partitions that the interpreter made (0 = XNNPACK took nothing).
        not_delegated: ops left to the builtin kernels -> count.
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


def _delegation(data: bytes, model: Any) -> tuple[int, dict[str, int]]:
    """Partitions, and the ops that stayed outside them.

    The interpreter tells what each partition reads and writes: what lies between is inside.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    partitions = [d for d in interpreter._get_ops_details() if d["op_name"] == "DELEGATE"]
    operators = model.subgraphs[0].operators
    writer = {int(t): i for i, operator in enumerate(operators) for t in operator.outputs}
    inside: set[int] = set()
    for partition in partitions:
        ends, ahead = set(map(int, partition["inputs"])), list(map(int, partition["outputs"]))
        while ahead:
            tensor = ahead.pop()
            index = writer.get(tensor)
            if tensor not in ends and index is not None and index not in inside:
                inside.add(index)
                ahead += map(int, operators[index].inputs)
    left = Counter(flatbuffer.op_name(model, operator) for i, operator in enumerate(operators) if i not in inside)
    return len(partitions), dict(left)


def census(data: bytes) -> Census:
    """Count what is in a ``.tflite``.

    Raises:
        InputError: the bytes are no model, or contradict each other.
    """
    model = flatbuffer.load_model(data)
    with flatbuffer.refusing():
        return _counted(data, model)


def _counted(data: bytes, model: Any) -> Census:
    subgraph = model.subgraphs[0]
    dtype = [flatbuffer.TENSOR_TYPE[t.type] for t in subgraph.tensors]
    name = [flatbuffer.text(t.name) for t in subgraph.tensors]
    ops = Counter((flatbuffer.op_name(model, o), dtype[o.outputs[0]]) for o in subgraph.operators)
    floats = tuple(name[i] for i, d in enumerate(dtype) if d.startswith("FLOAT"))
    produced = {int(t) for o in subgraph.operators for t in o.outputs}
    wide = tuple(name[i] for i in sorted(produced) if dtype[i] == "INT16")
    partitions, left = _delegation(data, model)
    known = all_ops()
    newer = wide or "INT4" in dtype or any(op in known and known[op].after_2_14 for op, _ in ops)
    oldest = f"TFLite {NEWER if newer else OLDEST_INT8} (releases before 2.14.0 were not tried)"
    return Census(dict(ops), floats, wide, partitions, left, len(data), oldest)

"""The typed graph against the interpreter, op by op: both are fed the interpreter's own tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.lower import Lowered
from qhyvit.ops.shared.spec import Kernel
from qhyvit.sim.integer import IntegerExecutor, dequantized
from qhyvit.sim.run import Executor
from qhyvit.verify.probe import tensors

Array = NDArray[Any]
FLOAT_STEP = 1e-5  # of a float op's largest result: what float32 kernels may differ by counts as equal


@dataclass
class OpAgreement:
    """Codes of one op type: how many were compared, equal, within one, and the worst difference with its tensor.

    Results of float ops are compared in steps of 1e-5 of the largest.
    """

    op: str
    compared: int = 0
    equal: int = 0
    within_one: int = 0
    worst: int = 0
    worst_tensor: str = ""

    def add(self, difference: Array, tensor: str) -> None:
        """Take the absolute differences of one tensor."""
        self.compared += difference.size
        self.equal += int((difference == 0).sum())
        self.within_one += int((difference <= 1).sum())
        if difference.size and int(difference.max()) > self.worst:
            self.worst, self.worst_tensor = int(difference.max()), tensor

    def to_json(self) -> dict[str, Any]:
        """Plain data with shares."""
        share = max(self.compared, 1)
        return {**vars(self), "equal_share": self.equal / share, "within_one_share": self.within_one / share}


@dataclass
class Agreement:
    """All op types, and the SQNR of each tensor of the float graph in the file, in dB."""

    ops: dict[str, OpAgreement] = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # tensors that could not be read


def op_by_op(
    edited: Graph, lowered: Lowered, model: bytes, pixels: torch.Tensor, codes: Iterable[Array], kernel: Kernel,
    runtime: str = "litert",
) -> Agreement:  # fmt: skip
    """Compare every op of ``model`` with the typed graph, and every tensor with the float graph.

    Args:
        edited: the float graph after all edits, to measure the error against.
        model: the integer file.
        pixels: float input images [N, H, W, 3]; ``codes``: the same as the file's input codes.
        kernel: whose arithmetic the interpreter has.
        runtime: see :func:`qhyvit.verify.probe.tensors`.
    """
    result, power = Agreement(), _Power(edited, lowered)
    executor = IntegerExecutor(lowered.graph, kernel)
    for image, read in zip(pixels, tensors(model, codes, runtime), strict=True):
        values = _values(lowered.graph, read)
        result.missing += [t.name for t in lowered.graph.activations() if t.id not in values]
        for node in lowered.graph.nodes:
            _compare(executor, node, values, result)
        power.add(image, values)
    result.missing = list(dict.fromkeys(result.missing))
    result.sqnr_db = power.sqnr_db()
    return result


def _values(graph: Graph, read: Mapping[str, Array]) -> dict[int, Array]:
    """What the interpreter holds, [1, *file shape], as the executor takes it."""
    return {
        t.id: (read[t.name] if t.quantization is None else read[t.name].astype(np.int64)).reshape(1, *t.shape)
        for t in graph.activations() if t.name in read
    }  # fmt: skip


def _compare(executor: IntegerExecutor, node: Node, values: dict[int, Array], result: Agreement) -> None:
    known = executor.graph.tensors
    sources = [t for t in node.inputs if t >= 0 and not known[t].is_constant]
    if any(t not in values for t in (*sources, *node.outputs)):
        return  # is missing already
    written = known[node.outputs[0]].dtype
    label = node.op if written == "INT8" else f"{node.op} {written.lower()}"
    row = result.ops.setdefault(label, OpAgreement(label))
    for t, expected in zip(node.outputs, executor.outputs(node, values), strict=True):
        row.add(_difference(known[t], values[t], expected), known[t].name)


def _difference(tensor: Tensor, found: Array, expected: Array) -> Array:
    """In codes; of float tensors in steps of what float32 may differ by."""
    if tensor.quantization is not None:
        difference: Array = np.abs(found - expected)
        return difference
    step = FLOAT_STEP * max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    return np.floor(np.abs(found.astype(np.float64) - expected) / step)


class _Power:
    """Signal and noise of each tensor, summed over images."""

    def __init__(self, edited: Graph, lowered: Lowered) -> None:
        self.lowered, self.edited, self.executor = lowered, edited, Executor(edited, exact=True)
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, image: torch.Tensor, values: Mapping[int, Array]) -> None:
        """One image [H, W, 3], and what the interpreter holds for it."""
        graph, names = self.lowered.graph, self.lowered.held
        shared = [t for t in self.edited.activations() if t.name in names]
        with torch.no_grad():
            floats = self.executor.run(image[None], None, [t.id for t in shared])
        for tensor in shared:
            held = graph.by_name[names[tensor.name]]
            if held.id not in values:
                continue
            found = values[held.id]
            y = found if held.quantization is None else dequantized(found, held.quantization)
            x = floats[tensor.id].double().numpy()
            signal, noise = self.sums.get(tensor.name, (0.0, 0.0))
            self.sums[tensor.name] = signal + float((x * x).sum()), noise + float(((x - y) ** 2).sum())

    def sqnr_db(self) -> dict[str, float]:
        """By the names of the float graph."""
        return {n: float(10 * np.log10(max(s, 1e-30) / max(e, 1e-30))) for n, (s, e) in self.sums.items()}

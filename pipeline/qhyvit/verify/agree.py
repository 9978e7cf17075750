"""Simulation against interpreter, op by op: both are fed the interpreter's own input codes."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qhyvit.affine import STEPS_OF_INT8
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import ExactQuant, exact_codes, quantized_biases
from qhyvit.sim.run import Executor, unrounded
from qhyvit.tflite.write import constants_on_grid_of
from qhyvit.verify.probe import every_tensor, make_interpreter


@dataclass
class OpAgreement:
    """Codes of one op type: how many were compared, equal, within one, and the worst difference with its tensor."""

    op: str
    compared: int = 0
    equal: int = 0
    within_one: int = 0
    worst: int = 0
    worst_tensor: str = ""

    def add(self, difference: np.ndarray, tensor: str) -> None:
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


# What ai-edge-quantizer appends to the name of the int8 copy of a float or int16 tensor, and of the copy that an island
# reads of an int8 one
NARROWED, WIDENED = "_quantized", "_dequant"


@dataclass
class Agreement:
    """All op types, and the SQNR of each tensor of the file against the float graph, in dB."""

    ops: dict[str, OpAgreement] = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # tensors that could not be read


class _Simulator:
    """One op at a time in float64 on dequantized codes; the exact integer result up to ties."""

    def __init__(
        self, graph: Graph, quants: Mapping[str, TensorQuant], int16: Mapping[str, float], *, arm64: bool
    ) -> None:
        self.graph = quantized_biases(constants_on_grid_of(graph, quants), quants)
        self.quants, self.int16 = quants, int16
        self.executor = Executor(self.graph, torch.float64)
        self.exact = ExactQuant(self.graph, quants, int16, arm64=arm64)

    def values(self, codes: Mapping[str, np.ndarray], read: Mapping[str, np.ndarray]) -> dict[int, torch.Tensor]:
        """Dequantized activations, [1, *file shape].

        Args:
            codes: int8 codes where there are any; ``read``: what the file holds under the tensors' own names.
        """
        result = {}
        for tensor in self.graph.activations():
            if tensor.name not in codes:
                continue
            quant = self.quants.get(tensor.name)
            if quant is not None:
                x = (self.rounded(tensor, codes[tensor.name]) - quant.zero_point[0]) * quant.scale[0]
            whole = read[tensor.name].astype(np.float64) * self.int16.get(tensor.name, 1.0)
            result[tensor.id] = torch.from_numpy(whole if quant is None else x).unsqueeze(0)
            if self.graph.is_both(tensor.id):
                result[unrounded(tensor.id)] = torch.from_numpy(whole).unsqueeze(0)
        return result

    def rounded(self, tensor: Tensor, found: np.ndarray) -> np.ndarray:
        """Codes of what the interpreter holds: its own, or those that QUANTIZE makes of a float island's output."""
        if not np.issubdtype(found.dtype, np.floating):
            return found.astype(np.int64)
        return exact_codes(torch.from_numpy(found.astype(np.float64)), self.quants[tensor.name])

    def codes(self, node: Node, values: dict[int, torch.Tensor]) -> list[np.ndarray]:
        """Output codes of one node."""
        operands = [self.executor.operand(node, i, values) for i in range(len(node.inputs))]
        outputs = zip(node.outputs, self.executor.apply(node, operands), strict=True)
        return [self.exact.codes(self.graph.tensors[t], y[0], node, operands) for t, y in outputs]


def _sqnr(signal: np.ndarray, noise: np.ndarray) -> float:
    return float(10 * np.log10(max(signal.sum(), 1e-30) / max(noise.sum(), 1e-30)))


def op_by_op(
    folded: Graph,
    shipped: Graph,
    quants: Mapping[str, TensorQuant],
    model: bytes,
    pixels: torch.Tensor,
    codes: Sequence[np.ndarray],
    runtime: str = "litert",
    *,
    int16: Mapping[str, float] | None = None,
    arm64: bool = platform.machine() == "aarch64",
) -> Agreement:
    """Compare every op of ``model`` with the simulation, and every tensor with the float graph.

    Args:
        folded: the float graph (after folds), to measure the error against.
        shipped: the same with the constants that the file holds.
        quants: quantization of every tensor.
        model: the integer file.
        pixels: float input images [N, H, W, 3]; ``codes``: the same as the file's input codes.
        runtime: see :func:`qhyvit.verify.probe.make_interpreter`.
        int16: scales of what int16 islands compute, by name.
        arm64: whether the interpreter's kernels are arm64's.
    """
    graph, result = shipped, Agreement()
    simulator, plain = _Simulator(shipped, quants, int16 or {}, arm64=arm64), Executor(folded, exact=True)
    power: dict[str, tuple[float, float]] = {}
    interpreter = make_interpreter(model, runtime, all_tensors=True)
    ids = [t.id for t in graph.activations()]
    ends = [graph.tensors[t].name for t in (graph.floats if int16 else graph.wide) if graph.tensors[t].name in quants]
    for image, read in zip(pixels, every_tensor(interpreter, codes), strict=True):
        # behind an int16 kernel the codes are those that the quantizer's QUANTIZE makes
        found = {**read, **{name: read[f"{name}{NARROWED}"] for name in ends}}
        values = simulator.values(found, read)
        for node in graph.nodes:
            _compare_node(graph, node, found, values, simulator, result)
            if int16 and graph.in_float(node):
                _compare_inside(node, read, values, simulator, result)
        with torch.no_grad():
            floats = plain.run(image[None], None, ids)
        for t in ids:
            name = graph.tensors[t].name
            if t in values:
                x, y = floats[t].double(), values[t]
                s, n = power.get(name, (0.0, 0.0))
                power[name] = s + float((x * x).sum()), n + float(((x - y) ** 2).sum())
    result.sqnr_db = {name: _sqnr(np.array(s), np.array(n)) for name, (s, n) in power.items()}
    return result


def _compare_node(
    graph: Graph, node: Node, found: Mapping[str, np.ndarray], values: dict[int, torch.Tensor],
    simulator: _Simulator, result: Agreement,
) -> None:  # fmt: skip
    names = [graph.tensors[t].name for t in node.outputs]
    sources = [t for t in node.inputs if t >= 0 and not graph.tensors[t].is_constant]
    unread = [n for n in names if n not in found] + [graph.tensors[t].name for t in sources if t not in values]
    if unread:
        result.missing += [n for n in unread if n not in result.missing]
        return
    if all(name not in simulator.quants for name in names):
        return  # inside an island: what it gives is compared at its end
    row = result.ops.setdefault(node.op, OpAgreement(node.op))
    for t, expected in zip(node.outputs, simulator.codes(node, values), strict=True):
        tensor = graph.tensors[t]
        row.add(np.abs(simulator.rounded(tensor, found[tensor.name]).reshape(expected.shape) - expected), tensor.name)


def _compare_inside(
    node: Node, read: Mapping[str, np.ndarray], values: dict[int, torch.Tensor], simulator: _Simulator,
    result: Agreement,
) -> None:  # fmt: skip
    """int16 codes of one node of an island, and those that its int8 inputs became."""
    graph = simulator.graph
    if any(t not in values for t in node.inputs if t >= 0 and not graph.tensors[t].is_constant):
        return  # is missing already
    row = result.ops.setdefault(f"{node.op} int16", OpAgreement(f"{node.op} int16"))
    operands = [simulator.executor.operand(node, i, values) for i in range(len(node.inputs))]
    assert simulator.exact.islands is not None
    for t, expected in zip(node.outputs, simulator.exact.islands.codes(node, operands), strict=True):
        name = graph.tensors[t].name
        row.add(np.abs(read[name].astype(np.int64).reshape(expected.shape) - expected), name)
    for t in node.inputs:
        name = graph.tensors[t].name if t >= 0 else ""
        quant, codes = simulator.quants.get(name), read.get(f"{name}{WIDENED}")
        if quant is None or codes is None:
            continue
        row = result.ops.setdefault("QUANTIZE int16", OpAgreement("QUANTIZE int16"))
        expected = STEPS_OF_INT8 * (read.get(f"{name}{NARROWED}", read[name]).astype(np.int64) - quant.zero_point[0])
        row.add(np.abs(codes.astype(np.int64) - expected), f"{name}{WIDENED}")

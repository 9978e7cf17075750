"""Runs a Graph in PyTorch: one loop, one executor; observers, fake quantization and gradients are hooks on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.errors import GraphError
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import OpSpec, activate

# hook(tensor, value, node that wrote it or None for inputs) -> the value that its readers see
Hook = Callable[[Tensor, torch.Tensor, Node | None], torch.Tensor]


GATE_SLOPE = 1.702  # sigmoid(1.702 x) is within 0.01 of Phi(x) (arXiv 1606.08415, section 2)


def normal_gate(z: torch.Tensor) -> torch.Tensor:
    """Phi(z / 1.702), the normal distribution function, which sigmoid(z) stands for at a gate; any shape."""
    return 0.5 * torch.erfc(z * (-1 / (GATE_SLOPE * math.sqrt(2))))


def unrounded(tensor: int) -> int:
    """Key of the values that float readers see of a tensor that others read as codes (``Graph.is_both``)."""
    return ~tensor


def walk(graph: Graph, *states: dict[int, Any], keep: Collection[int] = (), start: int = 0) -> Iterator[Node]:
    """The loop of everything that runs a graph: its nodes from number ``start`` on, in order.

    Behind each, what no later node reads is taken out of ``states`` (values by tensor id), but for the graph's outputs
    and what ``keep`` names.
    """
    last = {t: i for i, node in enumerate(graph.nodes) for t in node.inputs if t >= 0}
    wanted = {*keep, *graph.outputs}
    for index, node in enumerate(graph.nodes[start:], start):
        yield node
        for t in node.inputs:
            if t >= 0 and last[t] == index and t not in wanted:
                for values in states:
                    values.pop(t, None)
                    values.pop(unrounded(t), None)


def fed_tensor(graph: Graph, shape: Sequence[int]) -> Tensor:
    """The graph's input, which a batch of this shape is fed to.

    Raises:
        GraphError: the batch does not fit it.
    """
    source = graph.tensors[graph.inputs[0]]
    if tuple(shape[1:]) != source.shape[1:]:
        raise GraphError(f"input must be [B, {', '.join(map(str, source.shape[1:]))}], got {list(shape)}")
    return source


class Executor:
    """A graph ready to run: constants converted once.

    Activations are [B, *file shape], B images at a time.

    Args:
        graph: the graph.
        dtype: torch.float32 to search, torch.float64 to verify.
        device: where to run.
        exact: compute the gates' own function instead of the one that stands for it (``Node.gate``): the network as
            it was before any approximation.
    """

    def __init__(
        self, graph: Graph, dtype: torch.dtype = torch.float32, device: str = "cpu", *, exact: bool = False
    ) -> None:
        self.graph, self.dtype, self.device = graph, dtype, device
        self.exact = exact
        self._constants: dict[int, Any] = {}
        for t in graph.tensors.values():
            if t.data is None:
                continue
            floating = t.dtype.startswith("FLOAT")
            self._constants[t.id] = torch.tensor(t.data, dtype=dtype, device=device) if floating else t.data
        self._both = {t for t in graph.islands if graph.is_both(t)}

    def set_constant(self, tensor: int, data: np.ndarray) -> None:
        """Use ``data`` for a float constant from now on."""
        self._constants[tensor] = torch.tensor(data, dtype=self.dtype, device=self.device)

    def outputs(self, node: Node, values: Mapping[int, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What one node makes of ``values``, by tensor id."""
        return self.apply(node, [self.operand(node, i, values) for i in range(len(node.inputs))])

    def operand(self, node: Node, position: int, values: Mapping[int, torch.Tensor]) -> Any:
        """What the op's forward gets for one input (see OpSpec.forward)."""
        t = node.inputs[position]
        if t < 0:
            return None
        if t in self._both and node.in_island and unrounded(t) in values:
            return values[unrounded(t)]
        if t in values:
            return values[t]
        constant = self._constants[t]
        if not isinstance(constant, torch.Tensor):
            return constant
        op = spec(node.op)
        if position == op.bias_input:  # the converter writes some as [1, 1, 1, O]
            return constant.flatten()
        return constant if position == op.weight_input else constant.unsqueeze(0)

    def apply(self, node: Node, operands: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """Run one op with its fused activation; always a tuple of outputs."""
        if self.exact and node.gate:
            return (torch.expm1(operands[0]) if node.op == "ELU" else normal_gate(operands[0]),)
        op: OpSpec = spec(node.op)
        result = op.forward(operands, node.attrs)
        outputs = result if isinstance(result, tuple) else (result,)
        fused = getattr(node.attrs, "fused_activation_function", "NONE")
        return tuple(activate(y, fused) for y in outputs)

    def run(self, feed: torch.Tensor, hook: Hook | None = None, keep: Collection[int] = ()) -> dict[int, torch.Tensor]:
        """Run on images [B, H, W, C]; returns graph outputs and the tensors in ``keep``, [B, *file shape].

        Raises:
            GraphError: the feed does not fit the graph's input.
        """
        graph, source = self.graph, fed_tensor(self.graph, tuple(feed.shape))
        x = feed.to(self.device, self.dtype).unsqueeze(1)  # [B, H, W, C] -> [B, 1, H, W, C]
        values = {source.id: x if hook is None else hook(source, x, None)}
        for node in walk(graph, values, keep=keep):
            for t, y in zip(node.outputs, self.outputs(node, values), strict=True):
                values[t] = y if hook is None else hook(graph.tensors[t], y, node)
                if t in self._both:
                    values[unrounded(t)] = y
        return {t: values[t] for t in {*keep, *graph.outputs}}

    def rows(self, feed: torch.Tensor, hook: Hook | None = None) -> torch.Tensor:
        """All outputs of each image, one after the other, [B, N]; feed and hook as for :meth:`run`."""
        return rows_of(self.graph, self.run(feed, hook))


def rows_of(graph: Graph, values: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """The outputs of a graph among values [B, *file shape] by tensor id, one after the other, [B, N]."""
    return torch.cat([values[t].flatten(1) for t in graph.outputs], dim=1)

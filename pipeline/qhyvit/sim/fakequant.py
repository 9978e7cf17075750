"""Quantization inside the executor: straight-through to search with gradients, exact to verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from qhyvit import affine
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.plan import TensorQuant

TIE_DECIMALS = 9
ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half_even": np.rint,
    "half_up": lambda v: np.floor(v + 0.5),
    "half_away": lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5),
    "truncate": np.trunc,
}


def _limits(quant: TensorQuant) -> tuple[int, int]:
    g = affine.grid(quant.bits)
    return g.qmin, g.qmax


def fake_quantize(x: torch.Tensor, quant: TensorQuant) -> torch.Tensor:
    """Round to the grid and back; gradient 1 inside the range, 0 outside (straight-through).

    ``quant.axis`` counts in the file's shape; ``x`` has the images' dimension before it.
    """
    low, high = _limits(quant)
    if quant.axis is None:
        return torch.fake_quantize_per_tensor_affine(x, quant.scale[0], quant.zero_point[0], low, high)
    scale = torch.tensor(quant.scale, dtype=torch.float32, device=x.device)
    zero = torch.tensor(quant.zero_point, dtype=torch.int32, device=x.device)
    return torch.fake_quantize_per_channel_affine(x, scale, zero, quant.axis + 1, low, high)


class FakeQuant:
    """Hook: every activation that ``quants`` names is rounded to its grid.

    Tensors that only copy codes (RESHAPE, TRANSPOSE, ...) may be left out: rounding is idempotent.
    """

    def __init__(self, quants: Mapping[str, TensorQuant]) -> None:
        self.quants = dict(quants)

    def __call__(self, tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
        """See :data:`qhyvit.sim.run.Hook`."""
        quant = self.quants.get(tensor.name)
        return x if quant is None else fake_quantize(x, quant)


def exact_codes(y: torch.Tensor, quant: TensorQuant, rounding: str = "half_even") -> np.ndarray:
    """Codes of float64 values as the kernels round them (int64, shape of ``y``), zero point included.

    The division is rounded to TIE_DECIMALS first: a tie stays a tie whatever the scale's last bit.
    """
    low, high = _limits(quant)
    steps = y.detach().cpu().numpy().astype(np.float64) / quant.scale[0] + quant.zero_point[0]
    return np.clip(ROUNDING[rounding](np.round(steps, TIE_DECIMALS)), low, high).astype(np.int64)


def quantized_biases(graph: Graph, quants: Mapping[str, TensorQuant]) -> Graph:
    """The graph with every bias rounded to int32 * s_in * s_w, as the file will hold it."""
    values = {}
    for node in graph.nodes:
        op = spec(node.op)
        if op.bias_input < 0 or len(node.inputs) <= op.bias_input or node.inputs[op.bias_input] < 0:
            continue
        s_in = quants[graph.tensors[node.inputs[0]].name].scale[0]
        s_w = np.asarray(quants[graph.tensors[node.inputs[op.weight_input]].name].scale)
        bias = graph.constant(node.inputs[op.bias_input]).astype(np.float64)
        step = s_in * s_w
        values[node.inputs[op.bias_input]] = np.clip(np.rint(bias / step), -(2**31), 2**31 - 1) * step
    return edit.with_constants(graph, values)

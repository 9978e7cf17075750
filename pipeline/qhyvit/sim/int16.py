"""int16 islands code by code: the arithmetic of the builtin int16 kernels, and of the QUANTIZE behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.affine import INT16_TOP, STEPS_OF_INT8, int16_scale
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops._fixed_point import requantized
from qhyvit.ops._spec import FusedActivation
from qhyvit.plan import TensorQuant

LOW = -INT16_TOP - 1


class Int16Codes:
    """What the nodes of a graph's int16 islands give.

    Args:
        quants: of the int8 tensors; ``scales``: int16 scales of what the islands' nodes write, both by name.
    """

    def __init__(self, graph: Graph, quants: Mapping[str, TensorQuant], scales: Mapping[str, float]) -> None:
        self.graph, self.quants, self.scales = graph, quants, scales

    def scale(self, tensor: int) -> float:
        """The int16 scale in which an island holds a tensor."""
        found = self.graph.tensors[tensor]
        if found.name in self.scales:
            return self.scales[found.name]
        if found.is_constant:
            return int16_scale(float(np.abs(self.graph.constant(tensor)).max(initial=0.0)))
        return self.quants[found.name].scale[0] / STEPS_OF_INT8

    def codes(self, node: Node, operands: Sequence[Any]) -> list[np.ndarray]:
        """int16 codes of each output, int64 [B, *file shape].

        Args:
            operands: values as ``OpSpec.forward`` takes them; those of activations lie on their grids.
        """
        op, scales, inputs = spec(node.op), [], []
        for t, x in zip(node.inputs, operands, strict=True):
            if isinstance(x, torch.Tensor):
                scales.append(self.scale(t))
                x = torch.from_numpy(np.clip(np.rint(x.double().cpu().numpy() / scales[-1]), LOW, INT16_TOP))
            inputs.append(x)
        results = op.forward(inputs, node.attrs)
        low = 0 if getattr(node.attrs, "fused_activation_function", "NONE") == FusedActivation.RELU else LOW
        found = []
        for t, y in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            total = y.numpy()
            if op.int16_steps is not None:
                whole = [x.numpy().astype(np.int64) for x in inputs if isinstance(x, torch.Tensor)]
                total = op.int16_steps(whole, np.rint(total).astype(np.int64), scales, self.scale(t))
            found.append(np.clip(np.rint(total), low, INT16_TOP).astype(np.int64))
        return found

    def narrowed(self, tensor: int, codes: np.ndarray) -> np.ndarray:
        """int8 codes that QUANTIZE makes of the int16 ``codes`` of a tensor."""
        quant = self.quants[self.graph.tensors[tensor].name]
        factor = float(np.float32(self.scale(tensor))) / float(np.float32(quant.scale[0]))
        return np.clip(requantized(codes, factor) + quant.zero_point[0], *quant.limits).astype(np.int64)

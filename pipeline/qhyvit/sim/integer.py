"""Runs a typed graph code by code, with the arithmetic of one runtime's kernels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qhyvit.errors import GraphError
from qhyvit.graph.ir import Graph, Node, Quantization
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Kernel, Quants, activate
from qhyvit.sim.run import fed_tensor, walk

Array = NDArray[Any]
WHOLE = "INT32"


class IntegerExecutor:
    """A typed graph ready to run. Integer tensors are int64 codes, float ones float32, all [B, *file shape].

    Float ops are computed in float64 from float32 values and rounded once: a kernel's float32 differs from that in
    the last bits, which is all that is not exact here.

    Args:
        graph: the typed graph.
        kernel: whose arithmetic it is.
    """

    def __init__(self, graph: Graph, kernel: Kernel) -> None:
        self.graph, self.kernel = graph, kernel
        self.constants: dict[tuple[int, bool], Array] = {}  # as kernels take them

    def run(self, codes: Array, keep: Collection[int] = ()) -> dict[int, Array]:
        """Codes of the outputs and of the tensors in ``keep``, by id, for input codes [B, *file shape without batch].

        Raises:
            GraphError: the codes do not fit the graph's input.
        """
        graph, source = self.graph, fed_tensor(self.graph, codes.shape)
        values: dict[int, Array] = {source.id: codes.astype(np.int64)[:, None]}
        for node in walk(graph, values, keep=keep):
            values.update(zip(node.outputs, self.outputs(node, values), strict=True))
        return {t: values[t] for t in {*keep, *graph.outputs}}

    def outputs(self, node: Node, values: Mapping[int, Array]) -> list[Array]:
        """What one node makes of the activations in ``values``, by id."""
        operands = [self._operand(node, i, values) for i in range(len(node.inputs))]
        tensors = self.graph.tensors
        writes = [tensors[t].quantization for t in node.outputs]
        if all(tensors[t].dtype == WHOLE for t in node.outputs):
            return self._whole_outputs(node, operands)
        if all(quant is None for quant in writes):
            return self._float_outputs(node, operands)
        reads = tuple(None if t < 0 else tensors[t].quantization for t in node.inputs)
        integer = spec(node.op).integer
        if integer is None or not all(isinstance(quant, Quantization) for quant in writes):
            raise GraphError(f"{node.op} {tensors[node.outputs[0]].name!r} has no integer kernel")
        quants = Quants(reads, tuple(quant for quant in writes if quant is not None))
        return list(integer(operands, quants, node.attrs, self.kernel))

    def _operand(self, node: Node, position: int, values: Mapping[int, Array]) -> Array | None:
        t = node.inputs[position]
        if t < 0:
            return None
        if t in values:
            return values[t]
        op = spec(node.op)
        whole = position in (op.weight_input, op.bias_input)
        if (t, whole) not in self.constants:
            self.constants[t, whole] = self._constant(t, whole=whole)
        return self.constants[t, whole]

    def _constant(self, t: int, *, whole: bool) -> Array:
        tensor, data = self.graph.tensors[t], self.graph.constant(t)
        if tensor.quantization is not None:
            data = data.astype(np.int64)
        elif tensor.dtype != "FLOAT32":
            return data.astype(np.int32) if data.dtype == np.int64 else data  # int64 is what is computed
        return data if whole else data[None]

    def _whole_outputs(self, node: Node, operands: Sequence[Array | None]) -> list[Array]:
        """Whole numbers without a scale: positions in a table."""
        given = [None if x is None else torch.from_numpy(x.astype(np.int64)) for x in operands]
        result = spec(node.op).forward(given, node.attrs)
        assert isinstance(result, torch.Tensor)
        return [result.numpy()]

    def _float_outputs(self, node: Node, operands: Sequence[Array | None]) -> list[Array]:
        if node.op == "DEQUANTIZE":
            return [dequantized(operands[0], self.graph.tensors[node.inputs[0]].quantization)]
        given = [
            torch.from_numpy(x.astype(np.float64)) if x is not None and x.dtype == np.float32 else x for x in operands
        ]
        result = spec(node.op).forward(given, node.attrs)
        fused = getattr(node.attrs, "fused_activation_function", "NONE")
        results = result if isinstance(result, tuple) else (result,)
        return [activate(y, fused).numpy().astype(np.float32) for y in results]


def dequantized(codes: Array | None, quantization: Quantization | None) -> NDArray[np.float32]:
    """Values of codes [..], float32, as DEQUANTIZE gives them."""
    assert codes is not None
    assert quantization is not None
    steps = (codes - quantization.zero_point).astype(np.float32)
    found: NDArray[np.float32] = steps * quantization.along(steps.ndim).astype(np.float32)
    return found

"""What ops compute from random values of one tensor: structures are recognised by it, whatever ops they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import FusedActivation, activate

LONGEST = 16  # ops of a norm or a softmax, in the longest form that was seen
EQUAL = 1e-6  # relative, in float64: constants are float32


def depends_on(graph: Graph, tensor: int, start: int) -> list[Node]:
    """The next ops, in order of execution, that read ``tensor`` or what was made of it, and constants."""
    known, found = {tensor}, []
    for node in graph.nodes[start:]:
        reads = [t for t in node.inputs if t >= 0 and not graph.tensors[t].is_constant]
        if reads and all(t in known for t in reads):
            known.update(node.outputs)
            found.append(node)
        if len(found) == LONGEST:
            break
    return found


def results_of(
    graph: Graph, tensor: int, nodes: list[Node], given: torch.Tensor | None = None
) -> dict[int, torch.Tensor]:
    """What ``nodes`` make of ``given`` values of ``tensor``, [1, *file shape], float64; of random ones without."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, *graph.tensors[tensor].shape)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5
    values = {tensor: drawn if given is None else given}
    for node in nodes:
        op, operands = spec(node.op), list[Any]()
        for position, t in enumerate(node.inputs):
            if t < 0 or t in values:
                operands.append(values.get(t))
                continue
            data = graph.constant(t)
            is_float = np.issubdtype(data.dtype, np.floating)
            whole = position in (op.weight_input, op.bias_input)
            if is_float:
                constant = torch.from_numpy(data.astype(np.float64))
                operands.append(constant if whole else constant.unsqueeze(0))
            else:
                operands.append(data)
        result = op.forward(operands, node.attrs)
        fused = getattr(node.attrs, "fused_activation_function", FusedActivation.NONE)
        made = result if isinstance(result, tuple) else (result,)
        values.update(zip(node.outputs, (activate(y, fused) for y in made), strict=True))
    return values

"""Scales of int16 islands.

Every tensor there has 16 bits, a zero point of 0 and a scale of the plan's (:attr:`qhyvit.plan.QuantPlan.int16`). A
constant's is the one that its largest value needs, and int8 codes become int16 ones without a rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

from qhyvit.affine import STEPS_OF_INT8, int16_scale
from qhyvit.graph.ir import Graph
from qhyvit.lowering.int16_roots import HEADROOM, limits
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Tied
from qhyvit.plan import TensorQuant


def scales(graph: Graph, quants: Mapping[str, TensorQuant], peaks: Mapping[int, float]) -> dict[str, float]:
    """Scales of all that the islands' nodes write, by name.

    Args:
        ``peaks``: largest absolute value of each of those tensors, by id.
    """
    found: dict[str, float] = {}
    limit_of = limits(graph)
    for node in graph.nodes:
        if not node.in_island:
            continue
        source, contract = graph.tensors[node.inputs[0]], spec(node.op).out
        for t in node.outputs:
            if isinstance(contract, Tied) and not contract.rounds:  # the kernel copies codes
                scale = found[source.name] if source.name in found else quants[source.name].scale[0] / STEPS_OF_INT8
            else:
                scale = int16_scale(limit_of[t] if t in limit_of else HEADROOM * peaks[t])
            found[graph.tensors[t].name] = scale
    return found

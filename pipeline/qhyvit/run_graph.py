"""A graph on images: in float, or as its integer file computes."""

from __future__ import annotations

import numpy as np

from qhyvit.graph.ir import Graph
from qhyvit.plan import QuantPlan

AT_ONCE = 4  # images computed together


def run(graph: Graph, images: np.ndarray, plan: QuantPlan | None = None) -> np.ndarray:
    """Logits [N, classes], float64, of images [N, H, W, C] (float, normalized as the model takes them).

    Args:
        plan: compute what the integer file of this plan computes, by its kernels' own arithmetic (``graph`` is then
            the ``shipped`` one); None: in float.

    Raises:
        GraphError: the images do not fit the graph's input.
    """
    import torch

    from qhyvit.affine import grid
    from qhyvit.affine import quantize as to_codes
    from qhyvit.lowering.lower import lower
    from qhyvit.sim.run import Executor
    from qhyvit.verify.decide import simulated_codes

    if plan is not None:
        typed = lower(graph, plan).graph
        entry, end = (typed.tensors[t].quantization for t in (typed.inputs[0], typed.outputs[0]))
        assert entry is not None
        assert end is not None
        codes = to_codes(np.asarray(images), entry.scale[0], entry.zero_point, grid()).astype(np.int8)
        steps: np.ndarray = simulated_codes(typed, [x[None] for x in codes]) - end.zero_point
        return steps * end.scale[0]
    executor = Executor(graph, torch.float64, exact=True)
    feeds = torch.split(torch.from_numpy(np.asarray(images, np.float64)), AT_ONCE)
    with torch.no_grad():
        found: np.ndarray = torch.cat([executor.logits(x) for x in feeds]).numpy()
    return found

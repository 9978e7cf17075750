"""SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND as RESHAPE, TRANSPOSE and RESHAPE, with PAD in front or SLICE behind.

XNNPACK has kernels for these, and scales move through them.
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def _unfolded(graph: Graph, node: Node) -> Graph:
    (high, wide), pads = (graph.constant(t).tolist() for t in node.inputs[1:])
    chain, x = Chain(graph, node), node.inputs[0]
    if np.any(pads):
        x = chain.add("PAD", x, chain.constant([[0, 0], *pads, [0, 0]]))
    batch, height, width, channels = chain.graph.tensors[x].shape
    rows, columns = height // high, width // wide
    if batch == 1:  # five axes are quicker than six
        x = chain.transpose(chain.reshape(x, rows, high, columns, wide, channels), 1, 3, 0, 2, 4)
    else:
        x = chain.transpose(chain.reshape(x, batch, rows, high, columns, wide, channels), 2, 4, 0, 1, 3, 5)
    return chain.replaced_by(chain.reshape(x, *graph.tensors[node.outputs[0]].shape))


def _folded(graph: Graph, node: Node) -> Graph:
    (high, wide), crops = (graph.constant(t).tolist() for t in node.inputs[1:])
    chain, x = Chain(graph, node), node.inputs[0]
    many, rows, columns, channels = graph.tensors[x].shape
    batch = many // (high * wide)
    if batch == 1:
        x = chain.transpose(chain.reshape(x, high, wide, rows, columns, channels), 2, 0, 3, 1, 4)
    else:
        x = chain.transpose(chain.reshape(x, high, wide, batch, rows, columns, channels), 2, 3, 0, 4, 1, 5)
    x = chain.reshape(x, batch, rows * high, columns * wide, channels)
    if np.any(crops):
        begin, shape = [0, crops[0][0], crops[1][0], 0], graph.tensors[node.outputs[0]].shape
        x = chain.add("SLICE", x, chain.constant(begin), chain.constant(shape))
    return chain.replaced_by(x)


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same copies."""
    for node in graph.nodes:
        if node.op == "SPACE_TO_BATCH_ND":
            graph = _unfolded(graph, node)
        elif node.op == "BATCH_TO_SPACE_ND":
            graph = _folded(graph, node)
    return graph


PASS = Pass("batches_as_copies", "SPACE_TO_BATCH_ND, BATCH_TO_SPACE_ND as copies", apply)

"""A product with a constant for each matrix of a batch is a convolution with groups: one group a matrix.

As an operand the constant would have one scale for all; a convolution's weights have
a scale a channel. With one matrix for all it is a layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def _rows(chain: Chain, tensor: int, turn: bool) -> int:
    """``tensor`` with its last two axes exchanged, or as it is."""
    return chain.transpose(tensor) if turn else tensor


def _layer(chain: Chain, rows: int, weight: NDArray[np.float32]) -> int:
    """[.., M, K] times the weights [B, N, K], a matrix each or one for all: [.., M, N]."""
    (batch, outputs, depth), shape = weight.shape, chain.graph.tensors[rows].shape
    if batch == 1:
        return chain.add("FULLY_CONNECTED", rows, chain.constant(weight[0]), -1, keep_num_dims=True)
    count = shape[-2]
    x = chain.transpose(chain.reshape(rows, batch, count, depth), 1, 0, 2)
    kernel = chain.constant(weight.reshape(batch * outputs, 1, 1, depth))
    bias = chain.constant(np.zeros(batch * outputs, np.float32))
    y = chain.add("CONV_2D", chain.reshape(x, 1, count, 1, batch * depth), kernel, bias, padding="VALID")
    y = chain.transpose(chain.reshape(y, count, batch, outputs), 1, 0, 2)
    return chain.reshape(y, *shape[:-1], outputs)


def _constant(graph: Graph, node: Node) -> int | None:
    """The position of the constant operand, where its matrices are one for all or one for each of the other's."""
    if node.op != "BATCH_MATMUL":
        return None
    known = [i for i, t in enumerate(node.inputs) if graph.tensors[t].is_constant]
    if len(known) != 1:
        return None
    own, other = (graph.tensors[node.inputs[i]].shape[:-2] for i in (known[0], 1 - known[0]))
    trimmed = [tuple(n for n in shape if n > 1) for shape in (own, other)]
    return known[0] if trimmed[0] in ((), trimmed[1]) and len(own) <= len(other) else None


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same sums."""
    for node in graph.nodes:
        position = _constant(graph, node)
        if position is None:
            continue
        chain, data = Chain(graph, node), graph.constant(node.inputs[position])
        matrices = data.reshape(-1, *data.shape[-2:])
        if position == 1:  # x w: the weights by rows, [N, K]
            weight = matrices if node.attrs.adj_y else matrices.transpose(0, 2, 1)
            made = _layer(chain, _rows(chain, node.inputs[0], node.attrs.adj_x), weight)
        else:  # w x = (x^T w^T)^T
            weight = matrices.transpose(0, 2, 1) if node.attrs.adj_x else matrices
            made = _rows(chain, _layer(chain, _rows(chain, node.inputs[1], not node.attrs.adj_y), weight), True)
        graph = chain.replaced_by(made)
    return graph


PASS = Pass("batched_layers", "products with constants are layers", apply, after=("constant_product",))

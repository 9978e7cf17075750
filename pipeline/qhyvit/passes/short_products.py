"""A row's product with a column that is longer than the target takes, as several products and their sum.

Vela takes at most 65,536 products for one result on U55 and U65. The norm over a whole map is such a row: its sum of
squares adds up in 32 bits, part by part.
"""

from __future__ import annotations

import math

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass
from qhyvit.targets import Target


def _length(graph: Graph, node: Node) -> int:
    """How many products a BATCH_MATMUL of one row and one column adds up; 0: it is another."""
    if node.op != "BATCH_MATMUL" or node.attrs.adj_x:
        return 0
    out, row, column = (graph.tensors[t].shape for t in (node.outputs[0], *node.inputs))
    one = math.prod(out) == 1 and math.prod(row) == math.prod(column) == row[-1]
    return row[-1] if one else 0


def _in_parts(graph: Graph, node: Node, length: int, longest: int) -> Graph:
    parts = next(n for n in range(-(-length // longest), length + 1) if length % n == 0)
    chain = Chain(graph, node)
    row = chain.reshape(node.inputs[0], parts, 1, length // parts)
    # a row's product with itself stays one: its operands are the same tensor
    other = row if node.inputs[0] == node.inputs[1] else chain.reshape(node.inputs[1], parts, 1, length // parts)
    products = chain.add("BATCH_MATMUL", row, other, adj_y=True)
    return chain.replaced_by(chain.add("SUM", products, chain.constant([0]), keep_dims=True))


def apply(graph: Graph, target: Target | None = None) -> Graph:
    """Value-preserving: the same sum."""
    longest = None if target is None else target.longest_product
    if longest is None:
        return graph
    for node in graph.nodes:
        if (length := _length(graph, node)) > longest:
            graph = _in_parts(graph, node, length, longest)
    return graph


PASS = Pass(
    "short_products",
    "no product of one row and one column that is longer than the target takes",
    apply,
    after=("layer_norms", "matrix_product", "own_right_operand", "right_rows"),
    only=lambda target: target.longest_product is not None,
    targeted=apply,
)

"""A float root of a mean of int8 codes gets a least operand.

The mean may be 0 where it never is in float, all codes of a token being 0; 1 / sqrt(0) times 0 is no number. A norm
whose eps lies elsewhere in the float graph has nothing to keep it from that. An int8 root gives its highest code.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.rewrites._rewrite import Rewrite

LEAST = 1e-12  # far below what any norm's statistics are, and its root far from float32's limits


def _is_bare(graph: Graph, root: Node) -> bool:
    """Whether ``root`` is that of a mean with nothing added."""
    made = graph.producer(root.inputs[0])
    return root.op == "RSQRT" and made is not None and made.op == "MEAN"


def apply(graph: Graph) -> Graph:
    """Value-preserving but where the operand is of the size of ``LEAST``."""
    for root in graph.nodes:
        if not _is_bare(graph, root):
            continue
        source = graph.tensors[root.inputs[0]]
        least = np.full(source.shape, LEAST, np.float32)
        graph, constant = edit.add_tensor(graph, f"{source.name}:least", least.shape, source.dtype, least)
        graph, guarded = edit.add_tensor(graph, f"{source.name}.guarded", source.shape, source.dtype)
        add = Node("ADD", ElementwiseAttrs(), (source.id, constant), (guarded,), root.block)
        graph = edit.insert_before(graph, root, add)
        graph = edit.replace_node(graph, root, replace(root, inputs=(guarded,)))
    return graph


REWRITE = Rewrite("guarded_roots", "float roots of means have an operand above 0", apply, only="cpu")

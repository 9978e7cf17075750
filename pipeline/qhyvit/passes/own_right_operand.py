"""A matrix product's right operand gets a range of its own where the same values are read elsewhere too.

XNNPACK wants zero point 0 on the right; where the operand comes from an elementwise op whose result has other
readers, those would share the symmetric range. Computing the op twice costs microseconds and frees them.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import copying, spec
from qhyvit.ops.shared.spec import Copies
from qhyvit.passes.shared.graph_pass import Pass

COPIES = copying(Copies.ONCE)
CHEAP = ("ADD", "SUB")


def _chain(graph: Graph, tensor: int) -> list[Node] | None:
    """The elementwise op behind ``tensor`` and the copies after it; None where it is something else."""
    node = graph.producer(tensor)
    if node is None:
        return None
    if node.op in CHEAP:
        return [node]
    if node.op not in COPIES:
        return None
    before = _chain(graph, node.inputs[0])
    return None if before is None else [*before, node]


def _right_readers(graph: Graph, tensor: int) -> list[Node]:
    """The nodes that want ``tensor`` symmetric."""
    return [n for n in graph.users(tensor) if any(n.inputs[i] == tensor for i in spec(n.op).symmetric_inputs)]


def _is_alone(graph: Graph, chain: list[Node]) -> bool:
    """Whether nobody else reads the chain's tensors."""
    *before, last = chain
    tensor = last.outputs[0]
    only_right = all(
        i in spec(n.op).symmetric_inputs for n in graph.users(tensor) for i, t in enumerate(n.inputs) if t == tensor
    )
    return only_right and all(len(graph.users(n.outputs[0])) == 1 for n in before)


def _is_sum_of_squares(graph: Graph, node: Node) -> bool:
    """A row times itself: thousands of rounding errors average out, so both operands take the same codes."""
    return node.inputs[0] == node.inputs[1] and graph.tensors[node.outputs[0]].shape[-2:] == (1, 1)


def _own(graph: Graph, tensor: int) -> Graph:
    chain, readers = _chain(graph, tensor), _right_readers(graph, tensor)
    if chain is None or _is_alone(graph, chain):
        return graph
    previous = -1
    for node in chain:
        old = graph.tensors[node.outputs[0]]
        graph, copy = edit.add_tensor(graph, f"{old.name}.right", old.shape, old.dtype)
        inputs = node.inputs if previous < 0 else (previous, *node.inputs[1:])
        graph = edit.insert_before(graph, readers[0], replace(node, inputs=inputs, outputs=(copy,)))
        previous = copy
    for reader in readers:
        wanted = range(2) if _is_sum_of_squares(graph, reader) else spec(reader.op).symmetric_inputs
        inputs = tuple(previous if t == tensor and i in wanted else t for i, t in enumerate(reader.inputs))
        graph = edit.replace_node(graph, reader, replace(reader, inputs=inputs))
    for node in chain[1:]:  # copies that nobody reads any more
        if not graph.users(node.outputs[0]) and node.outputs[0] not in graph.outputs:
            graph = edit.remove_node(graph, node)
    return graph


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same arithmetic, twice; products with the same right operand share the second one."""
    rights = [node.inputs[i] for node in graph.nodes for i in spec(node.op).symmetric_inputs]
    for tensor in dict.fromkeys(rights):
        graph = _own(graph, tensor)
    return graph


PASS = Pass(
    "own_right_operand",
    "symmetric right operands do not force their range on other readers",
    apply,
    after=("bias_in_layer", "few_rows", "layer_norms", "matrix_product", "prescribed_ranges", "rectifiers"),
)

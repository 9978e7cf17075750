"""Partial quantization, as the paper's main table counts it: only what convolutions, linears and matmuls read.

Norms, softmax, activation functions, sums and biases stay float. It is no file: TFLite would need float islands all
over; it exists to compare with published figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qhyvit.errors import GraphError
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import copying, spec
from qhyvit.ops.reshape import ReshapeAttrs
from qhyvit.ops.shared.copies import copied
from qhyvit.ops.shared.spec import Copies
from qhyvit.plan import TensorQuant

COPIES = copying(Copies.ONCE)


def _origin(graph: Graph, tensor: int) -> int:
    """The value that ``tensor`` copies, with a SUB that was made twice counted as one."""
    node = graph.producer(tensor)
    if node is not None and node.op in COPIES:
        return _origin(graph, node.inputs[0])
    return min(
        (n.outputs[0] for n in graph.nodes if n.op == "SUB" and node and n.inputs == node.inputs), default=tensor
    )


def _axis(graph: Graph, tensor: int, axis: int) -> int:
    """Where ``axis`` of the value that ``tensor`` copies lies in ``tensor``.

    Raises:
        GraphError: nowhere: a reshape has mixed it with its neighbours.
    """
    node = graph.producer(tensor)
    if node is None or node.op not in COPIES:
        return axis
    axis = _axis(graph, node.inputs[0], axis)
    (places,) = copied(graph, node, np.indices(graph.tensors[node.inputs[0]].shape)[axis])
    for i, own in enumerate(np.indices(places.shape)):
        if np.array_equal(places, own):
            return i
    raise GraphError(f"{graph.tensors[tensor].name}: channels with scales of their own are mixed by a {node.op}")


def _quant_of(graph: Graph, quants: Mapping[str, TensorQuant], tensor: int) -> TensorQuant | None:
    """How ``tensor`` is quantized: by itself, or as what it copies."""
    own = quants.get(graph.tensors[tensor].name)
    if own is not None:
        return own
    quant = quants.get(graph.tensors[_origin(graph, tensor)].name)
    if quant is None or quant.axis is None:
        return quant
    return replace(quant, axis=_axis(graph, tensor, quant.axis))


def counted(graph: Graph, node: Node) -> list[int]:
    """Positions of the operands that count: those of layers and of matmuls, but no norm's sum of squares."""
    if spec(node.op).weight_input >= 0:
        return [spec(node.op).data_input]
    if node.op != "BATCH_MATMUL" or _origin(graph, node.inputs[0]) == _origin(graph, node.inputs[1]):
        return []
    return [i for i in (0, 1) if not graph.tensors[node.inputs[i]].is_constant]


def partial(graph: Graph, quants: Mapping[str, TensorQuant]) -> tuple[Graph, dict[str, TensorQuant]]:
    """A graph where each counted operand is read through a copy, and the quantization of those copies and weights."""
    kept = {n: quants[n] for n in (graph.tensors[w].name for w in _weights(graph)) if n in quants}
    for original in graph.nodes:
        node = original
        for position in counted(graph, original):
            source = graph.tensors[node.inputs[position]]
            quant = _quant_of(graph, quants, source.id)
            if quant is None:
                continue
            shape = np.array(source.shape, np.int32)
            graph, wanted = edit.add_tensor(graph, f"{source.name}.read:shape", shape.shape, "INT32", shape)
            graph, copy = edit.add_tensor(graph, f"{source.name}.read", source.shape, source.dtype)
            reshape = Node("RESHAPE", ReshapeAttrs(), (source.id, wanted), (copy,), node.block)
            graph = edit.insert_before(graph, node, reshape)
            new = replace(node, inputs=tuple(copy if i == position else t for i, t in enumerate(node.inputs)))
            graph, node = edit.replace_node(graph, node, new), new
            kept[graph.tensors[copy].name] = quant
    return graph, kept


def _weights(graph: Graph) -> list[int]:
    return [n.inputs[spec(n.op).weight_input] for n in graph.nodes if spec(n.op).weight_input >= 0]

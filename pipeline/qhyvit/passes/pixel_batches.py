"""Patches unfold by SPACE_TO_BATCH_ND and fold by BATCH_TO_SPACE_ND.

The converter writes RESHAPE [1, H, W, C] -> [H / h, h, W / w, w, C], TRANSPOSE to [h, w, H / h, W / w, C] and RESHAPE
to tokens. Each of the h * w positions of a patch as an image of its own is the same: one op and the RESHAPE to tokens.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.spec import NoAttrs
from qhyvit.passes.shared.graph_pass import Pass, Phase

UNFOLD, FOLD = [1, 3, 0, 2, 4], [2, 0, 3, 1, 4]


def _alone(graph: Graph, tensor: int, op: str) -> Node | None:
    """The one reader of ``tensor``, if it is such an op."""
    users = graph.users(tensor)
    return users[0] if len(users) == 1 and users[0].op == op and tensor not in graph.outputs else None


def _block(graph: Graph, name: str, sizes: tuple[int, int]) -> tuple[Graph, tuple[int, int]]:
    """The two constants of the op: block sizes, and no padding."""
    graph, size = edit.add_tensor(graph, f"{name}:block", (2,), "INT32", np.array(sizes, np.int32))
    graph, none = edit.add_tensor(graph, f"{name}:none", (2, 2), "INT32", np.zeros((2, 2), np.int32))
    return graph, (size, none)


def _unfolded(graph: Graph, first: Node, turn: Node, last: Node) -> Graph:
    source, out = graph.tensors[first.inputs[0]], graph.tensors[turn.outputs[0]]
    rows, high, columns, wide, channels = graph.tensors[first.outputs[0]].shape
    if source.shape != (1, rows * high, columns * wide, channels):
        return graph
    graph, constants = _block(graph, out.name, (high, wide))
    graph, images = edit.add_tensor(graph, f"{out.name}.images", (high * wide, rows, columns, channels), out.dtype)
    made = Node("SPACE_TO_BATCH_ND", NoAttrs(), (source.id, *constants), (images,), turn.block)
    graph = edit.replace_node(graph, turn, made)
    graph = edit.replace_node(graph, last, replace(last, inputs=(images, *last.inputs[1:])))
    return edit.remove_node(graph, first)


def _folded(graph: Graph, first: Node, turn: Node, last: Node) -> Graph:
    before, out = graph.tensors[first.outputs[0]], graph.tensors[last.outputs[0]]
    high, wide, rows, columns, channels = before.shape
    if out.shape != (1, rows * high, columns * wide, channels):
        return graph
    graph, constants = _block(graph, out.name, (high, wide))
    shape = (high * wide, rows, columns, channels)
    graph, shape_id = edit.add_tensor(graph, f"{before.name}.images:shape", (4,), "INT32", np.array(shape, np.int32))
    graph, images = edit.add_tensor(graph, f"{before.name}.images", shape, before.dtype)
    attrs = replace(first.attrs, new_shape=shape)
    tokens = replace(first, attrs=attrs, inputs=(first.inputs[0], shape_id), outputs=(images,))
    made = Node("BATCH_TO_SPACE_ND", NoAttrs(), (images, *constants), last.outputs, last.block)
    graph = edit.replace_node(edit.replace_node(graph, first, tokens), last, made)
    return edit.remove_node(graph, turn)


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same copies."""
    for turn in graph.nodes:
        if turn.op != "TRANSPOSE":
            continue
        axes = graph.constant(turn.inputs[1]).tolist()
        first, last = graph.producer(turn.inputs[0]), _alone(graph, turn.outputs[0], "RESHAPE")
        if first is None or first.op != "RESHAPE" or last is None:
            continue
        if _alone(graph, first.outputs[0], "TRANSPOSE") is not turn:
            continue
        if axes == UNFOLD:
            graph = _unfolded(graph, first, turn, last)
        elif axes == FOLD:
            graph = _folded(graph, first, turn, last)
    return graph


PASS = Pass(
    "pixel_batches",
    "patches unfold and fold by one op and a RESHAPE",
    apply,
    phase=Phase.EXPORT,
    after=("channel_order", "exponentials"),
)

"""Large float softmaxes in parts: attention is computed for a quarter of its batch (positions, heads) at a time.

Scores of 16 x 256 x 256 are four megabytes in float, more than a core's second-level cache holds; DEQUANTIZE, SOFTMAX
and QUANTIZE each pass them through the third. A quarter of them stays. Each part has scores of its own, and so a scale
of its own. Only where softmax is float (the profile ``cpu``): in int8 they are a quarter of the size from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import SIZES, Sizes
from qhyvit.ops import spec
from qhyvit.passes.shared.graph_pass import Pass

PARTS = 4  # XNNPACK's SPLIT makes no more


@dataclass(frozen=True)
class _Attention:
    """Scores, their softmax, and the values mixed by it."""

    scores: Node
    softmax: Node
    mixed: Node

    @property
    def operands(self) -> tuple[int, int, int]:
        """Queries, keys, values: what is split."""
        return self.scores.inputs[0], self.scores.inputs[1], self.mixed.inputs[1]


def _only_user(graph: Graph, tensor: int) -> Node | None:
    users = graph.users(tensor)
    return users[0] if len(users) == 1 and tensor not in graph.outputs else None


def _attention(graph: Graph, softmax: Node, cached: int) -> _Attention | None:
    """The attention around a large softmax, if its batch can be divided."""
    shape = graph.tensors[softmax.outputs[0]].shape
    scores, mixed = graph.producer(softmax.inputs[0]), _only_user(graph, softmax.outputs[0])
    if scores is None or mixed is None or _only_user(graph, softmax.inputs[0]) is not softmax:
        return None
    if scores.op != "BATCH_MATMUL" or mixed.op != "BATCH_MATMUL" or mixed.inputs[0] != softmax.outputs[0]:
        return None
    found = _Attention(scores, softmax, mixed)
    batches = {graph.tensors[t].shape[0] if len(graph.tensors[t].shape) == len(shape) else 1 for t in found.operands}
    fits = len(shape) > 2 and batches == {shape[0]} and shape[0] % PARTS == 0
    dynamic = not any(graph.tensors[t].is_constant for t in found.operands)
    return found if fits and dynamic and math.prod(shape) >= cached else None


class _Editor:
    """New nodes in front of one that is there."""

    def __init__(self, graph: Graph, before: Node) -> None:
        self.graph, self.before = graph, before

    def part_of(self, tensor: int, label: str) -> int:
        """A new tensor: one of the parts of ``tensor`` along its first axis."""
        whole = self.graph.tensors[tensor]
        shape = (whole.shape[0] // PARTS, *whole.shape[1:])
        self.graph, new = edit.add_tensor(self.graph, f"{whole.name}.{label}", shape, whole.dtype)
        return new

    def add(self, node: Node) -> None:
        """Put ``node`` in front."""
        self.graph = edit.insert_before(self.graph, self.before, node)

    def split(self, tensor: int) -> tuple[int, ...]:
        """The parts of a tensor."""
        name = self.graph.tensors[tensor].name
        axis = np.array(0, np.int32)
        self.graph, axis_id = edit.add_tensor(self.graph, f"{name}.parts:axis", (), "INT32", axis)
        parts = tuple(self.part_of(tensor, f"part{i}") for i in range(PARTS))
        self.add(Node("SPLIT", spec("SPLIT").attrs(num_splits=PARTS), (axis_id, tensor), parts, self.before.block))
        return parts

    def again(self, node: Node, inputs: tuple[int, ...], number: int) -> int:
        """``node`` for one part; returns its output."""
        out = self.part_of(node.outputs[0], f"part{number}")
        self.add(replace(node, inputs=inputs, outputs=(out,)))
        return out


def _in_parts(graph: Graph, attention: _Attention) -> Graph:
    editor = _Editor(graph, attention.mixed)
    split = {t: editor.split(t) for t in dict.fromkeys(attention.operands)}
    parts = []
    for i in range(PARTS):
        query, key, value = (split[t][i] for t in attention.operands)
        scores = editor.again(attention.scores, (query, key), i)
        softmax = editor.again(attention.softmax, (scores,), i)
        parts.append(editor.again(attention.mixed, (softmax, value), i))
    mixed = attention.mixed
    joined = Node("CONCATENATION", spec("CONCATENATION").attrs(axis=0), tuple(parts), mixed.outputs, mixed.block)
    graph = edit.replace_node(editor.graph, mixed, joined)
    for node in (attention.softmax, attention.scores):
        graph = edit.remove_node(graph, node)
    return graph


def apply(graph: Graph, sizes: Sizes = SIZES) -> Graph:
    """Value-preserving: every batch is computed by itself as before."""
    for node in graph.nodes:
        attention = _attention(graph, node, sizes.cached) if node.op == "SOFTMAX" else None
        if attention is not None:
            graph = _in_parts(graph, attention)
    return graph


PASS = Pass(
    "attention_parts",
    "large float softmaxes in parts that a cache holds",
    apply,
    only=lambda target: target.floats,
    after=("right_rows",),
    sized=apply,
)

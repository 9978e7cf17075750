"""New nodes in front of one that is there, one line each; shapes come from the ops' own rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import INT8, Graph, Node
from qhyvit.ops import spec


def swap(rank: int) -> list[int]:
    """The order of axes in which the last two are exchanged."""
    return [*range(rank - 2), rank - 1, rank - 2]


class Chain:
    """Puts nodes in front of ``anchor``; ``graph`` is the graph as it then is.

    Names of new tensors begin with that of what ``anchor`` gives. ``alike``: the new nodes compute in its types and not
    in int8.
    """

    def __init__(self, graph: Graph, anchor: Node, *, alike: bool = False) -> None:
        self.graph, self.anchor = graph, anchor
        self.types = (anchor.reads, anchor.writes) if alike else (INT8, INT8)
        self.name = graph.tensors[anchor.outputs[0]].name

    def constant(self, data: Any) -> int:
        """A constant's id: floats become float32, integers int32."""
        array = np.asarray(data)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
        self.graph, t = edit.add_tensor(self.graph, f"{self.name}:in", array.shape, array.dtype.name.upper(), array)
        return t

    def add(self, op: str, *inputs: int, **attrs: Any) -> int:
        """The id of what an op with one output makes of ``inputs``; of constants alone it is computed here."""
        made, options = spec(op), spec(op).attrs(**attrs)
        read = [self.graph.tensors[t] for t in inputs if t >= 0]
        if all(t.is_constant for t in read) and made.weight_input < 0:
            floats = [t.data if t.data.dtype.kind != "f" else torch.from_numpy(t.data)[None] for t in read]  # type: ignore[union-attr]
            return self.constant(made.forward(floats, options)[0].numpy())
        known = [t.data if t.data is not None and t.data.dtype.kind != "f" else None for t in read]
        shape: Any = made.infer_shape([t.shape for t in read], options, known)
        dtype = next(t.dtype for t in read if t.dtype == "FLOAT32")
        self.graph, out = edit.add_tensor(self.graph, f"{self.name}.{op.lower()}", shape, dtype)
        node = Node(op, options, inputs, (out,), self.anchor.block, *self.types)
        self.graph = edit.insert_before(self.graph, self.anchor, node)
        return out

    def reshape(self, tensor: int, *shape: int) -> int:
        """The id of ``tensor`` in another shape."""
        return self.add("RESHAPE", tensor, self.constant(shape), new_shape=shape)

    def transpose(self, tensor: int, *axes: int) -> int:
        """The id of ``tensor`` with its axes in this order; without ``axes`` the last two are exchanged."""
        return self.add("TRANSPOSE", tensor, self.constant(axes or swap(len(self.graph.tensors[tensor].shape))))

    def instead(self, op: str, *inputs: int, **attrs: Any) -> Graph:
        """The graph with such an op in the place of ``anchor``, without what nobody reads any more."""
        anchor = self.anchor
        types = anchor.reads, anchor.writes
        new = Node(op, spec(op).attrs(**attrs), inputs, anchor.outputs, anchor.block, *types)
        return edit.without_unread(edit.replace_node(self.graph, self.anchor, new))

    def replaced_by(self, tensor: int) -> Graph:
        """The graph with what was put in front, up to ``tensor``, in the place of ``anchor``, in its shape."""
        out, last = self.graph.tensors[self.anchor.outputs[0]], self.graph.producer(tensor)
        assert last is not None
        if self.graph.tensors[tensor].shape != out.shape:
            return self.instead("RESHAPE", tensor, self.constant(out.shape), new_shape=out.shape)
        anchor = self.anchor
        made = replace(last, outputs=anchor.outputs, reads=anchor.reads, writes=anchor.writes)
        graph = edit.replace_node(self.graph, last, made)
        nodes = tuple(n for n in graph.nodes if n is not anchor)
        left = {t: v for t, v in graph.tensors.items() if t != tensor}
        return edit.without_unread(replace(graph, nodes=nodes, tensors=left))

"""Arrays moved as an op that only copies values moves these, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec


def copied(graph: Graph, node: Node, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """What ``node``, which only copies values (``OpSpec.copies``), makes of ``values`` in its activation's place."""
    given: list[Any] = [None if t < 0 else graph.tensors[t].data for t in node.inputs]
    given[given.index(None)] = torch.tensor(values)[None]
    found = spec(node.op).forward(given, node.attrs)
    return tuple(y[0].numpy() for y in (found if isinstance(found, tuple) else (found,)))


def copied_back(graph: Graph, node: Node, values: np.ndarray) -> np.ndarray:
    """What ``node``, which copies each value once, made ``values`` of."""
    shape = graph.tensors[node.inputs[0]].shape
    (places,) = copied(graph, node, np.arange(values.size).reshape(shape))
    found = np.empty(values.size, values.dtype)
    found[places.ravel()] = values.ravel()
    return found.reshape(shape)

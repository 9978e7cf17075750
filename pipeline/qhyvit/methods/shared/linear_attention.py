"""One scale a head and a channel for attention without softmax, in its layers' weights.

Linear attention with a rectifier is (q @ (k^T @ v)) / (q @ sum of k), q and k at least 0 (EfficientViT, Cai et al.,
arXiv 2205.14756, section 3.1). Its heads have values of very different size, and a quotient does not care: where one
scale serves the whole tensor, small heads are left without codes. The layers before and behind take these up exactly:

- channel c of q is divided by its peak p_c, and that of k multiplied with it;
- all of k, a head, is divided by the peak of the head's divisor: it then has the same peak in every head;
- channels of v are divided by their peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from qhyvit.folds.shared.ahead import led
from qhyvit.folds.shared.scale import CannotScaleError, Scale, Scaling
from qhyvit.folds.shared.scaling import solve
from qhyvit.graph.ir import Graph, Node
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import copying, spec
from qhyvit.ops.shared.copies import copied_back
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.ops.shared.spec import Copies
from qhyvit.sim.checked import Edit
from qhyvit.sim.run import Executor

PASSED = copying(Copies.ONCE)
LEAST = 2.0**-4  # of a head's largest channel: what is smaller is not enlarged further


@dataclass(frozen=True)
class LinearAttention:
    """The tensors of one attention, by id.

    ``q``, ``k``, ``v``: as a layer or a SPLIT gives them; ``queries``: q where products read it, [.., tokens,
    channels]; ``sums``: what sums k over the tokens; ``divisor``: the product of both; ``values``: v where the product
    with k reads it, and ``tokens``: its axis of them; ``guarded``: the divisor with an eps, or itself.
    """

    q: int
    k: int
    v: int
    queries: int
    sums: Node
    divisor: Node
    values: int
    tokens: int
    guarded: int

    @property
    def quotient(self) -> tuple[int, int]:
        """The tensors that divide."""
        return self.divisor.outputs[0], self.guarded

    @property
    def watched(self) -> tuple[int, ...]:
        """The tensors whose peaks are wanted."""
        return self.queries, self.sums.inputs[0], self.divisor.outputs[0], self.values


def _origin(graph: Graph, tensor: int) -> int | None:
    """What a layer or a SPLIT gave, of which ``tensor`` is made by copies and rectifiers; None: by others too."""
    node = graph.producer(tensor)
    while node is not None and node.op in PASSED | {"RELU"}:
        tensor = node.inputs[0]
        node = graph.producer(tensor)
    return tensor if node is not None and (node.op == "SPLIT" or spec(node.op).layer is not None) else None


def _behind_copies(graph: Graph, tensor: int, op: str) -> Node | None:
    """The node of type ``op`` that made the values of ``tensor``, copied since or not."""
    node = graph.producer(tensor)
    while node is not None and node.op in PASSED:
        node = graph.producer(node.inputs[0])
    return node if node is not None and node.op == op else None


def attentions(graph: Graph) -> list[LinearAttention]:
    """All of the graph."""
    return [a for node in graph.nodes if node.op == "BATCH_MATMUL" for a in _of(graph, node)]


def _of(graph: Graph, divisor: Node) -> list[LinearAttention]:
    """That whose divisor ``divisor`` computes."""
    queries, right = divisor.inputs
    sums = _behind_copies(graph, right, "SUM")
    others = [n for n in graph.users(queries) if n is not divisor]
    if sums is None or divisor.attrs.adj_x or len(others) != 1 or others[0].op != "BATCH_MATMUL":
        return []
    both = _behind_copies(graph, others[0].inputs[1], "BATCH_MATMUL")
    q, k = _origin(graph, queries), _origin(graph, sums.inputs[0])
    if both is None or others[0].inputs[0] != queries:
        return []
    for position, t in enumerate(both.inputs):
        v, is_k = _origin(graph, t), _origin(graph, both.inputs[1 - position]) == k
        if is_k and q is not None and k is not None and v is not None and len({q, k, v}) == 3:
            transposed = both.attrs.adj_x if position == 0 else not both.attrs.adj_y
            tokens = -2 if transposed else -1
            return [LinearAttention(q, k, v, queries, sums, divisor, t, tokens, _guarded(graph, divisor.outputs[0]))]
    return []


def _guarded(graph: Graph, tensor: int) -> int:
    """``tensor`` behind copies and an ADD, as far as nothing else reads it."""
    users = graph.users(tensor)
    if len(users) == 1 and users[0].op in PASSED:
        return _guarded(graph, users[0].outputs[0])
    return users[0].outputs[0] if len(users) == 1 and users[0].op == "ADD" else tensor


def _moved_back(graph: Graph, r: Scale, tensor: int, origin: int) -> Scale:
    """The scale of ``origin``, of which ``tensor``, with the scale r, was made by copies and rectifiers."""
    r = np.broadcast_to(r, graph.tensors[tensor].shape)
    while tensor != origin:
        node = graph.producer(tensor)
        assert node is not None
        r = r if node.op == "RELU" else copied_back(graph, node, r)
        tensor = node.inputs[0]
    return r


def _floored(peaks: np.ndarray, axis: int) -> np.ndarray:
    """Peaks of channels, none too far below the largest of its head."""
    found: np.ndarray = np.maximum(np.maximum(peaks, LEAST * peaks.max(axis, keepdims=True)), 1e-12)
    return found


def scales(graph: Graph, attention: LinearAttention, peaks: dict[int, np.ndarray]) -> dict[int, Scale]:
    """What q, k and v are divided by; ``peaks``: largest absolute value at each position of the watched tensors."""
    sums, divisor = attention.sums, attention.divisor
    of_q = _floored(peaks[attention.queries].max(-2, keepdims=True), -1)  # [.., 1, channels]
    of_heads = np.maximum(peaks[divisor.outputs[0]].max((-2, -1), keepdims=True), 1e-12)
    factor = of_heads / (of_q if divisor.attrs.adj_y else of_q.swapaxes(-1, -2))  # as the divisor reads the sums
    shape = graph.tensors[sums.inputs[0]].shape
    axes = axes_of(graph.constant(sums.inputs[1]), len(shape))
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    of_k = _moved_back(graph, factor, divisor.inputs[1], sums.outputs[0]).reshape(kept)
    of_k = of_k * (peaks[sums.inputs[0]] / of_k).max()  # the peaks of q, k and v are 1: one scale may serve all three
    of_v = _floored(peaks[attention.values].max(attention.tokens, keepdims=True), -3 - attention.tokens)
    given = (
        (of_q, attention.queries, attention.q), (of_k, sums.inputs[0], attention.k),
        (of_v, attention.values, attention.v),
    )  # fmt: skip
    return {origin: _moved_back(graph, r, seen, origin) for r, seen, origin in given}


def scaled(graph: Graph, given: dict[int, Scale]) -> Graph | None:
    """The graph with tensors divided by their scales and neighbours that take these up; None where they cannot."""
    try:
        ahead = led(graph, given)
        scaling = Scaling(ahead.graph, taken=frozenset(ahead.taken), tensors=ahead.tensors, queue=ahead.layers)
        for t in given:
            made = graph.producer(t)
            if made is None or made.op != "SPLIT":
                scaling.queue.append(t)
                continue
            axis = int(graph.constant(made.inputs[0]).item())
            parts = [np.broadcast_to(given.get(out, np.ones(())), graph.tensors[out].shape) for out in made.outputs]
            scaling.want(made.inputs[1], np.concatenate(parts, axis))
        solve(scaling)
        return scaling.result()
    except CannotScaleError:
        return None


def balanced(problem: Problem) -> Problem:
    """The problem with all linear attentions in such scales, by their peaks on the calibration images."""
    found = attentions(problem.graph)
    if not found:
        return problem
    peaks = _peaks(problem, [t for attention in found for t in attention.watched])
    given = [scales(problem.graph, attention, peaks) for attention in found]
    names = [problem.graph.tensors[attention.divisor.outputs[0]].name for attention in found]
    edits = [
        Edit(f"scales of the linear attention at {n}", partial(scaled, given=r))
        for n, r in zip(names, given, strict=True)
    ]
    problem, done = problem.edited(edits)
    problem.log(f"{sum(done)} of {len(found)} linear attentions have one scale a head and a channel")
    return problem


def _peaks(problem: Problem, tensors: Sequence[int]) -> dict[int, np.ndarray]:
    """Largest absolute value at each position of each tensor over the calibration images, in its shape."""
    executor, found = Executor(problem.graph, exact=True), dict[int, torch.Tensor]()
    for values in problem.values(executor, tensors):
        for t, x in values.items():
            peak = x.abs().amax(0)
            found[t] = torch.maximum(found[t], peak) if t in found else peak
    return {t: found[t].double().numpy() for t in tensors}

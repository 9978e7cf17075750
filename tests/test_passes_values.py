"""Each pass by itself, and all in their order, leave what generated graphs compute as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit.graph.ir import Graph
from qhyvit.passes import all_passes, passes_of
from qhyvit.passes.shared.graph_pass import Phase
from qhyvit.sim.run import Executor
from tests._graphs import PIECES, Builder, Piece
from tests._targets import KINDS

CLOSE = 1e-5  # of the largest output: constants are held in float32


def _positive(b: Builder, x: int) -> int:
    return b.add("ADD", b.add("ABS", x), b.number(0.5))


def _length(b: Builder, x: int) -> int:
    squares = b.add("SUM", b.add("MUL", x, x), b.integers(len(b.shape(x)) - 1), keep_dims=True)
    return b.add("MAXIMUM", b.add("SQRT", squares), b.number(1e-6))


def _flat_linear(b: Builder, x: int) -> int:
    shape = b.shape(x)
    return b.reshape(b.linear(b.reshape(x, int(np.prod(shape[:-1])), shape[-1]), 5), *shape[:-1], 5)


def _turned(b: Builder, x: int) -> int:
    """Channels in another order."""
    last = len(b.shape(x)) - 1
    return b.add("GATHER", x, b.integers(*reversed(range(b.shape(x)[last]))), axis=last)


def _exponentials(b: Builder, x: int) -> int:
    t = b.tokens(x)
    scores = b.add("BATCH_MATMUL", t, t, adj_y=True)
    powers = b.add("EXP", b.add("SUB", scores, b.add("REDUCE_MAX", scores, b.integers(2), keep_dims=True)))
    return b.add("BATCH_MATMUL", b.add("DIV", powers, b.add("SUM", powers, b.integers(2), keep_dims=True)), t)


def _padded_pool(b: Builder, x: int) -> int:
    shape = b.shape(x)
    if len(shape) != 4 or min(shape[1:3]) < 2:
        return x
    pads = b.tensor("pads", (4, 2), "INT32", np.array([[0, 0], [1, 0], [0, 1], [0, 0]], np.int32))
    padded = b.add("PADV2", x, pads, b.number(-np.inf))
    return b.add("MAX_POOL_2D", padded, padding="VALID", filter_height=2, filter_width=2, stride_h=1, stride_w=1)


FORMS: dict[str, Piece] = {
    **PIECES,
    **{f"power {p}": lambda b, x, p=p: b.add("POW", _positive(b, x), b.number(p)) for p in (2.5, 4.0, -1.5, -0.5)},
    "quotient": lambda b, x: b.add("DIV", x, _positive(b, b.as_wide_as(x))),
    "quotient by a number": lambda b, x: b.add("DIV", x, b.number(3.0)),
    "unit length": lambda b, x: b.add("DIV", x, _length(b, x)),
    "inverse": lambda b, x: b.add("MUL", b.add("DIV", b.number(1.0), _length(b, x)), x),
    "flat linear": _flat_linear,
    "turned channels": _turned,
    "exponentials": _exponentials,
    "padded pool": _padded_pool,
    "leaky": lambda b, x: b.add("LEAKY_RELU", x, alpha=0.2),
    "squared difference": lambda b, x: b.add("SQUARED_DIFFERENCE", x, b.as_wide_as(x)),
    "reshape twice": lambda b, x: b.reshape(b.reshape(b.tokens(x), -1, b.shape(x)[-1]), *b.shape(b.tokens(x))),
}  # fmt: skip


def built(names: list[str], seed: int) -> Graph:
    """A map, the forms behind each other, and two outputs: the last form's and, read a second time, the first one's."""
    b = Builder(np.random.default_rng(seed))
    x = first = b.conv(b.input, 6)
    for i, name in enumerate(names):
        x = FORMS[name](b, x)
        first = x if i == 0 else first
    outputs = (b.linear(x, 4), b.add("RELU", first))
    graph = Graph({t.id: t for t in b.tensors}, tuple(b.nodes), (b.input,), outputs)
    graph.check()
    return graph


def outputs(graph: Graph, original: Graph) -> list[torch.Tensor]:
    pixels = torch.rand(2, 4, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    values = Executor(graph, torch.float64, exact=True).run(pixels)
    return [values[t] for t in original.outputs]


def check_same(before: Graph, after: Graph, what: str) -> None:
    after.check()
    for one, two in zip(outputs(before, before), outputs(after, before), strict=True):
        assert one.shape == two.shape, what
        assert float((one - two).abs().max()) <= CLOSE * float(one.abs().max()) + 1e-12, what


FLOAT_PASSES = [p for p in all_passes().values() if p.phase in (Phase.EXPORT, Phase.PREPARE)]
NAMES = st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=4)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_each_pass_keeps_the_values_of_each_form(name: str) -> None:
    graph = built([name], seed=1)
    for each in FLOAT_PASSES:
        found = each.apply(graph)
        if found is not graph:
            check_same(graph, found, each.name)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(NAMES, st.integers(0, 2**16), st.sampled_from(sorted(KINDS)))
def test_passes_in_their_order_keep_the_values(names: list[str], seed: int, profile: str) -> None:
    graph = built(names, seed)
    for phase in (Phase.EXPORT, Phase.PREPARE):
        for each in passes_of(phase, KINDS[profile]):
            found = each.edit(KINDS[profile]).apply(graph)
            assert found is not None
            if found is not graph:
                check_same(graph, found, f"{each.name} in {names}")
            graph = found

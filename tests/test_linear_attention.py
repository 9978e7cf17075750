"""Scales a head and a channel of attention without softmax: the same function, and alike heads behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qhyvit.folds.shared.ahead import led
from qhyvit.folds.shared.scale import CannotScaleError
from qhyvit.graph.ir import Graph, Node
from qhyvit.methods.qhyvit import _first
from qhyvit.methods.shared.forms import _distance
from qhyvit.methods.shared.learning import learn
from qhyvit.methods.shared.linear_attention import LEAST, attentions, balanced, scaled, scales
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.range_search import HEADROOM
from qhyvit.methods.shared.ranges import ends, finish
from qhyvit.methods.shared.round import Round
from qhyvit.ops import spec
from qhyvit.sim.run import Executor
from tests._layer_graphs import CHANNELS, SIZE, Maker

HEADS, WIDTH, TOKENS = 2, 4, SIZE * SIZE
SIZES = np.array([0.02, 4.0])  # what q and k of each head are multiplied with


def layer(m: Maker, x: int, parts: int) -> int:
    """One convolution for ``parts`` of q, k and v, whose heads are of very different size."""
    made = m.conv(x, HEADS * parts * WIDTH)
    weight, bias = m.nodes[-1].inputs[1:]
    factor = np.ones((HEADS, parts, WIDTH))
    factor[:, : min(parts, 2)] *= SIZES[:, None, None]
    m.tensors[weight].data[:] *= factor.reshape(-1, 1, 1, 1)
    m.tensors[bias].data[:] *= factor.ravel()
    return made


def in_heads(m: Maker, x: int) -> int:
    """[1, side, side, HEADS * width] as [1, HEADS, TOKENS, width]."""
    x = m.op("RESHAPE", x, m.ints(1, TOKENS, HEADS, m.shape(x)[3] // HEADS))
    return m.op("TRANSPOSE", x, m.ints(0, 2, 1, 3))


def linear_attention(*, together: bool = True, turned: bool = False, eps: float = 1e-6) -> Graph:
    """(q k^T v) / (q sum(k)); ``together``: q, k and v are of one layer; ``turned``: k^T is what is summed up."""
    m = Maker()
    x = m.conv(m.image, CHANNELS, 3)
    if together:
        whole = in_heads(m, layer(m, x, 3))
        q, k, v = (m.add("part", (1, HEADS, TOKENS, WIDTH)) for _ in range(3))
        axis = m.add("axis", (), np.array(3, np.int32))
        m.nodes.append(Node("SPLIT", spec("SPLIT").attrs(num_splits=3), (axis, whole), (q, k, v), ""))
    else:
        q, k, v = (in_heads(m, layer(m, x, 1)) for _ in range(3))
    q, k = (m.op("RELU", t) for t in (q, k))
    transposed = m.op("TRANSPOSE", k, m.ints(0, 1, 3, 2))
    if turned:
        sums = m.op("SUM", transposed, m.ints(3), keep_dims=True)
    else:
        sums = m.op("TRANSPOSE", m.op("SUM", k, m.ints(2), keep_dims=True), m.ints(0, 1, 3, 2))
    state, total = m.op("BATCH_MATMUL", transposed, v), m.op("BATCH_MATMUL", q, sums)
    root = m.op("RSQRT", m.op("ADD", total, m.add("eps", (), np.array(eps, np.float32))))
    out = m.op("MUL", m.op("MUL", m.op("BATCH_MATMUL", q, state), root), root)
    out = m.op("RESHAPE", m.op("TRANSPOSE", out, m.ints(0, 2, 1, 3)), m.ints(1, SIZE, SIZE, HEADS * WIDTH))
    return m.logits(m.conv(out, CHANNELS))


def images(count: int = 8) -> torch.Tensor:
    return torch.randn(count, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))


def outputs(graph: Graph) -> torch.Tensor:
    return Executor(graph, torch.float64).rows(images(2))


def peaks_of(graph: Graph, tensors: tuple[int, ...]) -> dict[int, np.ndarray]:
    found = Executor(graph, torch.float64).run(images(), None, tensors)
    return {t: found[t].abs().amax(0).numpy() for t in tensors}


KINDS = [{}, {"together": False}, {"turned": True}, {"together": False, "turned": True}]


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_computes_what_it_did(kind: dict[str, bool]) -> None:
    graph = linear_attention(**kind)
    (found,) = attentions(graph)
    edited = scaled(graph, scales(graph, found, peaks_of(graph, found.watched)))
    assert edited is not None
    edited.check()
    before, after = outputs(graph), outputs(edited)
    assert float((before - after).abs().max()) < 3e-6 * float(before.abs().max())  # constants are float32


@pytest.mark.parametrize("kind", KINDS)
def test_heads_and_channels_are_alike_behind_it(kind: dict[str, bool]) -> None:
    graph = linear_attention(**kind)
    problem = balanced(Problem(graph, images()))
    (found,) = attentions(problem.graph)
    queries, keys, divisor, values = (peaks_of(problem.graph, found.watched)[t] for t in found.watched)
    of_channels = queries.max(-2)  # [.., HEADS, WIDTH]
    assert of_channels.max(-1) == pytest.approx(np.ones((1, HEADS)), rel=1e-5)
    assert (of_channels <= 1 + 1e-5).all()
    assert keys.max() == pytest.approx(1, rel=1e-5)
    assert divisor.max((-1, -2)) == pytest.approx(np.full((1, HEADS), divisor.max()), rel=1e-5)
    assert values.max(found.tokens).max(-1) == pytest.approx(np.ones((1, HEADS)), rel=1e-5)
    (old,) = attentions(graph)
    assert np.ptp(np.log(peaks_of(graph, old.watched)[old.divisor.outputs[0]].max((-1, -2)))) > 5


def test_the_quiet_head_is_no_longer_lost() -> None:
    problem = Problem(linear_attention(), images())
    assert _distance(balanced(problem)) < _distance(problem) / 3


def test_small_channels_are_not_enlarged_without_end() -> None:
    graph = linear_attention(together=False)
    (found,) = attentions(graph)
    peaks = peaks_of(graph, found.watched)
    peaks[found.queries][..., 1] = 0.0
    of_channels = peaks[found.queries].max(-2)
    r = scales(graph, found, peaks)[found.q].reshape(1, TOKENS, HEADS, WIDTH)[0, 0]
    assert r[:, 1] == pytest.approx(LEAST * of_channels[0].max(-1))
    assert r[:, 0] == pytest.approx(np.maximum(of_channels[0], LEAST * of_channels[0].max(-1, keepdims=True))[:, 0])


def test_scales_that_do_not_cancel_are_refused() -> None:
    graph = linear_attention()
    (found,) = attentions(graph)
    given = scales(graph, found, peaks_of(graph, found.watched))
    wrong = given[found.k] * np.linspace(1, 2, WIDTH)  # channels of k without those of q
    assert scaled(graph, {**given, found.k: wrong}) is None
    by_token = given[found.q] * np.linspace(1, 2, TOKENS)[:, None]
    assert scaled(graph, {**given, found.q: by_token}) is None


@pytest.mark.parametrize("by", [2.0, 3.0])
def test_a_quotient_is_as_it_was_if_both_sides_are_scaled_alike(by: float) -> None:
    graph = linear_attention()
    (found,) = attentions(graph)
    ahead = led(graph, {found.q: np.full(graph.tensors[found.q].shape, by)})
    last = [n for n in graph.nodes if n.op == "MUL"][-1]
    assert last.outputs[0] in ahead.taken
    assert last.outputs[0] not in ahead.tensors
    assert ahead.tensors[found.divisor.outputs[0]].min() == by


def test_a_scale_that_reaches_an_output_is_refused() -> None:
    m = Maker()
    x = m.conv(m.image, CHANNELS)
    graph = Graph(m.tensors, tuple(m.nodes), (m.image,), (m.op("RELU", x),))
    graph = Graph(m.tensors, tuple(m.nodes), graph.inputs, graph.outputs)
    with pytest.raises(CannotScaleError, match="output"):
        led(graph, {x: np.full(graph.tensors[x].shape, 2.0)})


def test_other_attention_is_left_alone() -> None:
    m = Maker()
    q, k = (m.op("RESHAPE", m.conv(m.image, CHANNELS), m.ints(1, TOKENS, CHANNELS)) for _ in range(2))
    out = m.op("BATCH_MATMUL", m.op("SOFTMAX", m.op("BATCH_MATMUL", q, k, adj_y=True)), k)
    graph = m.logits(m.op("RESHAPE", out, m.ints(1, SIZE, SIZE, CHANNELS)))
    problem = Problem(graph, images(2))
    assert attentions(graph) == []
    assert balanced(problem) is problem


def test_divisors_are_not_clipped_and_have_room_for_other_images() -> None:
    """Behind a round, whatever the objective makes of their few large values; and learning leaves them there."""
    options = QhyvitOptions(rounds=1)
    problem = balanced(Problem(linear_attention(), images()))
    state = Round(0, options)(problem, _first(problem))
    (found,) = attentions(state.graph)
    assert len(set(found.quotient)) == 2
    peaks = peaks_of(state.graph, (*found.quotient, found.values))
    for t in found.quotient:
        low, high = ends(state.quants[state.graph.tensors[t].name])
        assert low == 0
        assert high == pytest.approx(HEADROOM * peaks[t].max(), rel=0.02)
    learned = learn(problem.on(state.graph), state.graph, state.quants, 4)
    names = [state.graph.tensors[t].name for t in found.quotient]
    assert [learned[n] for n in names] == [finish(state.graph, state.quants)[n] for n in names]
    assert any(learned[n] != state.quants[n] for n in learned)

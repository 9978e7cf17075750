"""Folds leave the float function as it was, whatever the scale."""

from collections import Counter

import numpy as np
import pytest
import torch

from qhyvit.folds import all_folds
from qhyvit.folds.shared.fold import Place
from qhyvit.folds.shared.scaling import CannotScaleError, scale_tensor
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency.work import INT8, work_of
from qhyvit.lowering.profiles import with_islands
from qhyvit.methods.shared.folding import Candidate, apart
from qhyvit.ops import spec
from qhyvit.sim.run import Executor


def scale_of(channels, seed=0):
    return np.exp(np.random.default_rng(seed).normal(size=channels))


def proposed(graph, place, bits):
    """The scales that the method tries there, for activations and weights of any size."""
    from qhyvit.methods.shared.folding import _all_together, _scales
    from qhyvit.methods.shared.hessian import Statistics

    statistics = Statistics(place.tensors, ())
    for i, t in enumerate(place.divided):
        channels = graph.tensors[t].shape[-1]
        statistics.peak[t] = torch.from_numpy(scale_of(channels, seed=5 + i))
        statistics.weight[t] = torch.from_numpy(scale_of(channels, seed=50 + i))
    return _scales(statistics, place, _all_together(place, {}, statistics), bits)


IN_INT8 = [name for name in sorted(all_folds()) if not name.startswith("island")]


def graph_for(graph, name):
    """The graph, for folds where float begins or ends with all float that has no weights."""
    if name in IN_INT8:
        return graph
    floats = {n.outputs[0] for n in graph.nodes if spec(n.op).weight_input < 0 and n.outputs[0] not in graph.outputs}
    return with_islands(graph, "cpu", frozenset(floats))


@pytest.mark.parametrize("name", sorted(all_folds()))
def test_every_place_is_float_equivalent(small, inputs, name):
    fold, graph = all_folds()[name], graph_for(small.graph, name)
    places = fold.places(graph)
    expected = Executor(graph, torch.float64).rows(inputs[:1])
    for place in places:
        folded = fold.apply(graph, place, scale_of(place.channels))
        folded.check()
        found = Executor(folded, torch.float64).rows(inputs[:1])
        # constants are float32: 24 bits
        assert float((found - expected).abs().max()) < 3e-6 * float(expected.abs().max()), place.name


def test_both_networks_have_places_for_folds(small):
    found = {name for name, fold in all_folds().items() if fold.places(graph_for(small.graph, name))}
    assert {"channel_scale", "silu_split", "stream_scale", "island_starts", "island_ends"} <= found


def sixteen_bits(factor):
    """The factor of a constant with int16 codes, as an island of int16 holds it."""
    step = factor.max() / 32767
    return np.round(factor / step) * step


CARRIED = {"island_starts": sixteen_bits, "island_ends": lambda r: 1 / sixteen_bits(1 / r)}


@pytest.mark.parametrize("name", sorted(all_folds()))
def test_all_tensors_of_a_place_carry_the_scale(small, inputs, name):
    fold, graph = all_folds()[name], graph_for(small.graph, name)
    places = fold.places(graph)
    before = Executor(graph, torch.float64).run(inputs[:1], None, {t for place in places for t in place.tensors})
    for place in places:
        r = scale_of(place.channels)
        folded = fold.apply(graph, place, r)
        r = CARRIED.get(name, np.asarray)(r)
        after = Executor(folded, torch.float64).run(inputs[:1], None, place.tensors)
        for t in place.tensors:
            assert torch.allclose(after[t] * torch.from_numpy(r), before[t], rtol=1e-4, atol=1e-6), place.name


def counted(graph):
    """How often each kernel is used with each amount of work."""
    return Counter(work_of(graph, node, INT8, INT8) for node in graph.nodes)


@pytest.mark.parametrize("name", IN_INT8)
def test_the_work_that_comes_and_goes_is_that_of_the_edited_graph(small, name):
    """The split's MUL is no part of a SiLU any more, which costs as much as the restoring product does."""
    fold = all_folds()[name]
    for place in fold.places(small.graph):
        folded = fold.apply(small.graph, place, scale_of(place.channels))
        before, after = counted(small.graph), counted(folded)
        changed = [{w: n for w, n in c.items() if not w.kernel.startswith("RESHAPE")}
                   for c in (after - before, before - after)]  # fmt: skip
        assert changed == [Counter(place.adds), Counter(place.saves)], place.name


def test_the_silu_split_adds_one_product(small_v2):
    fold = all_folds()["silu_split"]
    place = fold.places(small_v2.graph)[0]
    folded = fold.apply(small_v2.graph, place, scale_of(place.channels))
    before, after = (Counter(n.op for n in g.nodes) for g in (small_v2.graph, folded))
    assert after - before == Counter(MUL=1)
    assert not before - after


def test_the_product_that_restores_a_sigmoids_input_computes_as_it_does(small_v2):
    fold, graph = all_folds()["silu_split"], small_v2.graph
    place = fold.places(graph)[0]
    (sigmoid,) = (n for n in graph.users(place.tensors[0]) if n.op == "LOGISTIC")
    floats = with_islands(graph, "cpu", frozenset({sigmoid.outputs[0], place.tensors[1]}))
    folded = fold.apply(floats, place, scale_of(place.channels))
    restored = folded.by_name[f"{place.name}.restore"].id
    assert folded.islands == floats.islands | {restored}
    assert not fold.apply(graph, place, scale_of(place.channels)).islands


@pytest.mark.parametrize("bits", [8, 6])
def test_what_the_silu_split_multiplies_by_is_exact_in_the_file(small_v2, bits):
    from qhyvit.methods.shared.ranges import constant_ranges, group_quant, groups

    fold, graph = all_folds()["silu_split"], small_v2.graph
    place = fold.places(graph)[0]
    for r in proposed(graph, place, bits):
        folded = fold.apply(graph, place, r)
        name = f"{place.name}.restore:factor"
        constant = next(t for t in folded.tensors.values() if t.name == name)
        group = next(g for g in groups(folded) if constant.id in g.members)
        quant = group_quant(group, *constant_ranges(folded, group, bits), "minmax", bits=bits)
        values = folded.constant(constant.id)
        codes = np.rint(values / quant.scale[0]) + quant.zero_point[0]
        assert np.allclose((codes - quant.zero_point[0]) * quant.scale[0], values, rtol=1e-6)
        assert quant.limits[0] <= codes.min() <= codes.max() <= quant.limits[1]


def test_attention_values_and_queries_are_among_the_places(small_v1):
    names = {place.name for place in all_folds()["channel_scale"].places(small_v1.graph)}
    query, key, value = (any(f".attn.qkv/fully_connected.part{i}" in n for n in names) for i in range(3))
    assert value
    assert query or key


def test_what_cannot_take_a_scale_says_why(small):
    softmax = next(n for n in small.graph.nodes if n.op == "SOFTMAX")
    with pytest.raises(CannotScaleError, match="SOFTMAX"):
        scale_tensor(small.graph, softmax.inputs[0], np.array([2.0]))
    with pytest.raises(CannotScaleError, match="input or output"):
        scale_tensor(small.graph, small.graph.outputs[0], np.full(10, 2.0))


@pytest.mark.parametrize(("fixture", "power"), [("small_v1", 2), ("small_v2", 1)])
def test_every_residual_stream_takes_a_scale_with_its_norms(request, fixture, power):
    graph = request.getfixturevalue(fixture).graph
    places = all_folds()["stream_scale"].places(graph)
    assert [p.name.partition(".conv_1x1")[0] for p in places] == ["stages.2.1", "stages.3.1", "stages.4.1"]
    for place in places:
        assert place.exact_power == power
        assert graph.tensors[place.tensors[-1]].name.endswith("/add.2")  # the stream where it is deepest


def test_a_scaled_stream_makes_no_new_op_where_squares_are_averaged(small_v1):
    fold, graph = all_folds()["stream_scale"], small_v1.graph
    place = fold.places(graph)[0]
    folded = fold.apply(graph, place, scale_of(place.channels))
    before, after = ([n.op for n in g.nodes] for g in (graph, folded))
    norms = 5  # of two transformer blocks, and the one behind them
    assert len(after) == len(before)
    assert after.count("MEAN") == before.count("MEAN") - norms
    assert after.count("FULLY_CONNECTED") == before.count("FULLY_CONNECTED") + norms


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("fixture", ["small_v1", "small_v2"])
def test_what_norms_give_back_is_exact_on_the_weights_grid(request, fixture, bits):
    graph = request.getfixturevalue(fixture).graph
    fold = all_folds()["stream_scale"]
    place = fold.places(graph)[0]
    for r in proposed(graph, place, bits):
        folded = fold.apply(graph, place, r)
        means = [
            folded.constant(n.inputs[1]) for n in folded.nodes
            if n.op == "FULLY_CONNECTED" and folded.tensors[n.outputs[0]].shape[-1] == 1 and "norm" in n.block
        ]  # fmt: skip
        assert means
        for weight in means:
            codes = weight * (2 ** (bits - 1) - 1) / weight.max()
            assert np.abs(codes - np.rint(codes)).max() < 1e-4
            assert codes.min() > 0.9


def test_a_product_with_fewer_axes_on_one_side_takes_a_scale():
    """One map's tokens times the keys of two heads, which lie by rows: r on the contracted axis goes to the keys."""
    rng = np.random.default_rng(0)
    layer = spec("FULLY_CONNECTED").attrs(keep_num_dims=True)
    weight, keys = (rng.normal(size=s).astype(np.float32) for s in ((4, 3), (2, 2, 4)))
    tensors = [
        Tensor(0, "x", (5, 3), "FLOAT32"), Tensor(1, "w", weight.shape, "FLOAT32", weight),
        Tensor(2, "q", (5, 4), "FLOAT32"), Tensor(3, "keys", keys.shape, "FLOAT32", keys),
        Tensor(4, "scores", (2, 5, 2), "FLOAT32"),
    ]  # fmt: skip
    product = Node("BATCH_MATMUL", spec("BATCH_MATMUL").attrs(adj_y=True), (2, 3), (4,))
    nodes = Node("FULLY_CONNECTED", layer, (0, 1, -1), (2,)), product
    graph = Graph({t.id: t for t in tensors}, nodes, (0,), (4,))
    graph.check()
    r = scale_of(4)
    scaled = scale_tensor(graph, 2, r)
    assert np.allclose(scaled.constant(3), keys * r)
    assert np.allclose(scaled.constant(1), weight / r[:, None])


def test_a_stream_is_scaled_once(small_v1):
    """A second scale would leave the 8-bit grid on which the first one lies."""
    fold, graph = all_folds()["stream_scale"], small_v1.graph
    first, *others = fold.places(graph)
    folded = fold.apply(graph, first, scale_of(first.channels))
    assert [p.name for p in fold.places(folded)] == [p.name for p in others]
    stream = first.tensors[-1]
    with pytest.raises(CannotScaleError, match="itself"):
        scale_tensor(folded, stream, scale_of(first.channels))


def test_no_tensor_takes_two_scales_that_were_made_for_one():
    """Each is chosen for the tensor as it was: the second would scale what the first has made even."""
    tensors = ((1, 2), (2, 3), (3,), (4,), (4, 1))
    found = [Candidate(f"fold {i}", Place("", t, 8), np.ones(8), 1.0) for i, t in enumerate(tensors)]
    assert [c.fold for c in apart(found)] == ["fold 0", "fold 2", "fold 3"]

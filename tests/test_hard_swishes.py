"""Hard swish as products: no such op is left, its factor costs none, and a scale a channel passes through it."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qhyvit.folds import silu_split
from qhyvit.graph import edit
from qhyvit.passes import prepared
from qhyvit.passes.hard_swishes import PASS
from qhyvit.sim.checked import Door, Edit
from qhyvit.sim.run import Executor
from tests._graphs import CHANNELS, Builder

IMAGES = torch.randn(3, 4, 4, 3, generator=torch.Generator().manual_seed(0))


def rows(graph):
    with torch.no_grad():
        return Executor(graph, torch.float64, exact=True).rows(IMAGES)


def with_hard_swish():
    maker = Builder(np.random.default_rng(0))
    x = maker.conv(maker.input)
    return maker.graph(maker.conv(maker.add("HARD_SWISH", x), 5)), x


def test_it_is_torchs_function():
    maker = Builder(np.random.default_rng(0))
    graph = PASS.apply(maker.graph(maker.add("HARD_SWISH", maker.input)))
    assert "HARD_SWISH" not in {n.op for n in graph.nodes}
    assert torch.allclose(rows(graph), F.hardswish(5 * IMAGES.double() / 5).flatten(1), atol=1e-6)


def test_the_factor_goes_into_the_layer_behind():
    graph, _ = with_hard_swish()
    found = prepared(graph)
    assert sorted(n.op for n in found.nodes) == ["ADD", "CONV_2D", "CONV_2D", "MUL"]
    assert torch.allclose(rows(found), rows(graph), rtol=1e-5, atol=1e-6)


def test_a_scale_a_channel_passes():
    graph, x = with_hard_swish()
    found = prepared(graph)
    (place,) = silu_split.places(found)
    r = np.array([0.25, 0.5, 1, 2, 4, 8], np.float64)[:CHANNELS]
    split = silu_split.apply(found, place, r)
    assert torch.allclose(rows(split), rows(graph), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        before, after = (Executor(g, torch.float64).run(IMAGES, None, [x])[x] for g in (found, split))
    assert torch.allclose(after * torch.from_numpy(r), before, rtol=1e-6)


def behind_pairs():
    """A layer that writes two pixels side by side, [1, 4, 2, 12], seen as [1, 4, 4, 6]; a hard swish; a layer."""
    maker = Builder(np.random.default_rng(1))
    pairs = maker.conv(maker.input, 2 * CHANNELS, stride_w=2)
    x = maker.reshape(pairs, 1, 4, 4, CHANNELS)
    return maker.graph(maker.conv(maker.add("HARD_SWISH", x), 5)), pairs


def test_a_scale_passes_a_view_of_pixels_in_pairs():
    graph, pairs = behind_pairs()
    found = prepared(graph)
    (place,) = silu_split.places(found)
    assert place.channels == CHANNELS
    assert place.parts == ((pairs, (*range(CHANNELS), *range(CHANNELS))),)
    r = np.geomspace(0.25, 8, CHANNELS)
    split = silu_split.apply(found, dataclasses.replace(place, tensors=place.tensors[1:]), r)  # x is no root
    assert torch.allclose(rows(split), rows(graph), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        before, after = (Executor(g, torch.float64).run(IMAGES, None, [pairs])[pairs] for g in (found, split))
    assert torch.allclose(after * torch.from_numpy(np.tile(r, 2)), before, rtol=1e-6)


def test_a_view_that_mixes_channels_has_no_place():
    maker = Builder(np.random.default_rng(1))
    x = maker.reshape(maker.conv(maker.input), 1, 4, 6, 4)
    graph = prepared(maker.graph(maker.conv(maker.add("HARD_SWISH", x), 5)))
    assert silu_split.places(graph) == []


def amplifying():
    """The difference of two layers that are nearly alike: rounding of their weights is multiplied by a thousand."""
    maker = Builder(np.random.default_rng(3))
    a, b = maker.conv(maker.input), maker.conv(maker.input)
    graph = maker.graph(maker.add("SUB", a, b))
    first, second = (graph.producer(t) for t in (a, b))
    for t, other in zip(second.inputs[1:], first.inputs[1:], strict=True):
        graph = edit.with_named(graph, {graph.tensors[t].name: graph.constant(other) * np.float32(1.001)})
    return graph, first.inputs[1]


def moved(factor, scale):
    """A weight times ``factor``, which a product behind takes back, and off by ``scale``."""

    def apply(graph):
        node = graph.nodes[0]
        weight, bias = (graph.tensors[t] for t in node.inputs[1:])
        new = {t.name: (t.data * np.float32(factor)).astype(np.float32) for t in (weight, bias)}
        graph = edit.with_named(graph, new)
        node = graph.nodes[0]
        out = graph.tensors[node.outputs[0]]
        graph, inner = edit.add_tensor(graph, "inner", out.shape, "FLOAT32")
        data = np.full((1, 1, 1, 1), scale / np.float32(factor), np.float32)
        graph, back = edit.add_tensor(graph, "back", data.shape, "FLOAT32", data)
        first = dataclasses.replace(node, outputs=(inner,))
        product = dataclasses.replace(PRODUCT, inputs=(inner, back), outputs=(out.id,))
        return dataclasses.replace(graph, nodes=(first, product, *graph.nodes[1:]))

    return Edit("moved", apply)


def _product():
    maker = Builder(np.random.default_rng(0))
    maker.add("MUL", maker.input, maker.input)
    return maker.nodes[0]


PRODUCT = _product()


@pytest.mark.parametrize(("scale", "passes"), [(1.0, True), (1 + 3e-6, False), (1.01, False)])
def test_the_door_allows_what_rounding_of_constants_moves_and_no_more(scale, passes):
    graph, _ = amplifying()
    door = Door(IMAGES)
    difference = door.difference(graph, moved(1 / 3, scale).apply(graph))
    assert difference > 2e-5  # more than is allowed where nothing amplifies
    _, (done,) = door.through(graph, [moved(1 / 3, scale)])
    assert done == passes
    assert len(door.refused) == (not passes)

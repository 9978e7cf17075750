"""What a pass takes away may be read by others, end the graph or be made by a fused op: the values stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.passes import passes_of
from qhyvit.passes.shared.graph_pass import Phase
from qhyvit.sim.run import Executor
from tests._graphs import Builder
from tests._pass_graphs import EDITS, KINDS, LAYERS, PIECES, PLACES, TYPED, built
from tests._targets import INTEGER
from tests.test_passes_values import CLOSE


def values(graph: Graph, *wanted: int) -> dict[int, torch.Tensor]:
    pixels = torch.rand(2, 4, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return Executor(graph, torch.float64, exact=True).run(pixels, None, wanted)


def gone(graph: Graph, found: Graph) -> list[Node]:
    """Nodes that a pass takes away or changes."""
    return [n for n in graph.nodes if n not in found.nodes]


def assert_same(
    what: str, graph: Graph, expected: dict[int, torch.Tensor], edited: Callable[[Graph], Graph | None]
) -> None:
    """An edit leaves the outputs of a graph what they are, in their shapes."""
    after = edited(graph)
    assert after is not None, what
    if after is graph:
        return
    after.check()
    assert after.outputs == graph.outputs, what
    found = values(after, *(t.id for t in after.activations()))
    wrong = [t.name for t in after.activations() if t.shape != tuple(found[t.id].shape[1:])]
    assert wrong == [], f"{what}: shapes"
    for t in graph.outputs:
        assert after.tensors[t].shape == graph.tensors[t].shape, what
        one, two = (torch.nan_to_num(v, neginf=-9.0) for v in (expected[t], found[t]))  # a padding of -inf
        assert float((one - two).abs().max()) <= CLOSE * float(one.abs().max()) + 1e-9, what


@pytest.mark.parametrize("name", PIECES)
def test_what_a_pass_takes_away_may_be_an_output(name: str) -> None:
    graph, changed = built(name)
    kept = values(graph, *(t for n in graph.nodes for t in n.outputs))
    for pass_name, found in changed.items():
        assert_same(f"{pass_name} of {name}", graph, kept, EDITS[pass_name])
        for t in (t for n in gone(graph, found) for t in n.outputs if t not in graph.outputs):
            what = f"{pass_name} of {name} with the output {graph.tensors[t].name}"
            assert_same(what, replace(graph, outputs=(*graph.outputs, t)), kept, EDITS[pass_name])


@pytest.mark.parametrize("name", PIECES)
def test_a_graph_may_end_with_what_a_pass_takes_away(name: str) -> None:
    graph, changed = built(name)
    kept = values(graph, *(t for n in graph.nodes for t in n.outputs))
    for pass_name, found in changed.items():
        for t in (t for n in gone(graph, found) for t in n.outputs):
            end = edit.without_unread(replace(graph, outputs=(t,)))
            assert_same(f"{pass_name} of {name} up to {graph.tensors[t].name}", end, kept, EDITS[pass_name])


@pytest.mark.parametrize("name", TYPED)
def test_what_a_pass_makes_in_an_island_is_computed_in_its_type(name: str) -> None:
    graph, own = built(name)[0], TYPED[name][0]
    for each in passes_of(Phase.LOWERED, INTEGER):
        found = each.apply(graph)
        assert {(n.reads, n.writes) for n in found.nodes[1:-1]} == {(own, own)}, each.name


@pytest.mark.parametrize("name", PIECES)
def test_a_pass_leaves_a_second_reader_of_the_same_operands_what_it_reads(name: str) -> None:
    """The second reader, a copy of a node that goes, shares its constants and what it reads."""
    graph, changed = built(name)
    kept = values(graph, *(t for n in graph.nodes for t in n.outputs))
    for pass_name, found in changed.items():
        for node in gone(graph, found):
            twice, expected = with_copy(graph, node, kept)
            assert_same(f"{pass_name} of {name} with two {node.op}", twice, expected, EDITS[pass_name])


def with_copy(graph: Graph, node: Node, kept: dict[int, torch.Tensor]) -> tuple[Graph, dict[int, torch.Tensor]]:
    """A graph whose ``node`` is there twice, the second time for an output of its own, and all values by tensor."""
    expected, outputs = dict(kept), []
    for t in node.outputs:
        graph, new = edit.add_tensor(graph, f"{graph.tensors[t].name}.copy", graph.tensors[t].shape, "FLOAT32")
        expected[new] = kept[t]
        outputs.append(new)
    at = graph.nodes.index(node) + 1
    nodes = (*graph.nodes[:at], replace(node, outputs=tuple(outputs)), *graph.nodes[at:])
    return replace(graph, nodes=nodes, outputs=(*graph.outputs, *outputs)), expected


def rectified(graph: Graph, nodes: list[Node]) -> Iterator[Graph]:
    """The graph with a fused RELU in one of these nodes."""
    for node in nodes:
        if getattr(node.attrs, "fused_activation_function", None) == "NONE":
            fused = replace(node, attrs=replace(node.attrs, fused_activation_function="RELU"))
            yield edit.replace_node(graph, node, fused)


@pytest.mark.parametrize("name", PIECES)
def test_a_pass_keeps_fused_activations(name: str) -> None:
    graph, changed = built(name)
    for pass_name, found in changed.items():
        for other in rectified(graph, gone(graph, found)):
            assert_same(f"{pass_name} of {name}, fused", other, values(other), EDITS[pass_name])


def test_every_pass_has_such_a_graph_but_one_that_needs_a_large_one() -> None:
    assert set(EDITS) - {p for name in PIECES for p in built(name)[1]} == {"short_reductions"}


@pytest.mark.parametrize(("place", "kind"), sorted(LAYERS))
def test_passes_keep_the_values_of_convolutions_of_every_kind(place: str, kind: str) -> None:
    b = Builder(np.random.default_rng(3))
    graph = edit.without_unread(b.graph(PLACES[place](b, b.conv(b.input), **KINDS[kind])))
    expected = values(graph)
    for name, edited in EDITS.items():
        assert_same(name, graph, expected, edited)

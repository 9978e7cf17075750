"""Passes: what they say of each other holds, whatever order that leaves free."""

from __future__ import annotations

import hashlib
import inspect
import random
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit.graph.ir import Graph
from qhyvit.passes import all_passes, in_order, passes_of, prepared
from qhyvit.passes.shared.graph_pass import Pass, Phase
from qhyvit.targets import Target
from qhyvit.tflite.read import read
from tests._graphs import PIECES, random_graph
from tests._targets import KINDS

PROFILES = tuple(KINDS)


def some_order(passes: list[Pass], seed: int) -> list[Pass]:
    """An order that ``after`` allows, drawn."""
    rng, left, found = random.Random(seed), list(passes), []
    names = {p.name for p in passes}
    while left:
        done = {p.name for p in found}
        ready = [p for p in left if not (set(p.after) & names) - done]
        found.append(rng.choice(ready))
        left.remove(found[-1])
    return found


def made_by(graph: Graph) -> tuple[Counter[str], list[str]]:
    """Every node by what it computes from what, and the outputs: the same for graphs that differ in names alone."""
    key: dict[int, str] = {t: f"input {i}" for i, t in enumerate(graph.inputs)}

    def digest(*parts: object) -> str:
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    for tensor in graph.tensors.values():
        if tensor.data is not None:  # float constants differ in the last bits; their values are the door's business
            whole = b"" if tensor.dtype == "FLOAT32" else tensor.data.tobytes()
            key[tensor.id] = digest(tensor.shape, tensor.dtype, whole)
    nodes = []
    for node in graph.nodes:
        shapes = [graph.tensors[t].shape for t in node.outputs]
        attrs = None if node.op == "RESHAPE" else node.attrs
        nodes.append(digest(node.op, attrs, shapes, [key.get(t) for t in node.inputs]))
        key.update({t: digest(nodes[-1], i) for i, t in enumerate(node.outputs)})
    return Counter(nodes), [key[t] for t in graph.outputs]


def behind(graph: Graph, passes: list[Pass], target: Target) -> Graph:
    for each in passes:
        made = each.edit(target).apply(graph)
        assert made is not None
        graph = made
    return graph


def test_every_pass_names_known_ones_of_its_phase() -> None:
    known = all_passes()
    for each in known.values():
        assert set(each.after) <= set(known), each.name
        assert {known[name].phase for name in each.after} <= {each.phase}, each.name


def test_passes_that_wait_for_each_other_are_refused() -> None:
    a = Pass("a", "", lambda g: g, after=("b",))
    b = Pass("b", "", lambda g: g, after=("a",))
    with pytest.raises(CycleError):
        in_order([a, b])


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("phase", Phase)
def test_the_order_is_one_that_after_allows_and_the_same_every_time(phase: Phase, profile: str) -> None:
    chosen = passes_of(phase, KINDS[profile])
    place = {p.name: i for i, p in enumerate(chosen)}
    assert all(place[name] < place[p.name] for p in chosen for name in p.after if name in place)
    assert in_order(reversed(chosen)) == chosen


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=5), st.integers(0, 2**16), st.sampled_from(PROFILES)
)
def test_any_order_that_after_allows_gives_the_same_generated_graph(names: list[str], seed: int, profile: str) -> None:
    graph, passes = random_graph(names, seed), passes_of(Phase.PREPARE, KINDS[profile])
    expected = made_by(behind(graph, passes, KINDS[profile]))
    assert made_by(behind(graph, some_order(passes, seed), KINDS[profile])) == expected


def orders() -> Iterator[tuple[str, int]]:
    return ((profile, seed) for profile in PROFILES for seed in range(4))


@pytest.mark.parametrize(("profile", "seed"), orders())
def test_any_order_that_after_allows_gives_the_same_mobilevit(small, profile: str, seed: int) -> None:
    graph, passes = read(small.tflite), passes_of(Phase.PREPARE, KINDS[profile])
    found = behind(graph, some_order(passes, seed), KINDS[profile])
    assert made_by(found) == made_by(prepared(graph, KINDS[profile]))


@pytest.mark.parametrize("name", all_passes())
def test_a_pass_gets_every_argument_that_it_takes(name: str) -> None:
    """One that takes sizes or a target, and does not say so, would work with the default for every board."""
    each = all_passes()[name]
    takes = set(inspect.signature(each.apply).parameters)
    assert takes - {"graph"} == ({"sizes"} if each.sized else set()) | ({"target"} if each.targeted else set())
    assert {each.sized, each.targeted} <= {None, each.apply}

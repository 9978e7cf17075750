"""Wrong edits of every kind: the door refuses them by name, and where it is open, verification finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from qhyvit.folds import all_folds
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import SIZES
from qhyvit.lowering.profiles import with_islands
from qhyvit.methods.shared.gelu import as_silu, candidates
from qhyvit.methods.shared.problem import layout_of
from qhyvit.methods.shared.softmax import as_quotient, shorts, unrolled
from qhyvit.passes import all_passes, equal_nodes, float_sums_of_squares
from qhyvit.sim.checked import EXACT, Door, Edit, EditError
from qhyvit.sim.run import Executor
from qhyvit.tasks import task
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.against_float import FloatFile, against_float
from tests._graphs import PIECES, Builder

IMAGES = torch.rand(6, 4, 4, 3, generator=torch.Generator().manual_seed(2))


def network(*pieces: str, seed: int = 1) -> Graph:
    """A convolution, the pieces, the mean over all positions and a linear: logits [1, 4]."""
    b = Builder(np.random.default_rng(seed))
    x = b.conv(b.input, 6, 3)
    for piece in pieces:
        x = PIECES[piece](b, x)
    tokens = b.tokens(x)
    return b.graph(b.linear(b.add("MEAN", tokens, b.integers(1), keep_dims=False), 4))


def scale(channels: int) -> np.ndarray:
    return 2.0 ** (np.arange(channels) % 4 - 1)


def folded(name: str, graph: Graph) -> Graph:
    fold = all_folds()[name]
    place = fold.places(graph)[0]
    return fold.apply(graph, place, scale(place.channels))


def times(graph: Graph, name: str, factor: np.ndarray | float) -> Graph:
    """The first constant whose name contains ``name``, multiplied."""
    tensor = next(t for t in graph.tensors.values() if t.is_constant and name in t.name)
    return edit.with_constants(graph, {tensor.id: graph.constant(tensor.id) * factor})


def changed(before: Graph, after: Graph, factor: float) -> Graph:
    """``after`` with one of the constants that the edit changed or made multiplied once more."""
    old = {t.id: t.data for t in before.tensors.values()}
    new = next(t for t in after.tensors.values() if t.is_constant and t.dtype == "FLOAT32"
               and after.users(t.id) and old.get(t.id) is not t.data)  # fmt: skip
    return edit.with_constants(after, {new.id: after.constant(new.id) * factor})


def with_op(graph: Graph, old: str, new: str) -> Graph:
    node = next(n for n in graph.nodes if n.op == old)
    return edit.replace_node(graph, node, replace(node, op=new))


def rewritten(name: str) -> Callable[[Graph], Graph]:
    return all_passes()[name].apply


def silu(graph: Graph) -> Graph:
    return as_silu(graph, candidates(graph)[0])


def softmax(graph: Graph) -> Graph:
    return unrolled(graph, next(n for n in graph.nodes if n.op == "SOFTMAX"), 1.0)


def _without_beta(graph: Graph) -> Graph:
    made = rewritten("channel_factors")(graph)
    (before, _), (layer, _) = ([n for n in g.nodes if n.op == "FULLY_CONNECTED"] for g in (graph, made))
    return edit.with_constants(made, {layer.inputs[2]: graph.constant(before.inputs[2])})


def _lost_reader(graph: Graph) -> Graph:
    """Float ends with x / r, and the layer behind does not know."""
    floats = frozenset(t for n in graph.nodes if n.op in ("MUL", "LOGISTIC") for t in n.outputs)
    made = folded("island_ends", with_islands(graph, "cpu", floats))
    return edit.with_constants(
        made,
        {
            t: graph.constant(t)
            for n in graph.nodes
            for t in n.inputs
            if graph.tensors[t].is_constant and graph.tensors[t].dtype == "FLOAT32"
        },
    )


def _false_twins(graph: Graph) -> Graph:
    """Two linears taken for one."""
    first, second = [n for n in graph.nodes if n.op == "FULLY_CONNECTED"][:2]
    nodes = tuple(replace(n, inputs=tuple(first.outputs[0] if t == second.outputs[0] else t for t in n.inputs))
                  for n in graph.nodes if n is not second)  # fmt: skip
    return replace(graph, nodes=nodes)


def _sums(graph: Graph) -> Graph:
    """A row's product with itself as MUL and SUM of half of it."""
    node = next(n for n in graph.nodes if n.op == "BATCH_MATMUL")
    made = float_sums_of_squares.apply(with_islands(graph, "cpu", frozenset(node.outputs)))
    product = next(n for n in made.nodes if n.op == "SUM")
    made, half = edit.add_tensor(made, "half", (1,), "FLOAT32", np.array([0.5], np.float32))
    square = made.producer(product.inputs[0])
    return edit.replace_node(made, square, replace(square, inputs=(square.inputs[0], half)))


@dataclass(frozen=True)
class Mutant:
    """A network, the edit as it should be, and the same gone wrong."""

    graph: Graph
    right: Callable[[Graph], Graph]
    wrong: Callable[[Graph], Graph]


def _row_with_itself() -> Graph:
    b = Builder(np.random.default_rng(3))
    row = b.reshape(b.conv(b.input, 6, 3), 1, 1, 96)
    total = b.add("BATCH_MATMUL", row, row, adj_y=True)
    return b.graph(b.linear(b.reshape(b.add("MUL", row, b.add("RSQRT", total)), 1, 96), 4))


def _short_softmax() -> Graph:
    b = Builder(np.random.default_rng(4))
    x = b.reshape(b.linear(b.tokens(b.conv(b.input, 32, 3)), 32), 1, 16, 8, 4)
    y = b.reshape(b.add("SOFTMAX", x), 1, 16, 32)
    return b.graph(b.linear(b.add("MEAN", y, b.integers(1)), 4))


def _with_divisor() -> Graph:
    b = Builder(np.random.default_rng(5))
    x = b.add("DIV", b.conv(b.input, 6, 3), b.constant(6, low=0.5))
    return b.graph(b.linear(b.add("MEAN", b.tokens(x), b.integers(1)), 4))


def _gelu() -> Graph:
    b = Builder(np.random.default_rng(6))
    x = b.linear(b.add("GELU", b.linear(b.tokens(b.conv(b.input, 6, 3)), 8)), 6)
    return b.graph(b.linear(b.add("MEAN", x, b.integers(1)), 4))


POSITION = network("ADD whole", "linear")
SILU, STREAM, ATTENTION = network("silu of layer", "linear"), network("linear", "norm"), network("softmax attention")
NORM, AFFINE, TWO = network("norm of products"), network("affine norm", "linear"), network("two readers")
GATED = network("gate", "linear")
MUTANTS: dict[str, Mutant] = {
    "fold: a constant is divided twice": Mutant(
        POSITION, lambda g: folded("channel_scale", g),
        lambda g: times(folded("channel_scale", g), "constant.4", 1 / scale(6))),
    "fold: the sigmoid gets another scale back": Mutant(
        SILU, lambda g: folded("silu_split", g), lambda g: times(folded("silu_split", g), "restore:factor", 1.5)),
    "fold: a norm's mean is not told the scale": Mutant(
        STREAM, lambda g: folded("stream_scale", g), lambda g: times(folded("stream_scale", g), ":weight", 1.3)),
    "fold: readers behind float do not take the scale": Mutant(
        GATED, lambda g: g, _lost_reader),
    "rewrite: a quotient is a product": Mutant(
        _with_divisor(), rewritten("quotients"), lambda g: with_op(g, "DIV", "MUL")),
    "rewrite: another eps": Mutant(
        NORM, rewritten("layer_norms"), lambda g: changed(g, rewritten("layer_norms")(g), 1.5)),
    "rewrite: beta is lost": Mutant(AFFINE, rewritten("channel_factors"), _without_beta),
    "rewrite: a difference is a sum": Mutant(
        network("norm of products", seed=8), rewritten("squares"),
        lambda g: with_op(rewritten("squares")(g), "SUB", "ADD")),
    "rewrite: a constant goes into a bias with another size": Mutant(
        network("linear", "ADD vector"), rewritten("bias_in_layer"),
        lambda g: changed(g, rewritten("bias_in_layer")(g), 1.2)),
    "form: a softmax counts one row too many": Mutant(
        ATTENTION, softmax, lambda g: times(softmax(g), "/count", 1.1)),
    "form: GELU's slope stays in the values": Mutant(_gelu(), silu, lambda g: changed(g, silu(g), 1 / 1.702)),
    "form: exponentials of other groups are summed": Mutant(
        _short_softmax(), lambda g: as_quotient(g, shorts(g, SIZES)[0]),
        lambda g: times(as_quotient(g, shorts(g, SIZES)[0]), "/ones", 2.0)),
    "lowered: two nodes taken for twins": Mutant(TWO, equal_nodes.apply, _false_twins),
    "lowered: half a sum of squares": Mutant(
        _row_with_itself(), lambda g: float_sums_of_squares.apply(with_islands(g, "cpu", g.nodes[2].outputs)), _sums),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_door_refuses_it_and_names_it(name):
    mutant, door = MUTANTS[name], Door(IMAGES)
    right = door.checked(Edit(name, mutant.right), mutant.graph)
    assert right is mutant.graph or door.difference(mutant.graph, right) <= EXACT
    with pytest.raises(EditError, match=f"{name} changes what the network computes"):
        door.checked(Edit(name, mutant.wrong), mutant.graph)


@pytest.mark.parametrize("name", MUTANTS)
def test_verification_finds_it_where_the_door_is_open(name):
    mutant = MUTANTS[name]
    reference = FloatFile(serialize(mutant.graph), {}, task("classify"), layout_of(mutant.graph))
    outputs = Executor(mutant.graph).rows(IMAGES).numpy()

    def found(graph):
        _, checks = against_float(reference, graph, IMAGES, outputs)
        return {c.name: c.passed for c in checks}["edited graph computes the exported file"]

    assert found(mutant.right(mutant.graph))
    assert not found(mutant.wrong(mutant.graph))


def test_a_refused_edit_is_left_out_and_the_others_stay():
    said = []
    door, mutant = Door(IMAGES, log=said.append), MUTANTS["rewrite: beta is lost"]
    edits = [Edit("wrong", mutant.wrong), Edit("right", mutant.right), Edit("none", lambda g: None)]
    graph, done = door.through(mutant.graph, edits)
    assert done == [False, True, False]
    assert door.refused == ["wrong"]
    assert len(said) == 1
    assert "wrong changes what the network computes" in said[0]
    assert not any(n.op == "ADD" and "constant" in graph.tensors[n.inputs[1]].name for n in graph.nodes[4:-1]
                   if graph.tensors[n.outputs[0]].shape[-1] == 6)  # fmt: skip


def test_an_edit_that_fails_is_named():
    def broken(graph: Graph) -> Graph:
        raise KeyError(5)

    door = Door(IMAGES)
    with pytest.raises(EditError, match="an edit fails on this network"):
        door.checked(Edit("an edit", broken), POSITION)
    graph, done = door.through(POSITION, [Edit("an edit", broken)])
    assert graph is POSITION
    assert done == [False]

"""The passes that make short what was written for [1, C, H, W]: sunk_transposes and sample_norms."""

import numpy as np
import pytest
import torch

from qhyvit.passes import prepared, sample_norms, shortened, sunk_transposes
from qhyvit.sim.run import Executor
from tests._graphs import Builder, ops

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)


@pytest.fixture
def b():
    return Builder(np.random.default_rng(0))


def turned(b, x, order):
    return b.add("TRANSPOSE", x, b.integers(*order))


def assert_same(before, after):
    x = torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, c = (Executor(g, torch.float64).run(x)[g.outputs[0]] for g in (before, after))
    torch.testing.assert_close(c, a, atol=1e-7, rtol=1e-6)  # constants are float32


def norm(b, x, shape, *, square="MUL"):
    """What an InstanceNormalization of one row becomes, back in ``shape``."""
    size = int(np.prod(b.shape(x)))
    row = b.reshape(x, 1, 1, size)
    mean = b.add("MEAN", row, b.integers(2), keep_dims=True)
    centre = b.add("SUB", row, mean)
    squares = b.add("MUL", centre, centre) if square == "MUL" else b.add("SQUARED_DIFFERENCE", row, mean)
    variance = b.add("MEAN", squares, b.integers(2), keep_dims=True)
    root = b.add("RSQRT", b.add("ADD", variance, b.constant(1, 1, 1, low=0.1)))
    return b.reshape(b.add("MUL", centre, root), *shape)


def test_a_transpose_that_is_undone_goes_with_the_one_in_front(b):
    graph = b.graph(b.add("RELU", turned(b, turned(b, b.conv(b.input), FIRST), LAST)))
    found = sunk_transposes.apply(graph)
    assert ops(found) == ["CONV_2D", "RELU"]
    assert_same(graph, found)


def test_an_output_that_was_turned_and_turned_back_keeps_its_name(b):
    graph = b.graph(turned(b, turned(b, b.conv(b.input), FIRST), LAST))
    found = sunk_transposes.apply(graph)
    assert ops(found) == ["CONV_2D"]
    assert found.tensors[found.outputs[0]].name == graph.tensors[graph.outputs[0]].name
    assert_same(graph, found)


def test_a_stream_between_convolutions_is_not_turned(b):
    """Sums, constants a channel, a gate and a mean over the map, all with channels first."""
    x = turned(b, b.conv(b.input), FIRST)
    for _ in range(2):
        y = b.add("ADD", b.add("MUL", x, b.constant(6, 1, 1)), b.constant(1, 6, 1, 1))
        y = b.add("MUL", y, b.add("LOGISTIC", y))
        x = b.add("ADD", x, turned(b, b.conv(turned(b, y, LAST)), FIRST))
    graph = b.graph(b.add("MEAN", x, b.integers(2, 3), keep_dims=False))
    found = sunk_transposes.apply(graph)
    assert "TRANSPOSE" not in ops(found)
    assert len(found.nodes) == len(graph.nodes) - 5
    assert_same(graph, found)


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 2, 1, 3), (0, 1, 3, 2)])
@pytest.mark.parametrize("axes", [(1,), (2, 3), (1, 2, 3), (3,)])
@pytest.mark.parametrize("keep", [True, False])
def test_a_mean_of_what_is_turned_is_the_same(b, order, axes, keep):
    x = b.add("RELU", turned(b, b.conv(b.input), order))
    graph = b.graph(b.add("MEAN", x, b.integers(*axes), keep_dims=keep))
    found = sunk_transposes.apply(graph)
    assert_same(graph, found)
    assert ops(found).count("TRANSPOSE") <= 1


def test_where_no_value_less_would_move_nothing_changes(b):
    graph = b.graph(b.reshape(b.add("RELU", turned(b, b.conv(b.input), FIRST)), 1, 96))
    assert sunk_transposes.apply(graph) is graph
    wide = b.add("MUL", b.conv(b.input), turned(b, turned(b, b.conv(b.input, 1), (0, 2, 1, 3)), (0, 1, 2, 3)))
    other = b.graph(wide)
    assert_same(other, sunk_transposes.apply(other))


def _long_norm(b, x, *, keep, squares, order):
    """x * r + (0 - mean * r) over the last axis of [1, 16, 6], as exporters write it."""
    one = (1, 16, 1) if keep else (1, 16)

    def mean_of(y):
        return b.add("MEAN", y, b.integers(2), keep_dims=keep)

    def wide(y):
        return y if keep else b.reshape(y, 1, 16, 1)

    mean = mean_of(x)
    if squares == "moments":  # E[x^2] - E[x]^2
        variance = b.add("SUB", mean_of(b.add("MUL", x, x)), b.add("MUL", mean, mean))
    elif squares == "MUL":
        centre = b.add("SUB", x, wide(mean))
        variance = mean_of(b.add("MUL", centre, centre))
    else:
        variance = mean_of(b.add("SQUARED_DIFFERENCE", x, wide(mean)))
    root = b.add("RSQRT", b.add("ADD", variance, b.constant(*(1,) * len(one), low=0.1)))
    zero = b.tensor("zero", (1,) * len(one), data=np.zeros((1,) * len(one), np.float32))
    shift = wide(b.add("SUB", zero, b.add("MUL", mean, root)))
    scaled = b.add("MUL", x, wide(root))
    return b.add("ADD", *((scaled, shift) if order else (shift, scaled)))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("squares", ["SQUARED_DIFFERENCE", "MUL", "moments"])
@pytest.mark.parametrize("order", [True, False])
def test_a_norm_of_what_is_turned_is_still_one(b, keep, squares, order):
    """Its mean is no mean of what is not turned: int8 needs the form with the mean taken off first."""
    first = turned(b, turned(b, b.conv(b.input), FIRST), LAST)  # these two go, so that the pass has something to do
    x = turned(b, b.reshape(first, 1, 6, 16), (0, 2, 1))
    graph = b.graph(b.add("RELU", _long_norm(b, x, keep=keep, squares=squares, order=order)))
    found = prepared(shortened(graph))
    assert_same(graph, found)
    (root,) = [n for n in found.nodes if n.op == "RSQRT"]
    (scaled,) = [n for n in found.nodes if n.op == "MUL" and root.outputs[0] in n.inputs]
    (centred,) = [t for t in scaled.inputs if t != root.outputs[0]]
    centre = found.producer(centred)
    assert centre.op == "SUB"
    assert found.tensors[centre.inputs[0]].name == graph.tensors[x].name


@pytest.mark.parametrize("square", ["MUL", "SQUARED_DIFFERENCE"])
@pytest.mark.parametrize("first", [True, False])
def test_a_norm_of_one_row_is_one_of_the_map(b, square, first):
    x = b.conv(b.input)
    x = turned(b, x, FIRST) if first else x
    y = norm(b, x, b.shape(x), square=square)
    y = b.add("MUL", y, b.constant(*(6, 1, 1) if first else (6,)))
    graph = b.graph(b.conv(turned(b, y, LAST) if first else y))
    found = sunk_transposes.apply(sample_norms.apply(graph))
    made = ops(found)
    assert "TRANSPOSE" not in made
    assert made.count("FULLY_CONNECTED") == 1
    assert made.count("RESHAPE") == 1
    assert_same(graph, found)
    assert ops(shortened(graph)).count("TRANSPOSE") == 0


def test_what_is_no_norm_stays(b):
    x = b.conv(b.input)
    row = b.reshape(x, 1, 1, 96)
    root = b.add("RSQRT", b.add("MEAN", b.add("MUL", row, row), b.integers(2), keep_dims=True))
    graph = b.graph(b.reshape(b.add("MUL", row, root), 1, 4, 4, 6))  # the mean is not taken off
    assert ops(sample_norms.apply(graph)) == ops(graph)

"""Norms are recognised by what they compute, and what stands behind them goes into layers."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qhyvit.folds import all_folds
from qhyvit.passes import all_passes, prepared
from qhyvit.sim.checked import Door
from tests._graphs import PIECES, Builder, outputs, random_graph
from tests._norms import Forms, forms
from tests._targets import BY_PROFILE

NORMS = ("norm", "norm of products", "norm of moments")
FORMS = (*NORMS, "affine norm", "affine norm of products", "residual norm")
SHORT = Counter(MEAN=2, SUB=1, MUL=2, ADD=1, RSQRT=1)


def built(*pieces, seed=0):
    b = Builder(np.random.default_rng(seed))
    x = b.conv(b.input, 6, 3)
    for piece in pieces:
        x = PIECES[piece](b, x)
    return b


def assert_equal(a, b):
    x, y = outputs(a), outputs(b)
    assert float((x - y).abs().max()) < 1e-5 * float(x.abs().max())


@pytest.mark.parametrize("turned", ["", "tokens"])
@pytest.mark.parametrize("norm", NORMS)
def test_every_form_of_a_norm_becomes_the_short_one(norm, turned):
    graph = random_graph([*([turned] if turned else []), norm], seed=1)
    made = prepared(graph)
    assert_equal(graph, made)
    kept = Counter(n.op for n in made.nodes if n.op not in ("CONV_2D", "FULLY_CONNECTED", "RESHAPE"))
    assert kept == SHORT
    (root,) = (n for n in made.nodes if n.op == "RSQRT")
    (product,) = made.users(root.outputs[0])
    centre = made.producer(product.inputs[0])
    assert centre.op == "SUB"
    assert made.producer(centre.inputs[1]).inputs[0] == centre.inputs[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(PIECES)), max_size=3), st.sampled_from(FORMS), st.integers(0, 2**16),
       st.sampled_from(["integer", "cpu"]))  # fmt: skip
def test_no_norm_keeps_a_long_form_whatever_stands_around_it(names, norm, seed, profile):
    """Also where what it reads is turned or read elsewhere: outputs are the same in any form, so forms are counted."""
    b = built(*names, seed=seed)
    x = b.nodes[-1].outputs[0]
    for turn in (False, True, False):
        x = PIECES["turn"](b, x) if turn else x
        x = b.add("ADD", x, b.linear(PIECES[norm](b, x), b.shape(x)[-1]))
    graph = b.graph(b.linear(x, 4))
    assume(all(graph.tensors[n.inputs[0]].shape[-1] > 1 for n in graph.nodes if n.op == "MEAN"))  # of one: always 0
    before, after = forms(graph), forms(prepared(graph, BY_PROFILE[profile]))
    assert before.long >= 3 or norm in ("norm", "affine norm", "residual norm")
    assert after.long == 0
    assert after.short >= 3


def test_the_norms_of_whole_networks_are_counted(small):
    """Of mobilevit_xxs and mobilevitv2_050: 21 each, in the form that keeps most in int8."""
    assert forms(small.graph) == Forms(short=21, long=0)


@pytest.mark.parametrize("eps", [0.1, 1e-12])
def test_the_eps_is_the_constant_of_the_network(eps):
    """And not what is left of it in 1 / r^2 - variance, of which only a few digits are right where it is small."""
    b = built()
    x = b.conv(b.input, 6)
    y = PIECES["norm of products"](b, x)
    (data,) = (b.tensors[t].data for n in b.nodes if n.op == "ADD" for t in n.inputs
               if b.tensors[t].data is not None and b.tensors[t].data.shape == (1,))  # fmt: skip
    data[:] = eps
    made = prepared(b.graph(b.linear(y, 4)))
    (root,) = (n for n in made.nodes if n.op == "RSQRT")
    added = made.producer(root.inputs[0])
    assert np.all(made.constant(added.inputs[1]) == np.float32(eps))


def test_what_is_no_norm_stays():
    b = built("linear")
    x = b.nodes[-1].outputs[0]
    mean = b.add("MEAN", x, b.integers(3), keep_dims=True)
    y = b.add("MUL", x, b.add("RSQRT", b.add("MUL", mean, mean)))
    graph = b.graph(b.linear(y, 4))
    made = all_passes()["layer_norms"].apply(graph)
    assert made is graph


@pytest.mark.parametrize("norm", ["affine norm", "affine norm of products"])
def test_gamma_and_beta_go_into_the_next_layer(norm):
    graph = random_graph([norm], seed=4)
    made = prepared(graph)
    assert_equal(graph, made)
    assert Counter(n.op for n in made.nodes if n.op not in ("CONV_2D", "FULLY_CONNECTED", "RESHAPE")) == SHORT


def test_gamma_and_beta_that_others_read_are_one_depthwise_convolution():
    graph = random_graph(["affine norm", "gate"], seed=5)
    made = prepared(graph)
    assert_equal(graph, made)
    assert sum(n.op == "DEPTHWISE_CONV_2D" for n in made.nodes) == 1
    assert Counter(n.op for n in made.nodes)["ADD"] == 1  # eps alone


def test_beta_stays_where_zeros_are_put_beside_it():
    graph = random_graph(["affine norm", "pad", "conv"], seed=6)
    made = prepared(graph)
    assert_equal(graph, made)
    assert any(n.op == "DEPTHWISE_CONV_2D" for n in made.nodes)


def test_a_factor_behind_a_layer_goes_into_it():
    graph = random_graph(["linear", "MUL vector", "relu"], seed=7)
    made = prepared(graph)
    assert_equal(graph, made)
    assert not any(n.op == "MUL" for n in made.nodes)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=4), st.integers(0, 2**16),
       st.sampled_from(["integer", "cpu"]))  # fmt: skip
def test_all_passes_together_leave_the_function_as_it_was(names, seed, profile):
    graph = random_graph(names, seed)
    said = []
    made = prepared(graph, BY_PROFILE[profile], Door.on_noise(graph, log=said.append))
    assert said == []  # nothing was refused
    made.check()
    x, y = outputs(graph), outputs(made)
    assert float((x - y).abs().max()) < 1e-4 * float(x.abs().max())
    for name, fold in all_folds().items():
        for place in fold.places(made):
            r = 2.0 ** (np.arange(place.channels) % 5 - 2)
            z = outputs(fold.apply(made, place, r))
            assert float((z - y).abs().max()) < 1e-4 * float(y.abs().max()), (name, place.name)

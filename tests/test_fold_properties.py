"""Folds on generated graphs: every piece, operand kind, rank and reader leaves the float function as it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit.folds import all_folds
from tests._graphs import PIECES, outputs, random_graph

NAMES = sorted(PIECES)


def check_all_places(graph, seed):
    """How many places there are; every one of them is tried with a scale of its own."""
    expected, count = outputs(graph, seed), 0
    for name, fold in sorted(all_folds().items()):
        for place in fold.places(graph):
            # powers of two: constants are float32, and lose nothing by them
            powers = np.arange(place.channels) % 5 - 2
            r = 2.0 ** np.random.default_rng((seed, count)).permutation(powers)
            folded = fold.apply(graph, place, r)
            folded.check()
            error = float((outputs(folded, seed) - expected).abs().max())
            assert error < 1e-5 * float(expected.abs().max()), (name, place.name)
            count += 1
    return count


@pytest.mark.parametrize("name", NAMES)
def test_one_piece(name):
    check_all_places(random_graph([name], seed=1), seed=1)


def test_pieces_have_places():
    """What is tried above is not empty: nearly every piece leaves some tensor that takes a scale."""
    with_places = [n for n in NAMES if check_all_places(random_graph(["linear", n], seed=2), seed=2)]
    assert len(with_places) > 0.8 * len(NAMES)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4), st.integers(0, 2**16))
def test_pieces_behind_each_other(names, seed):
    check_all_places(random_graph(names, seed), seed)

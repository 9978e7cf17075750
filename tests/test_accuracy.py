"""Counts of accuracy against a closed form."""

import numpy as np
import pytest

from qhyvit.tasks.shared.accuracy import count


def one_hot(classes, n=6):
    return np.eye(n)[classes]


def test_counts_of_paired_outcomes():
    truth = np.array([0, 1, 2, 3, 4, 5])
    floating, integer = one_hot([0, 1, 2, 0, 0, 0]), one_hot([0, 1, 0, 3, 0, 1])
    found = count(integer, truth, floating)
    assert (found.top1, found.agree, found.gained, found.lost) == (3, 3, 1, 1)
    assert found.p_value == 1.0


def test_mcnemar_is_the_exact_binomial():
    truth = np.zeros(8, int)
    found = count(one_hot([1] * 6 + [0] * 2), truth, one_hot([0] * 8))
    assert (found.gained, found.lost) == (0, 6)
    assert found.p_value == pytest.approx(2 / 64)


def test_ties_go_to_the_lower_index_and_top5_counts():
    logits = np.zeros((1, 10))
    assert count(logits, np.array([0])).top1 == 1
    assert count(logits, np.array([4])).top5 == 1
    assert count(logits, np.array([5])).top5 == 0

"""Masks of attention and other constants that int8 cannot hold: minus infinity, float32's limits, NaN."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.errors import GraphError
from qhyvit.graph import edit
from qhyvit.models.shared.export import export
from qhyvit.models.shared.float_error import FLOAT_TOLERANCE
from qhyvit.models.shared.masks import finite
from qhyvit.models.shared.source import open_source
from qhyvit.tflite.read import read

TOKENS, WIDTH = 16, 8
LATER = torch.ones(TOKENS, TOKENS).triu(1).bool()
LOWEST = torch.finfo(torch.float32).min


class Attention(nn.Module):
    """Self-attention over 16 tokens; ``masked`` gets the scores [1, 16, 16]."""

    def __init__(self, masked, gain=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.qkv, self.head = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 5)
        self.qkv.weight.data *= gain
        self.masked, self.preprocess = masked, {"input_size": 32}

    def forward(self, x):
        q, k, v = self.qkv(self.stem(x).flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        if self.masked is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = self.masked(q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.head(y.amax(1))


FORMS = {
    "is_causal": None,
    "masked_fill": lambda s: s.masked_fill(LATER, -math.inf),
    "lowest": lambda s: s.masked_fill(LATER, LOWEST),
    "where": lambda s: torch.where(LATER, torch.tensor(-1e9), s),
    "sum": lambda s: s + torch.zeros(TOKENS, TOKENS).masked_fill(LATER, -math.inf),
    "product": lambda s: s + LATER.float() * -1e4,
    "difference": lambda s: s - LATER.float() * 1e9,
    "bias_behind": lambda s: s.masked_fill(LATER, -math.inf) + torch.eye(TOKENS),
}


def largest_constant(data):
    constants = [t.data for t in read(data).tensors.values() if t.data is not None and t.data.dtype.kind == "f"]
    return max(float(np.abs(c).max()) for c in constants)


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_becomes_finite_and_the_outputs_stay(form):
    made = export(open_source(Attention(FORMS[form], gain=4.0)))
    assert made.facts["float_error"] < FLOAT_TOLERANCE / 10
    assert 20 < largest_constant(made.tflite) < 200


def test_the_mask_is_lower_than_scores_lie_apart():
    """Where scores are far apart, what was enough for small ones would let masked tokens through."""
    found = [export(open_source(Attention(FORMS["masked_fill"], gain))) for gain in (1.0, 12.0)]
    assert all(made.facts["float_error"] < FLOAT_TOLERANCE / 10 for made in found)
    assert 2 * largest_constant(found[0].tflite) < largest_constant(found[1].tflite)


def test_a_mask_that_is_modest_already_is_let_be():
    made = export(open_source(Attention(lambda s: s + LATER.float() * -100)))
    assert largest_constant(made.tflite) == 100


def test_limits_that_limit_nothing_go():
    class Net(Attention):
        def forward(self, x):
            return self.head(self.stem(x).clamp(LOWEST, math.inf).clamp(min=0.1).mean((2, 3)))

    made = export(open_source(Net(None)))
    assert [n.op for n in read(made.tflite).nodes if n.op in ("MINIMUM", "MAXIMUM")] == ["MAXIMUM"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_other_constants_that_are_not_finite_are_refused_by_name(value):
    graph = read(export(open_source(Attention(lambda s: s + torch.eye(TOKENS)))).tflite)
    node = next(n for n in graph.nodes if n.op == "ADD")
    constant = next(t for t in node.inputs if graph.tensors[t].is_constant)
    bad = np.array(graph.constant(constant))
    bad.flat[0] = value
    with pytest.raises(GraphError, match=r"ADD in .* reads a constant that holds NaN or infinite"):
        finite(edit.with_constants(graph, {constant: bad}))

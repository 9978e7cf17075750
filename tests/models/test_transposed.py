"""Transposed convolutions in the converter's forms compute what torch's own do; the exported file does too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from qhyvit.lowering.lower import lower
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.models.shared.export import export
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.transposed import _Expressible, with_expressible
from qhyvit.passes import prepared
from qhyvit.plan import QuantPlan
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.agree import op_by_op
from qhyvit.verify.decide import HERE
from tests._codes import input_codes

FORMS = [
    {"kernel_size": k, "stride": s, "padding": p, "output_padding": o, "dilation": d, "groups": g}
    for k, s, p, o, d, g in [
        (3, 2, 1, 1, 1, 1), (3, 2, 1, 0, 1, 1), (5, 2, 2, 1, 1, 1), (3, 2, 0, 1, 1, 1), (3, 2, 1, 1, 2, 1),
        (2, 3, 0, 2, 1, 1), (3, 2, 1, 1, 1, 2),
        ((3, 2), (2, 1), (1, 0), (1, 0), 1, 1), ((4, 3), 2, (1, 0), 0, 1, 1), (7, 4, 3, 0, 1, 1),
    ]
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_the_converter_has_no_form_for_computes_the_same(form) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, **form)).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    found = with_expressible(net)
    assert isinstance(found[0], _Expressible)
    assert isinstance(net[0], nn.ConvTranspose2d), "the given module stays as it is"
    assert torch.allclose(found(x), net(x), atol=1e-12)


def test_one_dimension_too() -> None:
    net = nn.Sequential(nn.ConvTranspose1d(4, 6, 3, 2, 1, output_padding=1)).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    assert torch.allclose(with_expressible(net)(x), net(x), atol=1e-12)


@pytest.mark.parametrize("args", [(2, 2), (4, 2, 1), (3, 2), (3, 1, 1), (8, 4, 2)])
def test_what_it_has_a_form_for_stays(args) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, *args))
    assert with_expressible(net) is net


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.preprocess = {"input_size": 32}
        self.stem, self.act = nn.Conv2d(3, 8, 4, 4), nn.PReLU(8)
        self.act.weight.data = torch.linspace(-0.2, 0.9, 8)
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1), nn.ReLU(),
                                nn.ConvTranspose2d(6, 4, 3, 2, 1), nn.LeakyReLU(0.1),
                                nn.ConvTranspose2d(4, 4, 2, 2))  # fmt: skip
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.up(self.act(self.stem(x))).mean((2, 3)))


def test_a_network_with_them_is_exported() -> None:
    net = Net().eval()
    exported = export(open_source(copy.deepcopy(net)))
    assert exported.facts["float_error"] < 1e-5
    graph = read(exported.tflite)
    assert sum(n.op == "TRANSPOSE_CONV" for n in graph.nodes) == 3
    (cut,) = (n for n in graph.nodes if n.op == "SLICE")
    assert graph.producer(cut.inputs[0]).op == "TRANSPOSE_CONV"
    images = torch.rand(2, 32, 32, 3)
    found = method("minmax").search(Problem(prepared(graph), images), method("minmax").defaults)
    lowered = lower(found.shipped, QuantPlan(found.tensors, "minmax"))
    codes = input_codes(found, images, "input")
    agreement = op_by_op(found.graph, lowered, serialize(lowered.graph), images, codes, HERE)
    assert {row.op: row.worst for row in agreement.ops.values() if row.worst} == {}
    assert not agreement.missing

"""What TFLite has no op for is computed in another way, or refused with op, module and line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.errors import ExportError, GraphError
from qhyvit.models._export import FLOAT_TOLERANCE, export
from qhyvit.models._lowered import Lowered
from qhyvit.models._source import open_source
from qhyvit.tflite.read import read


class Net(nn.Module):
    """Logits [1, 5] for [1, 3, 32, 32]; ``mid`` works on [1, 8, 16, 16]."""

    def __init__(self, mid):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mid, self.head = nn.Conv2d(3, 8, 2, 2), mid, nn.Linear(8, 5)
        self.preprocess = {"input_size": 32}

    def forward(self, x):
        return self.head(self.mid(self.stem(x)).amax((2, 3)))


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


POOLS = [
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    nn.AvgPool2d((5, 3), (2, 1), (2, 0), count_include_pad=False),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d(3, 2, 0, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d(2, count_include_pad=False),
    nn.AvgPool2d([3], [2], [1], divisor_override=5, count_include_pad=False),
    nn.AdaptiveMaxPool2d(1),
    nn.AdaptiveMaxPool2d((4, None)),
    Function(lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)),
    Function(lambda x: F.adaptive_max_pool2d(x, output_size=2)),
]


@pytest.mark.parametrize("pool", POOLS)
def test_pooling_in_another_way_is_the_same(pool):
    x = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    with Lowered():
        found = pool(x)
    torch.testing.assert_close(found, pool(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pool", [POOLS[0], POOLS[7], nn.Conv1d(8, 8, 3, padding=1)])
def test_such_layers_export(pool):
    mid = pool if not isinstance(pool, nn.Conv1d) else nn.Sequential(nn.Flatten(2), pool, nn.Unflatten(2, (16, 16)))
    assert export(open_source(Net(mid))).facts["float_error"] < FLOAT_TOLERANCE


def turned(x):
    """What the converter gets wrong: constants on the left, and an axis made longer in front of a permutation."""
    y = x.reshape(8, 1, 16, 16).expand(-1, 2, -1, -1).permute(1, 0, 2, 3).mean(0, keepdim=True)
    return (1 - x) * (2 / (x.abs() + 1)) + y.expand(1, -1, -1, -1) * (x.sigmoid() + 1).reciprocal()


def fixed_grid(x):
    where = F.affine_grid(0.8 * torch.eye(2, 3)[None], [1, 8, 16, 16], align_corners=False)
    return F.grid_sample(x, where, align_corners=False)


@pytest.mark.parametrize("function", [turned, fixed_grid])
def test_what_the_converter_gets_wrong_has_another_form(function):
    assert export(open_source(Net(Function(function)))).facts["float_error"] < FLOAT_TOLERANCE


SIZES = [(4, 3, -1, 2), (-1, 3, 1, 2), (2, 4, 3, 5, 2), (7, 2)]


@pytest.mark.parametrize("sizes", SIZES)
def test_an_axis_is_repeated_as_torch_does(sizes):
    shape = [1 if 1 < s != 2 else s for s in sizes if s != -1]
    x = torch.randn(*(shape if -1 not in sizes else [1, 1, 1, 2] if sizes[1] == 3 else shape))
    with Lowered():
        found, again, by_one = x.expand(*sizes), 3 - x, torch.rsub(x, 2, alpha=3)
    torch.testing.assert_close(found, x.expand(*sizes))
    torch.testing.assert_close(again, 3 - x)
    torch.testing.assert_close(by_one, torch.rsub(x, 2, alpha=3))


class Counting(nn.Module):
    """Adds what only depends on positions."""

    def forward(self, x):
        y, z = torch.meshgrid(torch.linspace(-1, 1, 16), torch.arange(16.0) / 16, indexing="ij")
        return x + y * z + torch.eye(16)


def test_what_counts_positions_is_a_constant():
    made = export(open_source(Net(Counting())))
    assert made.facts["float_error"] < FLOAT_TOLERANCE
    assert {n.op for n in read(made.tflite).nodes if n.block == "mid"} == {"ADD"}


def data_dependent(x):
    return x if x.sum() > 0 else x + 1


def topk(x):
    return x.flatten(2).topk(4).values[..., None]


def in_order(x):
    return x.flatten(2).sort(-1).values[..., None]


def grid(x):
    where = F.affine_grid(x.mean((2, 3))[:, :6].reshape(1, 2, 3), [1, 8, 16, 16], align_corners=False)
    return F.grid_sample(x, where, align_corners=False)


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        (grid, GraphError, r"2 x FLOOR \(first in mid\)"),
        (topk, GraphError, r"1 x STABLEHLO_SORT \(first in mid; torch's sort, argsort, topk"),
        (in_order, GraphError, r"STABLEHLO_SORT \(first in mid; torch's sort"),
        (lambda x: x.cumsum(-1), GraphError, r"CUMSUM \(first in mid\)"),
        (nn.AdaptiveMaxPool2d(7), ExportError, r"adaptive_max_pool2d of \[16, 16\] to \[7, 7\]"),
        (lambda x: x * x.mean().item(), ExportError, r"At test_refusals\.py, line \d+, in forward: "),
        (data_dependent, ExportError, r"data-dependent .* At test_refusals\.py, line \d+, in forward: "),
    ],
)
def test_what_has_no_op_is_named(function, kind, words):
    with pytest.raises(kind, match=words) as caught:
        export(open_source(Net(Function(function))))
    assert "\n" not in str(caught.value)

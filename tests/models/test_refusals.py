"""What TFLite has no op for is computed in another way, or refused with op, module and line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.errors import ExportError, GraphError
from qhyvit.models.efficientformer import NormalizeTokens
from qhyvit.models.shared.export import export
from qhyvit.models.shared.float_error import FLOAT_TOLERANCE
from qhyvit.models.shared.modules import ChannelsLast
from qhyvit.models.shared.reason import reason
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.torch_forms import TorchForms
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
    with TorchForms():
        found = pool(x)
    torch.testing.assert_close(found, pool(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pool", [POOLS[0], POOLS[7], nn.Conv1d(8, 8, 3, padding=1)])
def test_such_layers_export(pool):
    mid = pool if not isinstance(pool, nn.Conv1d) else nn.Sequential(nn.Flatten(2), pool, nn.Unflatten(2, (16, 16)))
    assert export(open_source(Net(mid))).facts["float_error"] < FLOAT_TOLERANCE


def turned(x):
    """What the converter gets wrong: constants on the left, and an axis made longer in front of a permutation."""
    flat = x.reshape(8, 1, 16, 16)
    longer = flat.expand(-1, 2, -1, -1), flat.repeat(1, 2, 1, 1), flat.tile(1, 2, 1, 1), flat.repeat_interleave(2, 1)
    y = sum(m.permute(1, 0, 2, 3) * (i + 1.0) for i, m in enumerate(longer)).mean(0, keepdim=True)
    return (1 - x) * (2 / (x.abs() + 1)) + y.expand(1, -1, -1, -1) * (x.sigmoid() + 1).reciprocal()


def fixed_grid(x):
    where = F.affine_grid(0.8 * torch.eye(2, 3)[None], [1, 8, 16, 16], align_corners=False)
    return F.grid_sample(x, where, align_corners=False)


@pytest.mark.parametrize("function", [turned, fixed_grid])
def test_what_the_converter_gets_wrong_has_another_form(function):
    assert export(open_source(Net(Function(function)))).facts["float_error"] < FLOAT_TOLERANCE


MAPS, ROW = (2, 3, 16, 12), torch.arange(12)
CALLS = [
    lambda x: F.avg_pool2d(x, kernel_size=2, stride=2),
    lambda x: F.avg_pool2d(input=x, kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    lambda x: F.avg_pool2d(x, 3, 2, 1, False, False, divisor_override=4),
    lambda x: F.avg_pool2d(x.double(), 3, 2, 1, count_include_pad=False),
    lambda x: F.adaptive_max_pool2d(input=x, output_size=(4, None)),
    lambda x: x[..., 0, 0] @ torch.eye(n=3, m=5),
    lambda x: x[..., 0, 0] @ torch.eye(3, 5, dtype=torch.float32),
    lambda x: x[:1, :1].expand(4, 5, -1, 12),
    lambda x: x[:1].expand(size=(4, 3, 16, 12)),
    lambda x: x[0, 0, :1].expand((4, 2, 3, -1)),
    lambda x: x[0, 0, :1].expand(5, 12),
    lambda x: x[0, 0, 0, 0].expand(5),
    lambda x: x.repeat(2, 1, 3, 1),
    lambda x: x[0].repeat((2, 2, 1, 1)),
    lambda x: x.repeat(repeats=(1, 1, 1, 2)),
    lambda x: x.tile(2, 3),
    lambda x: torch.tile(x, dims=(2, 1, 1, 1, 3)),
    lambda x: torch.repeat_interleave(x, repeats=2, dim=-1),
    lambda x: torch.repeat_interleave(input=x, repeats=2, dim=1),
    lambda x: x.repeat_interleave(3, 0),
    lambda x: x.repeat_interleave(2),
    lambda x: x.repeat_interleave(torch.tensor([1, 2, 0]), dim=1),
    lambda x: 3 - x,
    lambda x: x[..., 11 - ROW],
    lambda x: torch.rsub(x, 2, alpha=3),
    lambda x: torch.add(x, x * x, alpha=2),
    lambda x: x.add(3, alpha=0.5),
    lambda x: torch.add(input=x, other=1),
    lambda x: torch.sub(x, x * x, alpha=2),
    lambda x: torch.sub(1, x, alpha=2),
    lambda x: x.sub(x * x),
    lambda x: torch.subtract(input=x, other=x * x, alpha=3),
    lambda x: torch.rsub(input=x, other=2),
    lambda x: 2 / x,
    lambda x: x * (2 / (1 + ROW)),
    lambda x: x.reciprocal() + torch.reciprocal(input=x),
]


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_a_form_takes_what_torch_takes(call):
    x = torch.randn(MAPS, generator=torch.Generator().manual_seed(0))
    with TorchForms():
        found = call(x)
    torch.testing.assert_close(found, call(x))


ACTIVATIONS = [nn.Softplus(), nn.Softplus(2.0), nn.Mish(), nn.ELU(), nn.ELU(0.5), nn.SELU(), nn.CELU(0.5), nn.CELU()]


@pytest.mark.parametrize("function", ACTIVATIONS, ids=str)
def test_activations_without_a_choice_are_the_same(function):
    x = torch.linspace(-12, 12, 1001, dtype=torch.float64)
    with TorchForms():
        found = function(x)
    torch.testing.assert_close(found, function(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("function", [nn.Mish(), nn.SELU()], ids=str)
def test_such_activations_export(function):
    assert export(open_source(Net(function))).facts["float_error"] < FLOAT_TOLERANCE


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


@pytest.mark.parametrize("ours", [ChannelsLast(nn.Identity()), NormalizeTokens(1e-6, 3)])
def test_the_place_of_an_error_is_in_the_users_code_not_in_ours(ours):
    """Equivalents and what several families share stand between a network and torch."""
    with pytest.raises((RuntimeError, TypeError, IndexError)) as caught:
        Function(lambda x: ours(x))(torch.ones(2))
    assert ", in forward: return self.function(x)" in reason(caught.value)
    assert "test_refusals.py" in reason(caught.value)

"""Bicubic resizes as two products, beside torch's own, at any size, factor and corners."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qhyvit.models.shared.export import export
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.torch_forms import TorchForms
from qhyvit.tflite.read import read


def both(x, *args, **named):
    """By the form, and by torch."""
    with TorchForms():
        found = F.interpolate(x, *args, **named)
    return found, F.interpolate(x, *args, **named)


@pytest.mark.parametrize("corners", [None, False, True])
@pytest.mark.parametrize(("sides", "size"), [
    ((8, 8), 16), ((8, 8), (16, 24)), ((7, 9), (15, 4)), ((5, 5), (5, 5)), ((6, 8), (3, 4)), ((9, 7), (1, 1)),
    ((1, 1), (4, 3)), ((1, 5), (3, 1)), ((2, 3), (9, 20)), ((3, 2), [7, 5]),
])  # fmt: skip
def test_to_a_size(sides, size, corners):
    x = torch.rand(2, 3, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, expected = both(x, size, mode="bicubic", align_corners=corners)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("again", [None, False, True])
@pytest.mark.parametrize("corners", [None, False, True])
@pytest.mark.parametrize("factor", [2, 2.0, 4.0, 0.5, 1.3, 0.7, (2.0, 1.5), (0.3, 3.1), [1.0, 2.0]])
def test_by_a_factor(factor, corners, again):
    """What lies between is by the factor itself, unless it is computed again of the sizes."""
    x = torch.rand(1, 2, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, expected = both(x, scale_factor=factor, mode="bicubic", align_corners=corners, recompute_scale_factor=again)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(1, 30), st.booleans(), st.integers(0, 99)
)
def test_at_any_size(height, width, to_height, to_width, corners, seed):
    x = torch.randn(1, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found, expected = both(x, (to_height, to_width), mode="bicubic", align_corners=corners)
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)


def test_in_float32_and_with_the_tensor_by_name():
    x = torch.randn(1, 3, 12, 9, generator=torch.Generator().manual_seed(1))
    with TorchForms():
        found = F.interpolate(input=x, scale_factor=2.0, mode="bicubic")
    torch.testing.assert_close(found, F.interpolate(x, scale_factor=2.0, mode="bicubic"), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("mode", "options"), [
    ("nearest", {}), ("bilinear", {}), ("bilinear", {"align_corners": True}), ("nearest-exact", {}), ("area", {}),
    ("bilinear", {"antialias": True}), ("bicubic", {"antialias": True}),
])  # fmt: skip
def test_other_modes_are_torchs(mode, options):
    x = torch.rand(1, 2, 6, 5, generator=torch.Generator().manual_seed(1))
    for size in ({"size": (9, 4)}, {"scale_factor": 2.0}):
        assert torch.equal(*both(x, mode=mode, **size, **options))


class Up(nn.Module):
    """A map that is resized twice, by a module and by the function."""

    def __init__(self, corners):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.corners = nn.Conv2d(3, 4, 4, 4), corners
        self.up = nn.Upsample(scale_factor=2, mode="bicubic", align_corners=corners)
        self.preprocess = {"input_size": 32}

    def forward(self, x):
        y = self.up(torch.relu(self.stem(x)))
        return F.interpolate(y, (20, 12), mode="bicubic", align_corners=self.corners)


@pytest.mark.parametrize("corners", [False, True])
def test_a_file_holds_products_and_no_gathers(corners):
    """The export compares the file with the module itself."""
    made = export(open_source(Up(corners).eval()))
    ops = [node.op for node in read(made.tflite).nodes]
    assert made.facts["outputs"] == [{"name": "output", "shape": [20, 12, 4]}]
    assert not {"GATHER", "GATHER_ND"} & set(ops)
    assert sum(op in ("FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D") for op in ops) == 5
    pairs = itertools.pairwise(ops)
    assert all(a != "TRANSPOSE" or b != "TRANSPOSE" for a, b in pairs)

"""Gradients stay finite where quantization sends a value to the edge of an op's domain."""

import pytest
import torch

from qhyvit.ops import spec
from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import fake_quantize


@pytest.mark.parametrize("op", ["RSQRT", "SQRT"])
def test_zero_gives_a_finite_gradient(op):
    x = torch.tensor([0.0, 1e-3, 4.0], requires_grad=True)
    y = spec(op).forward([x], None)
    fake_quantize(y, TensorQuant((0.01,), (-128,))).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_rsqrt_of_zero_is_the_highest_code():
    y = spec("RSQRT").forward([torch.zeros(1)], None)
    assert fake_quantize(y, TensorQuant((0.01,), (-128,))).item() == pytest.approx(2.55)

"""Fake quantization against torch's own operators, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import AT_ONCE, fake_quantize, learned_uniform

SCALES = st.floats(1e-3, 0.5)
ZEROS = st.integers(-128, 127)


def _away_from_ties(scale, seed, shape=(3, 5, 7)):
    """Values that no last bit of a product sends to another code."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-300, 300, shape, generator=generator)
    return (codes + 0.8 * (torch.rand(shape, generator=generator) - 0.5)) * scale


@settings(deadline=None, max_examples=40)
@given(SCALES, ZEROS, st.integers(0, 1000))
def test_values_and_gradient_are_torchs(scale, zero, seed):
    x = _away_from_ties(scale, seed).requires_grad_()
    grad = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + 1)) - 0.5
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)
    (wanted,) = torch.autograd.grad(expected, x, grad)
    found = fake_quantize(x, TensorQuant((scale,), (zero,)))
    (got,) = torch.autograd.grad(found, x, grad)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(got, wanted)


@settings(deadline=None, max_examples=40)
@given(SCALES, ZEROS, st.integers(0, 1000))
def test_learned_scale_and_zero_point_have_the_gradients_of_the_formula(scale, zero, seed):
    """LSQ, equation 3, and LSQ+ for the zero point, in float64; torch's own operator is off by up to a per cent."""
    x = _away_from_ties(scale, seed).requires_grad_()
    grad = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + 1)) - 0.5
    s, z = torch.tensor([scale], requires_grad=True), torch.tensor([float(zero)], requires_grad=True)
    d_x, d_scale, d_zero = torch.autograd.grad(learned_uniform(x, s, z, -128, 127), (x, s, z), grad)

    steps, g = x.detach().double() / scale, grad.double()
    codes = steps.round() + zero
    inside = (codes >= -128) & (codes <= 127)
    clipped = codes.clamp(-128, 127) - zero
    assert torch.equal(d_x, torch.where(inside, grad, torch.zeros_like(grad)))
    expected = float((g * torch.where(inside, clipped - steps, clipped)).sum())
    assert float(d_scale) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert float(d_zero) == pytest.approx(float((g * ~inside).sum()) * -scale, rel=1e-4, abs=1e-5)


def test_gradients_of_many_values_in_any_layout_are_those_of_the_formula():
    """More than one part of a sum, the last one not whole, values and gradients that lie in other orders."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, AT_ONCE // 7, generator=random).transpose(0, 1).requires_grad_()
    grad = (torch.rand(3, AT_ONCE // 7, 5, generator=random) - 0.5).permute(2, 0, 1)
    s, z = torch.tensor([0.01], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    d_x, d_scale, d_zero = torch.autograd.grad(learned_uniform(x, s, z, -128, 127), (x, s, z), grad)
    steps, g = x.detach().double() / 0.01, grad.double()
    inside = (steps > -131.5) & (steps < 124.5)
    codes = torch.where(inside, steps.round() - steps, steps.round().clamp(-131, 124))
    assert torch.equal(d_x, torch.where(inside, grad, torch.zeros_like(grad)))
    assert float(d_scale) == pytest.approx(float((g * codes).sum()), rel=1e-3)
    assert float(d_zero) == pytest.approx(float((g * ~inside).sum()) * -0.01, rel=1e-3)
    (again,) = torch.autograd.grad(learned_uniform(x, s, z.detach(), -128, 127), (s,), grad)
    assert torch.equal(again, d_scale)


def test_a_strided_view_is_rounded_like_its_copy():
    x = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    quant = TensorQuant((0.03,), (4,))
    assert torch.equal(fake_quantize(x, quant), fake_quantize(x.contiguous(), quant))


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_codes_stay_within_their_bits(bits):
    quant = TensorQuant((0.1,), (-(1 << (bits - 1)),), bits=bits)
    codes = fake_quantize(torch.linspace(-50, 50, 1001), quant) / 0.1
    assert float(codes.min()) == 0.0
    assert float(codes.max()) == pytest.approx(2**bits - 1, rel=1e-6)

"""Affine arithmetic against closed forms and by properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhyvit import affine

ends = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)).map(sorted)


@given(ends, st.booleans(), st.integers(4, 8))
def test_zero_is_exact_and_the_zero_point_inside(ends, symmetric, bits):
    g = affine.grid(bits)
    params = affine.fit(*ends, g, symmetric=symmetric)
    assert g.qmin <= params.zero_point <= g.qmax
    code = affine.quantize(0.0, params.scale, params.zero_point, g)
    assert affine.dequantize(code, params.scale, params.zero_point) == 0.0


@given(ends, st.floats(0, 1))
def test_values_inside_the_range_move_by_half_a_step_at_most(ends, share):
    params = affine.fit(*ends, affine.grid(), symmetric=False)
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    x = low + share * (high - low)
    back = affine.dequantize(
        affine.quantize(x, params.scale, params.zero_point, affine.grid()), params.scale, params.zero_point
    )
    # the zero point is rounded too: up to half a step more at the ends
    assert abs(back - x) <= 1.001 * params.scale + 1e-9


@pytest.mark.parametrize(
    ("low", "high", "zero_point", "overflows"),
    [
        (2.0, 5.0, -128, True),
        (-5.0, -2.0, 127, True),
        (3.0, 3.0, -128, True),
        (-1.0, 1.0, 0, False),
        (0.0, 0.0, -128, False),
    ],
)
def test_ranges_off_zero_are_extended_and_say_what_it_costs(low, high, zero_point, overflows):
    params = affine.fit(low, high, affine.grid(), symmetric=False)
    assert abs(int(params.zero_point) - zero_point) <= (1 if low == -high else 0)
    assert bool(params.overflow != 0) == overflows
    assert params.resolution_loss >= 0.999
    if (low, high) == (2.0, 5.0):
        assert params.resolution_loss == pytest.approx(5 / 3, rel=1e-6)


def test_scales_are_float32_values_above_the_floor():
    params = affine.fit(0.0, 1e-30, affine.grid(), symmetric=False)
    assert params.scale >= affine.SCALE_FLOOR * (1 - 1e-6)
    assert float(np.float32(params.scale)) == float(params.scale)


def test_a_range_that_is_not_ordered_is_refused():
    with pytest.raises(ValueError, match="ordered"):
        affine.fit(1.0, -1.0, affine.grid(), symmetric=False)


def test_channels_have_their_own_scale():
    x = np.array([[1.0, 100.0], [-1.0, 50.0]])
    codes = affine.quantize(x, [0.01, 1.0], [0, 0], affine.grid(), axis=1)
    assert codes.tolist() == [[100, 100], [-100, 50]]

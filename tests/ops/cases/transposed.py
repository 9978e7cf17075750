"""Transposed convolutions."""

from __future__ import annotations

from _single_op import Case, act, case, const, ints


def _transposed() -> list[Case]:
    x, found = act(1, 5, 4, 6), []
    for kernel, stride, padding, out in [
        (2, 2, "VALID", (10, 8)), (3, 2, "VALID", (11, 9)), (4, 2, "SAME", (10, 8)), (3, 2, "SAME", (10, 8)),
        (3, 2, "SAME", (9, 7)), (4, 2, "VALID", (12, 10)), (3, 1, "SAME", (5, 4)), (8, 4, "SAME", (20, 16)),
    ]:  # fmt: skip
        w, b = const(5, kernel, kernel, 6), const(5)
        options = {"padding": padding, "stride_h": stride, "stride_w": stride}
        found.append(case("TRANSPOSE_CONV", ints(1, *out, 5), w, x, b, **options))
    odd = {"padding": "VALID", "stride_h": 3, "stride_w": 1}
    found.append(case("TRANSPOSE_CONV", ints(1, 14, 7, 5), const(5, 2, 4, 6), x, const(5), **odd))
    found.append(case("TRANSPOSE_CONV", ints(1, 10, 8, 5), const(5, 2, 2, 6), x, None, stride_h=2, stride_w=2))
    fused = {"stride_h": 2, "stride_w": 2, "fused_activation_function": "RELU"}
    found.append(case("TRANSPOSE_CONV", ints(1, 10, 8, 5), const(5, 4, 4, 6), x, const(5), **fused))
    return found


CASES = _transposed()

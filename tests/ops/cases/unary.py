"""Elementwise ops with one operand, and SOFTMAX."""

from __future__ import annotations

from _single_op import Case, act, case, const


def _unary() -> list[Case]:
    x = act(1, 4, 5, 6, low=-6.0, high=6.0)
    names = ("LOGISTIC", "TANH", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "EXP", "ABS", "NEG", "SQUARE",
             "HARD_SWISH")  # fmt: skip
    found = [case(op, x) for op in names] + [case(op, act(7, 6)) for op in names]
    positive = act(1, 4, 5, 6, low=0.25, high=5.0)
    found += [case(op, positive) for op in ("SQRT", "RSQRT")] + [case("RSQRT", act(7, 1, low=0.25))]
    found += [case("LOG", act(1, 4, 6, low=0.0, high=40.0)), case("LOG", act(9, 1, low=0.5, high=256.0))]
    found += [case("ELU", x), case("ELU", act(2, 5, 7, low=-8.0, high=0.0))]
    found += [case("PRELU", x, const(1, 1, 6)), case("PRELU", x, const(6)), case("PRELU", act(2, 7, 6), const(1, 6))]
    found += [case("PRELU", x, const(1, 1, 1, 6, low=0.1, high=0.4)), case("PRELU", act(7, 6), const(1))]
    found += [case("GELU", x), case("GELU", x, approximate=True), case("LEAKY_RELU", x, alpha=0.125)]
    found += [case("SOFTMAX", act(*s), beta=1.0) for s in [(2, 5, 7), (1, 3, 5, 7), (4, 7), (2, 1, 9)]]
    found.append(case("SOFTMAX", act(2, 5, 7), beta=0.5))
    return found


CASES = _unary()

"""Elementwise ops with two operands or more."""

from __future__ import annotations

import numpy as np
from _single_op import Case, act, case, const


def _elementwise() -> list[Case]:
    x = act(1, 4, 5, 6)
    found = []
    for op in ("ADD", "SUB", "MUL"):
        found += [
            case(op, x, act(1, 4, 5, 6)),
            case(op, x, const(6)),
            case(op, x, const(1)),
            case(op, const(), x),
            case(op, act(7, 6), const(7, 1)),
            case(op, act(1, 7, 6), act(1, 1, 1)),
            case(op, act(2, 7, 6), act(2, 1, 6)),
            case(op, act(1, 6), act(1, 4, 5, 6)),
            case(op, x, const(6), fused_activation_function="RELU6"),
            case(op, x, act(1, 4, 5, 6), fused_activation_function="RELU"),
        ]
    positive = act(1, 4, 5, 6, low=0.5, high=4.0)
    found += [
        case("DIV", x, positive),
        case("DIV", act(2, 4, 6), act(2, 4, 1, low=0.5)),
        case("DIV", x, const(6, low=1.0), fused_activation_function="RELU6"),
    ]
    for op in ("MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"):
        found += [case(op, x, act(1, 4, 5, 6)), case(op, x, const()), case(op, act(1, 7, 6), act(1, 7, 1))]
        found.append(case(op, act(7, 6), act(1, 4, 7, 6)))
    found.append(case("DIV", act(7, 6), act(1, 4, 7, 6, low=0.5)))
    found.append(case("MAXIMUM", x, np.array(-np.inf, np.float32)))
    found += [case("POW", positive, const()), case("POW", positive, const(6))]
    mask = np.arange(6) % 2 == 0
    found += [
        case("SELECT_V2", mask, x, act(1, 4, 5, 6)),
        case("SELECT_V2", np.arange(20).reshape(1, 4, 5, 1) % 3 == 0, x, const()),
    ]
    return found


CASES = _elementwise()

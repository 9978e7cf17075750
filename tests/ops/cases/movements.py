"""Ops that move all values."""

from __future__ import annotations

import numpy as np
from _single_op import Case, act, case, const, ints


def _movements() -> list[Case]:
    x = act(1, 4, 6, 5)
    found = [case("RESHAPE", x, ints(*s)) for s in [(24, 5), (4, 6, 5), (1, 2, 2, 30), (1, -1), (120,)]]
    found.append(case("RESHAPE", act(1, 1, 1), ints(1, 1, 1, 1)))
    for perm in [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (0, 2, 1, 3), (0, 3, 2, 1), (2, 0, 1, 3), (1, 2, 0, 3)]:
        found.append(case("TRANSPOSE", act(2, 3, 4, 5), ints(*perm)))
    found += [case("TRANSPOSE", act(3, 4, 5), ints(*p)) for p in [(1, 0, 2), (1, 2, 0), (0, 2, 1)]]
    for perm in [(2, 0, 3, 1, 4), (0, 2, 1, 3, 4), (1, 3, 0, 2, 4), (2, 0, 3, 1, 4)]:
        found.append(case("TRANSPOSE", act(2, 3, 4, 2, 5), ints(*perm)))
    found += [
        case("PAD", x, ints([0, 0], [1, 1], [1, 1], [0, 0])),
        case("PAD", x, ints([0, 0], [0, 1], [2, 0], [0, 3])),
        case("PAD", act(3, 4), ints([1, 0], [0, 2])),
        case("PADV2", x, ints([0, 0], [1, 1], [2, 0], [0, 1]), const()),
        case("PADV2", act(3, 4), ints([0, 0], [0, 1]), np.array(1, np.float32)),
        case("MIRROR_PAD", x, ints([0, 0], [1, 2], [2, 0], [0, 0]), mode="REFLECT"),
        case("MIRROR_PAD", x, ints([0, 0], [1, 2], [0, 3], [0, 0]), mode="SYMMETRIC"),
        case("REVERSE_V2", x, ints(3)),
        case("REVERSE_V2", act(3, 4), ints(0)),
    ]
    return found


CASES = _movements()

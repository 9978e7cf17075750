"""Reductions."""

from __future__ import annotations

import numpy as np
from _single_op import Case, act, case, ints


def _reductions() -> list[Case]:
    found = []
    for op in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        for axes in [(2,), (1,), (0,), (0, 2), (1, 2), (2, 1), (0, 1, 2), (-1,)]:
            for keep in (True, False):
                found.append(case(op, act(3, 4, 5), ints(*axes), keep_dims=keep))
        for axes in [(2, 3), (1, 2), (2, 1), (3,)]:
            found.append(case(op, act(1, 4, 5, 6), ints(*axes), keep_dims=axes == (1, 2)))
        found.append(case(op, act(3, 4), np.array(1, np.int32), keep_dims=True))  # scalar axis
    return found


CASES = _reductions()

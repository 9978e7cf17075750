"""Ops that take apart, join and repeat."""

from __future__ import annotations

import numpy as np
from _single_op import Case, act, case, const, ints


def _parts() -> list[Case]:
    x = act(1, 4, 6, 5)
    return [
        case("CONCATENATION", x, act(1, 4, 6, 2), axis=3),
        case("CONCATENATION", x, act(1, 2, 6, 5), const(1, 1, 6, 5), axis=1),
        case("CONCATENATION", act(3, 4), act(3, 2), axis=-1),
        case("SLICE", act(3, 4), ints(1, 0), ints(1, 4)),
        case("SLICE", act(3, 4, 5), ints(0, 2, 1), ints(-1, 2, -1)),
        case("SLICE", x, ints(0, 1, 2, 0), ints(1, 2, 3, 5)),
        case("SLICE", act(3, 1, 2, 4, 5), ints(2, 0, 0, 0, 0), ints(1, 1, 2, 4, 5)),
        case("STRIDED_SLICE", x, ints(0, 1, 0, 0), ints(1, 4, 6, 5), ints(1, 1, 1, 1)),
        case("STRIDED_SLICE", x, ints(0, 0, 0, 0), ints(1, 4, 6, 5), ints(1, 2, 2, 1)),
        case("STRIDED_SLICE", x, ints(0, 1, 1, -2), ints(1, -1, 0, 0), ints(1, 1, 2, 1), begin_mask=3, end_mask=12),
        case("STRIDED_SLICE", act(3, 4, 5), ints(1, 0, 0), ints(2, 4, 5), ints(1, 1, 1), shrink_axis_mask=1),
        case("STRIDED_SLICE", act(3, 4, 5), ints(-1, 3, 0), ints(0, 0, 5), ints(1, -1, 1), shrink_axis_mask=1),
        case("STRIDED_SLICE", act(3, 4), ints(2, 0), ints(0, 4), ints(-2, 1), end_mask=1),
        case("SPACE_TO_BATCH_ND", x, ints(2, 3), ints((0, 0), (0, 0))),
        case("SPACE_TO_BATCH_ND", act(2, 3, 5, 2), ints(2, 2), ints((0, 1), (2, 1))),
        case("BATCH_TO_SPACE_ND", act(4, 3, 2, 5), ints(2, 2), ints((0, 0), (0, 0))),
        case("BATCH_TO_SPACE_ND", act(12, 3, 2, 5), ints(2, 3), ints((1, 0), (0, 2))),
        case("SPLIT", np.array(3, np.int32), act(1, 4, 6, 8), num_splits=2),
        case("SPLIT", np.array(1, np.int32), act(3, 6, 4), num_splits=3),
        case("SPLIT", np.array(-1, np.int32), act(3, 8), num_splits=4),
        case("GATHER", act(3, 4, 5), ints(2, 0, 0), axis=1),
        case("GATHER", act(3, 4, 5), ints([2, 0], [1, 1]), axis=0),
        case("GATHER", act(3, 4, 5), ints(4, 0), axis=-1),
        case("GATHER", act(3, 4, 5), np.array(1, np.int32), axis=1),
        case("GATHER_ND", act(3, 4, 5), ints([2, 0], [1, 1])),
        case("GATHER_ND", act(2, 4, 5), ints([[1], [0]], [[1], [1]])),
        case("GATHER_ND", x, ints([0, 3, 2, 4], [0, 1, 0, 0], [0, 3, 2, 4])),
        case("BROADCAST_TO", act(1, 1, 5), ints(3, 4, 5)),
        case("BROADCAST_TO", act(4, 1), ints(2, 4, 3)),
        case("EXPAND_DIMS", act(3, 4), np.array(1, np.int32)),
        case("EXPAND_DIMS", act(3, 4), np.array(-1, np.int32)),
        case("SQUEEZE", act(1, 3, 1, 4), squeeze_dims=(0, 2)),
        case("SQUEEZE", act(1, 3, 1, 4), squeeze_dims=(-2,)),
        case("SQUEEZE", act(1, 3, 1, 4)),
        case("PACK", act(3, 4), act(3, 4), values_count=2, axis=0),
        case("PACK", act(3, 4), act(3, 4), const(3, 4), values_count=3, axis=1),
        case("PACK", act(3, 4), act(3, 4), values_count=2, axis=-1),
        case("UNPACK", act(3, 4, 5), num=3, axis=0),
        case("UNPACK", act(3, 4, 5), num=5, axis=-1),
    ]


CASES = _parts()

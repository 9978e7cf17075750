"""Pools and resizes."""

from __future__ import annotations

from _single_op import Case, act, case, ints


def _windows() -> list[Case]:
    found = []
    for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        for size in ((8, 8), (7, 5)):
            for p, k, s in [("SAME", 3, 1), ("SAME", 3, 2), ("VALID", 3, 2), ("VALID", 1, 2), ("SAME", 2, 2)]:
                found.append(
                    case(op, act(1, *size, 4), padding=p, stride_h=s, stride_w=s, filter_height=k, filter_width=k)
                )
        odd = {"stride_h": 2, "stride_w": 1, "filter_height": 2, "filter_width": 3}
        found.append(case(op, act(1, 8, 8, 4), padding="VALID", fused_activation_function="RELU", **odd))
    for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        for new in [(14, 14), (7, 7), (5, 9), (3, 2), (1, 1), (13, 20)]:
            for mode in ({"half_pixel_centers": True}, {"align_corners": True}, {}):
                found.append(case(op, act(1, 7, 7, 3), ints(*new), **mode))
    return found


CASES = _windows()

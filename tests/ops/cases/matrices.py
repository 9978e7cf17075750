"""Products of matrices, with constant weights and without."""

from __future__ import annotations

from _single_op import Case, act, case, const


def _matrices() -> list[Case]:
    w, b = const(5, 6), const(5)
    return [
        case("FULLY_CONNECTED", act(4, 6), w, b),
        case("FULLY_CONNECTED", act(4, 6), w, None, fused_activation_function="RELU"),
        case("FULLY_CONNECTED", act(1, 4, 6), w, b, keep_num_dims=True, fused_activation_function="RELU6"),
        case("FULLY_CONNECTED", act(1, 3, 4, 6), w, None, keep_num_dims=True),
        case("FULLY_CONNECTED", act(2, 4, 6), w, b, keep_num_dims=False),
        case("FULLY_CONNECTED", act(2, 4, 3), w, b, keep_num_dims=False),
        case("FULLY_CONNECTED", act(2, 4, 12), w, b, keep_num_dims=False),
        case("BATCH_MATMUL", act(3, 4, 5), act(3, 5, 6)),
        case("BATCH_MATMUL", act(3, 4, 5), act(3, 6, 5), adj_y=True),
        case("BATCH_MATMUL", act(3, 5, 4), act(3, 5, 6), adj_x=True),
        case("BATCH_MATMUL", act(3, 5, 4), act(3, 6, 5), adj_x=True, adj_y=True),
        case("BATCH_MATMUL", act(4, 5), act(5, 6)),
        case("BATCH_MATMUL", const(4, 5), act(5, 6)),
        case("BATCH_MATMUL", act(2, 3, 4, 5), act(2, 3, 5, 6)),
        case("BATCH_MATMUL", act(1, 4, 5), act(3, 5, 6)),
        case("BATCH_MATMUL", act(2, 3, 4, 5), act(3, 5, 6)),
        case("BATCH_MATMUL", act(3, 4, 5), const(3, 5, 6)),
    ]


CASES = _matrices()

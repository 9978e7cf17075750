"""Every op with the attribute values that the exports of the five families hold, and the neighbouring ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from _single_op import Activation, Case, Operand


def act(*shape: int, low: float = -3.0, high: float = 3.0) -> Activation:
    return Activation(shape, low, high)


def const(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(sum(shape) + 17 * len(shape))
    return rng.uniform(low, high, shape).astype(np.float32)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def case(op: str, *operands: Operand, **options: Any) -> Case:
    return Case(op, operands, options)


def _convolutions() -> list[Case]:
    x, w, b = act(1, 8, 7, 6), const(5, 3, 3, 6), const(5)
    found = [
        case("CONV_2D", x, w, b, padding=p, stride_h=s, stride_w=s, fused_activation_function=f)
        for p, s, f in [("SAME", 1, "NONE"), ("SAME", 2, "RELU"), ("VALID", 1, "RELU6"), ("VALID", 2, "NONE")]
    ]
    found += [
        case("CONV_2D", x, const(4, 1, 1, 6), const(4), padding="VALID"),
        case("CONV_2D", x, const(4, 1, 1, 6), const(4), padding="SAME", stride_h=2, stride_w=1),
        case("CONV_2D", x, const(4, 3, 3, 3), const(4)),  # two groups
        case("CONV_2D", x, w, b, dilation_h_factor=2, dilation_w_factor=2),
        case("CONV_2D", act(1, 8, 7, 6), const(4, 2, 4, 6), const(4), fused_activation_function="RELU_N1_TO_1"),
    ]
    for m in (1, 3, 4, 6):
        found.append(case("DEPTHWISE_CONV_2D", x, const(1, 3, 3, 6 * m), const(6 * m), depth_multiplier=m))
    for p, s, f in [("SAME", 2, "RELU6"), ("VALID", 2, "NONE"), ("VALID", 1, "RELU")]:
        options = {"padding": p, "stride_h": s, "stride_w": s, "fused_activation_function": f}
        found.append(case("DEPTHWISE_CONV_2D", x, const(1, 3, 3, 6), const(6), **options))
    found.append(case("DEPTHWISE_CONV_2D", x, const(1, 1, 1, 6), const(6), padding="VALID"))
    found.append(case("DEPTHWISE_CONV_2D", x, const(1, 3, 3, 6), const(6), dilation_h_factor=2, dilation_w_factor=2))
    found += [
        case("CONV_2D", x, w, b, padding="VALID", dilation_h_factor=3, dilation_w_factor=2),
        case("CONV_2D", x, const(6, 3, 3, 2), const(6), stride_h=2, stride_w=2),  # three groups
        case("CONV_2D", x, const(4, 3, 2, 3), const(4), padding="VALID", dilation_h_factor=2),
        case("CONV_2D", x, w, b, stride_h=2, stride_w=2, dilation_h_factor=2, dilation_w_factor=2),
        case("DEPTHWISE_CONV_2D", x, const(1, 3, 3, 6), const(6), stride_h=2, stride_w=2, dilation_h_factor=2,
             dilation_w_factor=2),
        case("DEPTHWISE_CONV_2D", x, const(1, 3, 2, 12), const(12), depth_multiplier=2, dilation_h_factor=2),
        case("DEPTHWISE_CONV_2D", x, const(1, 2, 4, 12), const(12), depth_multiplier=2, padding="VALID", stride_w=2),
    ]
    return found


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


def _unary() -> list[Case]:
    x = act(1, 4, 5, 6, low=-6.0, high=6.0)
    names = ("LOGISTIC", "TANH", "RELU", "RELU6", "EXP", "ABS", "NEG", "SQUARE", "HARD_SWISH")
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


CASES = [
    *_convolutions(), *_transposed(), *_matrices(), *_elementwise(), *_unary(), *_reductions(), *_windows(),
    *_movements(), *_parts(),
]  # fmt: skip

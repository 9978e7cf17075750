"""BATCH_MATMUL: [.., M, K] x [.., K, N], either operand transposed on request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.elementwise import align
from qhyvit.ops.shared.fixed_point import product_steps
from qhyvit.ops.shared.integer import accumulates, in_steps, saturated, scale
from qhyvit.ops.shared.spec import Codes, Kernel, Nonnegative, OpSpec, Quants, Shape


@dataclass(frozen=True)
class BatchMatMulAttrs:
    """Attributes of BatchMatMulOptions."""

    adj_x: bool = False
    adj_y: bool = False


def _forward(inputs: Sequence[Any], attrs: BatchMatMulAttrs) -> torch.Tensor:
    a, b = align(inputs[0], inputs[1])
    if attrs.adj_x:
        a = a.transpose(-1, -2)
    if attrs.adj_y:
        b = b.transpose(-1, -2)
    return a @ b


def _swap(shape: Shape, swap: bool) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if swap else shape


def _shape(shapes: Sequence[Shape], attrs: BatchMatMulAttrs, constants: Sequence[Any]) -> Shape:
    a, b = _swap(shapes[0], attrs.adj_x), _swap(shapes[1], attrs.adj_y)
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])


def _macs(shapes: Sequence[Shape], out: Shape) -> int:
    # [.., M, K], or [.., K, M] if transposed, -> K; M is the result's
    return math.prod(out) * (math.prod(shapes[0][-2:]) // out[-2])


_of_bytes = accumulates(_forward, 0, 1, summed=lambda attrs: (-1,) if attrs.adj_y else (-2,),
                        in_float32=True)  # fmt: skip


def _integer(codes: Sequence[Codes], quants: Quants, attrs: BatchMatMulAttrs, kernel: Kernel) -> list[np.ndarray]:
    """In int16 the sum of products times s_a s_b / s_out by a 15-bit multiplier."""
    (write,), (a, b) = quants.writes, quants.reads
    assert a is not None
    assert b is not None
    if write.bits == 8:
        return list(_of_bytes(codes, quants, attrs, kernel if b.zero_point == 0 else Kernel.REFERENCE))
    total = _forward([x.double() for x in in_steps(codes, quants)], attrs).numpy()
    return [saturated(product_steps(total.astype(np.int64), float(scale(a) * scale(b)) / write.scale[0]), write)]


OP = OpSpec(
    name="BATCH_MATMUL",
    options="BatchMatMulOptions",
    attrs=BatchMatMulAttrs,
    infer_shape=_shape,
    forward=_forward,
    symmetric_inputs=(1,),
    macs=_macs,
    factors=(0, 1),
    integer=_integer,
    nonnegative=Nonnegative.OF_ALL,
    xnnpack=("Batch Matrix Multiply",),
)

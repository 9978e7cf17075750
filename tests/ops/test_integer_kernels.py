"""``OpSpec.integer`` against the interpreter, code by code, on grids of every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _cases import CASES
from _single_op import Activation, Case, Grid, Quantized, build, delegated, interpreter, quantize, run

from qhyvit.ops._spec import Fixed, Kernel, Quantization, Quants, Tied

IMAGES, GRIDS = 4, 6
CODED = [
    c for c in CASES if c.spec.integer and all(np.isfinite(o).all() for o in c.operands if isinstance(o, np.ndarray))
]
HERE = Kernel.X86


def _scaled(grid: Grid, factor: float, zero_point: int | None = None) -> Grid:
    zeros = grid.zero_point if zero_point is None else np.full_like(grid.zero_point, zero_point)
    return replace(grid, scale=(grid.scale * factor).astype(np.float32).astype(np.float64), zero_point=zeros)


def odd_grids(case: Case, grids: Quantized, rng: np.random.Generator) -> Quantized:
    """Other scales and zero points, as far as the op's contract leaves them free."""
    op, shift = case.spec, int(rng.integers(-90, 90))
    together, apart = 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-0.4, 0.4)
    tied = isinstance(op.out, Tied)
    operands: list[Grid | None] = []
    for i, grid in enumerate(grids.operands):
        if grid is None or i in (op.weight_input, op.bias_input):
            operands.append(grid)
            continue
        free = i not in op.symmetric_inputs and op.input_zero_point is None
        is_tied = tied and (op.out.inputs is None or i in op.out.inputs)
        own = shift if is_tied else int(rng.integers(-100, 100))
        factor = together if is_tied else together * 10 ** rng.uniform(-0.3, 0.3)
        operands.append(_scaled(grid, factor, own if free else None))
    if op.bias_input >= 0 and case.operands[op.bias_input] is not None:
        data, weight = operands[op.data_input], operands[op.weight_input]
        operands[op.bias_input] = Grid(data.scale * weight.scale, np.zeros(weight.scale.size, np.int64))
    out = grids.outputs[0]
    if tied:
        out = next(g for i, g in enumerate(operands) if g is not None and (op.out.inputs is None or i in op.out.inputs))
    elif not isinstance(op.out, Fixed):
        out = _scaled(out, together**_degree(case) * apart, int(rng.integers(-110, 110)))
    return Quantized(tuple(operands), (out,) * len(grids.outputs))


def _degree(case: Case) -> float:
    """How the result grows with its operands, roughly."""
    activations = sum(isinstance(o, Activation) for o in case.operands)
    if case.op in ("MUL", "BATCH_MATMUL", "SQUARED_DIFFERENCE"):
        return activations if case.op != "SQUARED_DIFFERENCE" else 2
    return {"RSQRT": -0.5, "SQRT": 0.5, "LOG": 0.0, "SOFTMAX": 0.0}.get(case.op, 1.0)


def quantization(grid: Grid | None, *, bias: bool = False) -> Quantization | None:
    if grid is None:
        return None
    axis = grid.axis if grid.scale.size > 1 else None
    return Quantization(tuple(map(float, grid.scale)), int(grid.zero_point[0]), axis, 32 if bias else 8)


def mine(case: Case, codes: list, grids: Quantized, kernel: Kernel) -> list[np.ndarray]:
    """What our arithmetic gives, [B, *shape] each."""
    op = case.spec
    given = []
    for i, (operand, grid, fed) in enumerate(zip(case.operands, grids.operands, codes, strict=True)):
        if fed is not None:
            given.append(fed.astype(np.int64))
        elif grid is None:
            given.append(operand)
        else:
            low, high = (-127, 127) if i == op.weight_input else (-128, 127)
            limits = (-(2**31), 2**31 - 1) if i == op.bias_input else (low, high)
            constant = grid.codes(operand, *limits)
            given.append(constant if i in (op.weight_input, op.bias_input) else constant[None])
    reads = tuple(quantization(g, bias=i == op.bias_input) for i, g in enumerate(grids.operands))
    writes = tuple(quantization(g) for g in grids.outputs)
    return list(op.integer(given, Quants(reads, writes), case.attrs, kernel))


def compare(case: Case, delegate: bool) -> tuple[bool, int, int, int]:
    """Whether XNNPACK took it; codes compared, codes that differ, and by how much at most."""
    rng = np.random.default_rng(len(str(case)))
    images = case.images(IMAGES)
    natural = quantize(case, images)
    taken, count, parted, worst = False, 0, 0, 0
    for number in range(GRIDS):
        grids = natural if number == 0 else odd_grids(case, natural, rng)
        codes = []
        for i, (x, g) in enumerate(zip(images, grids.operands, strict=True)):
            if x is None or g is None:
                codes.append(None)
            elif number == 0:
                codes.append(g.codes(x).astype(np.int8))
            else:
                low = -127 if i in case.spec.symmetric_inputs else -128
                codes.append(rng.integers(low, 128, x.shape).astype(np.int8))
        made = interpreter(build(case, grids), delegate)
        taken |= delegated(made)
        ours = mine(case, codes, grids, HERE if delegate else Kernel.REFERENCE)
        for found, expected in zip(run(made, codes), ours, strict=True):
            difference = np.abs(found.astype(np.int64) - expected.reshape(found.shape))
            count, parted = count + difference.size, parted + int((difference > 0).sum())
            worst = max(worst, int(difference.max(initial=0)))
    return taken, count, parted, worst


@pytest.mark.parametrize("case", CODED, ids=str)
def test_every_code_is_that_of_litert_with_xnnpack(case: Case) -> None:
    _, _, parted, _ = compare(case, delegate=True)
    assert parted == 0

"""``OpSpec.integer`` against TensorFlow Lite Micro's own interpreter, code by code."""

from __future__ import annotations

import numpy as np
import pytest
from _kernels import CODED, MATRICES, SHORT, Trial, compare, grid, matrix_trials, short_trials, trials
from _single_op import Case, Quantized, act, case

from qhyvit.ops.shared.spec import Kernel
from qhyvit.targets import target

micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="needs qhyvit[tflm]")
GRIDS, ARENA = 6, 8 << 20
MICRO = target("tflm")
MISSING = MICRO.tables | MICRO.lacks
LONG = 512  # exponentials that add up to so much end the process


def parted(found: list[Trial]) -> int:
    """How many codes part from ours."""
    count = 0
    for trial in found:
        interpreter = micro.Interpreter.from_bytes(trial.file(), arena_size=ARENA)
        fed, expected = [x for x in trial.fed if x is not None], trial.codes(Kernel.TFLM)
        rows = []
        for i in range(len(fed[0])):
            for position, x in enumerate(fed):
                interpreter.set_input(np.ascontiguousarray(x[i]), position)
            interpreter.invoke()
            rows.append([np.array(interpreter.get_output(k)) for k in range(len(expected))])
        count += compare(tuple(np.stack(column) for column in zip(*rows, strict=True)), expected)
    return count


def is_there(case: Case) -> bool:
    return case.op not in MISSING and not (case.op == "SOFTMAX" and case.inferred()[0][-1] >= LONG)


@pytest.mark.parametrize("case", [c for c in CODED if is_there(c)], ids=str)
def test_every_code_is_the_micro_kernels(case: Case) -> None:
    assert parted(list(trials(case, GRIDS))) == 0


@pytest.mark.parametrize(("case", "read", "write"), [s for s in SHORT if s[0].op == "SOFTMAX"], ids=str)
def test_softmaxes_that_write_int16_are_the_micro_kernels(case: Case, read: int, write: int) -> None:
    assert parted(list(short_trials(case, read, write, GRIDS))) == 0


@pytest.mark.parametrize("case", MATRICES, ids=str)
def test_matrices_with_one_scale_are_the_micro_kernels(case: Case) -> None:
    assert parted(list(matrix_trials(case, GRIDS))) == 0


@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
@pytest.mark.parametrize("step", [1e-4, 0.003, 0.03, 0.0625, 0.13, 0.9, 7.0])
def test_functions_of_every_code_at_every_scale(op: str, step: float) -> None:
    out = grid(1 / 256, -128) if op == "LOGISTIC" else grid(1 / 128)
    for zero in (-128, -3, 90):
        fed = np.arange(-128, 128, dtype=np.int8)[None, None]
        assert parted([Trial(case(op, act(1, 256)), Quantized((grid(step, zero),), (out,)), [fed])]) == 0


@pytest.mark.parametrize("case", [c for c in CODED if c.op in MISSING], ids=str)
def test_what_the_target_leaves_out_is_missing_or_wrong(case: Case) -> None:
    """When this fails, a new runtime has mended it, and the target may have the op."""
    try:
        count = parted(list(trials(case, 2)))
    except RuntimeError:
        return
    at_rest = case.op == "SPACE_TO_BATCH_ND" and not np.any(case.operands[2])
    assert count > 0 or at_rest  # only padded blocks are wrong


@pytest.mark.parametrize("op", ["MUL", "ADD", "SUB", "MAXIMUM"])
def test_all_pairs_of_codes_at_many_scales(op: str) -> None:
    """A factor in float32 in the place of float64 changes a code in some of a hundred thousand pairs."""
    rng = np.random.default_rng(3)
    every = np.arange(-128, 128, dtype=np.int8)
    fed = [every[None, :, None].repeat(256, 2), every[None, None, :].repeat(256, 1)]
    for _ in range(40):
        scales = 2.0 ** rng.uniform(-9, 1, 3)
        zeros = rng.integers(-100, 100, 3)
        a, b, out = (grid(float(s), int(z)) for s, z in zip(scales, zeros, strict=True))
        if op == "MUL":  # or nearly all products would be the highest code or the lowest
            out = grid(float(scales[0] * scales[1] * rng.uniform(64, 512)), int(zeros[2]))
        if op == "MAXIMUM":
            b = out = a
        trial = Trial(case(op, act(256, 256), act(256, 256)), Quantized((a, b), (out,)), fed)
        assert parted([trial]) == 0


@pytest.mark.parametrize("op", ["LEAKY_RELU", "ABS", "QUANTIZE"])
def test_every_code_at_many_scales(op: str) -> None:
    rng, options = np.random.default_rng(4), {"alpha": 0.3} if op == "LEAKY_RELU" else {}
    fed = np.arange(-128, 128, dtype=np.int8)[None, None]
    for _ in range(200):
        read, out = (grid(float(2.0 ** rng.uniform(-8, 0)), int(rng.integers(-100, 100))) for _ in range(2))
        assert parted([Trial(case(op, act(1, 256), **options), Quantized((read,), (out,)), [fed])]) == 0

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

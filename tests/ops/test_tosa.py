"""``OpSpec.integer`` against TOSA's reference model, which follows a specification of its own, not LiteRT's kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _kernels import CODED, trials
from _single_op import Case
from _tosa import VENV, NoFormError, in_tosa

from qhyvit.ops.shared.spec import FusedActivation, Kernel

pytestmark = [
    pytest.mark.tosa,
    pytest.mark.skipif(not (VENV / "bin" / "tosa_reference_model").exists(), reason="needs `make test-tosa`"),
]
LIKE = {"SUM": Kernel.X86}  # LiteRT's reference SUM is wrong below 0
NO_FORM = ("ABS", "ELU", "SQRT")  # the converter writes no int8 form of them
RESIZES = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")  # the converter places samples otherwise, at some sizes
LONG = 512  # exponentials or terms whose sum leaves 32 bits in TOSA's form


def left_out(case: Case) -> bool:
    """Whether the converter or TOSA has no form of the case, or one that is not LiteRT's."""
    shapes = [np.shape(o) if isinstance(o, np.ndarray) else o.shape for o in case.operands if o is not None]
    match case.op:
        case "AVERAGE_POOL_2D" | "MAX_POOL_2D":
            return bool(case.attrs.fused_activation_function == FusedActivation.RELU)  # it is dropped
        case "BATCH_MATMUL":
            return shapes[0][:-2] != shapes[1][:-2] and len(shapes[0]) == len(shapes[1])
        case "GATHER":
            return bool(case.attrs.axis < 0)
        case "PRELU":
            return len(shapes[1]) != len(shapes[0]) - 1
        case "SOFTMAX":
            return case.attrs.beta != 1 or shapes[0][-1] >= LONG
        case "STRIDED_SLICE":
            return bool(np.any(case.operands[3] < 0))
        case "SUM":
            return bool(np.prod(shapes[0]) // np.prod(case.inferred()[0]) >= LONG)
        case _:
            return case.op in (*NO_FORM, *RESIZES)


def parted(case: Case, folder: Path) -> int:
    """How many codes part from ours, on a grid that is not the case's own."""
    *_, trial = trials(case, 1)
    expected = trial.codes(LIKE.get(case.op, Kernel.REFERENCE))
    found = in_tosa(folder, trial.file(), [x[0] for x in trial.fed if x is not None], len(expected))
    return sum(int((ours[0].ravel() != theirs.ravel()).sum()) for ours, theirs in zip(expected, found, strict=True))


@pytest.mark.parametrize("case", [c for c in CODED if not left_out(c)], ids=str)
def test_every_code_is_the_reference_models(case: Case, tmp_path: Path) -> None:
    assert parted(case, tmp_path) == 0


@pytest.mark.parametrize("case", [c for c in CODED if left_out(c) and c.op not in (*RESIZES, "SUM")], ids=str)
def test_what_is_left_out_has_no_form_or_another(case: Case, tmp_path: Path) -> None:
    """When this fails, a new converter has mended it, and the case may be compared."""
    try:
        count = parted(case, tmp_path)
    except NoFormError:
        return
    assert count > 0

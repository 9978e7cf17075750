"""Every op's codes on emulated arm64 processors, by XNNPACK and the builtin kernels there (``make test-arm64``)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._arm64 import emulate

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))  # the op tests import each other as modules

from _kernels import (
    CODED,
    FAR,
    MATRICES,
    SHORT,
    Trial,
    compare,
    far_trials,
    matrix_trials,
    may_tie,
    near_trials,
    short_trials,
    trials,
)

from qhyvit.ops.shared.spec import Kernel

pytestmark = pytest.mark.arm64
GRIDS = 4


@pytest.fixture(scope="module")
def every_trial() -> list[Trial]:
    found = [t for c in CODED for t in trials(c, GRIDS)]
    found += [t for c in CODED if may_tie(c) for t in near_trials(c, GRIDS)]
    found += [t for c in FAR for t in far_trials(c, 4 * GRIDS)]
    found += [t for c in MATRICES for t in matrix_trials(c, GRIDS)]
    return found + [t for c, read, write in SHORT for t in short_trials(c, read, write, GRIDS)]


@pytest.mark.parametrize("processor", ["cortex-a53", "cortex-a72", "cortex-a76"])
def test_every_code_is_that_of_the_emulated_processor(arm, every_trial, tmp_path, processor) -> None:
    for number, trial in enumerate(every_trial):
        (tmp_path / f"{number:05}.tflite").write_bytes(trial.file())
        np.savez(tmp_path / f"{number:05}.npz", *(x for x in trial.fed if x is not None))
    done = emulate(arm, processor, Path(__file__).with_name("emulated_ops.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    parted: dict[str, int] = {}
    for number, trial in enumerate(every_trial):
        with np.load(tmp_path / f"{number:05}.out.npz") as stored:
            different = compare([stored[name] for name in stored.files], trial.codes(Kernel.ARM64))
        if different:
            parted[str(trial.case)] = parted.get(str(trial.case), 0) + different
    assert not parted

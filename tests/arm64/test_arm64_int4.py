"""Int4 weights on emulated arm64 processors: XNNPACK's kernels with and without dot products (``make test-arm64``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks._arm64 import emulate
from qhyvit.ops.shared.spec import Kernel
from qhyvit.sim.integer import IntegerExecutor
from qhyvit.tflite.serialize import serialize
from tests._int4 import int4_layers

pytestmark = pytest.mark.arm64


@pytest.mark.parametrize("processor", ["cortex-a53", "cortex-a72", "cortex-a76"])
def test_every_code_of_int4_layers_is_that_of_the_emulated_processor(arm, tmp_path, processor) -> None:
    cases = list(int4_layers())
    for number, (graph, codes) in enumerate(cases):
        (tmp_path / f"{number:05}.tflite").write_bytes(serialize(graph))
        np.savez(tmp_path / f"{number:05}.npz", codes[:, None])
    done = emulate(arm, processor, Path(__file__).with_name("emulated_ops.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    parted = []
    for number, (graph, codes) in enumerate(cases):
        with np.load(tmp_path / f"{number:05}.out.npz") as stored:
            found = stored["arr_0"].reshape(len(codes), -1)
        expected = IntegerExecutor(graph, Kernel.ARM64).run(codes)[graph.outputs[0]].reshape(len(codes), -1)
        parted.append(int((found != expected).sum()))
    assert parted == [0] * len(cases)

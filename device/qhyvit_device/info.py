"""What this machine runs with, and whether a bundle does here what it did where it was made."""

from __future__ import annotations

import io
import platform
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device.errors import CheckFailedError
from qhyvit_device.interpreter import find_interpreter
from qhyvit_device.manifest import RANDOM
from qhyvit_device.runner import Model
from qhyvit_device.targets import target_words
from qhyvit_device.tasks import TASKS
from qhyvit_device.trial import load
from qhyvit_device.trust import why_slow

# Codes. arm64's SOFTMAX kernel and x86's differ by one code in 3,000, and what comes behind makes more of it.
OTHER_MACHINE_TOLERANCE = 6
# Against the simulation of arm64: its MEAN differs by one code in 10,000.
SIMULATED_TOLERANCE = 2


def environment() -> dict[str, Any]:
    """Python, machine and runtime."""
    _, runtime, version = find_interpreter()
    return {
        "python": platform.python_version(), "machine": platform.machine(), "system": platform.system(),
        "runtime": runtime, "runtime_version": version,
    }  # fmt: skip


def self_test(model: Model) -> dict[str, Any]:
    """Run the bundle's test image and compare the output codes.

    Raises:
        CheckFailedError: the codes differ by more than machines may.
    """
    test, here = model.manifest.test, platform.machine()
    simulated = here == "aarch64" != test.machine and bool(test.arm64_codes)
    expected = np.array(test.arm64_codes if simulated else test.codes, np.int64)
    # the stored image has the input's size already: "squash" leaves its pixels as they are
    found = model.run(model.prepare(io.BytesIO(model.picture), mode="squash")).test_codes(test.step)
    if found.shape != expected.shape:
        raise CheckFailedError(f"self test: {found.size} codes, the manifest holds {expected.size}")
    worst = int(np.abs(found - expected).max())
    same_runtime = test.runtime == f"{model.file.runtime} {model.file.runtime_version}"
    exact = test.machine == here and same_runtime
    allowed = 0 if exact else SIMULATED_TOLERANCE if simulated else OTHER_MACHINE_TOLERANCE
    made_on = f"{test.machine}, simulated for {here}" if simulated else test.machine
    facts: dict[str, Any] = {"equal_codes": float((found == expected).mean()), "worst_difference": worst}
    if model.manifest.task == "classify":
        facts["same_decision"] = bool(found.argmax() == expected.argmax())
    facts |= {"made_on": made_on, "made_with": test.runtime}
    if worst > allowed or not facts.get("same_decision", True):
        raise CheckFailedError(
            f"self test failed: codes differ by up to {worst} from those made on {made_on}, allowed {allowed}"
        )
    return facts


def describe(bundle: Path, threads: int = 1) -> dict[str, Any]:
    """Everything that ``info BUNDLE`` tells; the checks are made on the way.

    Raises:
        DeviceError: the bundle cannot be loaded, or its self test fails.
    """
    model, facts = load(bundle, threads), environment()
    manifest = model.manifest
    partitions = model.file.delegate_partitions
    facts |= {
        "model": manifest.model, "profile": manifest.profile, "task": manifest.task,
        "input": [int(s) for s in model.file.input["shape"]], "input_dtype": manifest.input.dtype,
        "outputs": {output.name: f"{output.dtype} {[*output.shape]}" for output in manifest.outputs},
        **({"classes": manifest.classes} if TASKS[manifest.task].labels else {}),
        **({"target": words} if (words := target_words(manifest.created_by)) else {}),
        "size_bytes": model.file.size_bytes, "delegate_partitions": partitions,
        "self_test": self_test(model),
    }  # fmt: skip
    warnings = [RANDOM] if manifest.has_random_weights else []
    warnings += [why_slow(model.file.runtime)] if partitions == 0 else []
    if warnings:
        facts["warning"] = "; ".join(warnings)
    return facts

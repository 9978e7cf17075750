"""What this machine runs with, and whether a bundle does here what it did where it was made."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device.errors import CheckFailedError
from qhyvit_device.runner import Model, find_interpreter

OTHER_MACHINE_TOLERANCE = 2  # codes: x86 and ARM kernels round differently


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
    test = model.manifest.test
    expected = np.array(test.codes, np.int64)
    # the stored image has the input's size already: "squash" leaves its pixels as they are
    found = model.run(model.prepare(model.bundle / test.image_file, mode="squash")).astype(np.int64)
    if found.shape != expected.shape:
        raise CheckFailedError(f"self test: {found.size} outputs, the manifest holds {expected.size}")
    worst = int(np.abs(found - expected).max())
    same_machine = test.machine == platform.machine()
    facts = {
        "equal_codes": float((found == expected).mean()), "worst_difference": worst,
        "same_decision": bool(found.argmax() == expected.argmax()), "made_on": test.machine, "made_with": test.runtime,
    }  # fmt: skip
    same_runtime = test.runtime == f"{model.file.runtime} {model.file.runtime_version}"
    allowed = 0 if same_machine and same_runtime else OTHER_MACHINE_TOLERANCE
    if worst > allowed or not facts["same_decision"]:
        raise CheckFailedError(
            f"self test failed: codes differ by up to {worst} from those made on {test.machine}, allowed {allowed}"
        )
    return facts


def describe(bundle: Path, threads: int = 1) -> dict[str, Any]:
    """Everything that ``info BUNDLE`` tells; the checks are made on the way.

    Raises:
        DeviceError: the bundle cannot be loaded, or its self test fails.
    """
    model = Model.load(bundle, threads)
    facts, manifest = environment(), model.manifest
    partitions = model.file.delegate_partitions
    facts |= {
        "model": manifest.model, "profile": manifest.profile, "input": [int(s) for s in model.file.input["shape"]],
        "input_dtype": manifest.input.dtype, "classes": manifest.output.classes,
        "size_bytes": (bundle / manifest.model_file).stat().st_size, "delegate_partitions": partitions,
        "self_test": self_test(model),
    }  # fmt: skip
    if partitions == 0:
        facts["warning"] = "XNNPACK took no op: the model runs slowly here (is /sys visible?)"
    return facts

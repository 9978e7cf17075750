"""What this machine runs with, and whether a bundle does here what it did where it was made."""

from __future__ import annotations

import io
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device import manifest as manifests
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
    """Run the bundle's test image and compare the output codes with those of the machine that made the bundle.

    Where machine and runtime are the same, the codes must be equal. Elsewhere a code may differ by
    ``OTHER_MACHINE_TOLERANCE``, and the decision (the class of the highest code) must be the same.

    Returns:
        passed, equal_codes (share, 0..1), worst_difference (codes), allowed_difference (codes), same_decision,
        made_on, made_with, note (empty where all is equal).
    """
    manifest, test = model.manifest, model.manifest.test
    image = io.BytesIO(manifests.read_checked(model.bundle, manifest, test.image_file))
    # the stored image has the input's size already: "squash" leaves its pixels as they are
    found = model.run(model.prepare(image, replace(manifest.preprocess, mode="squash"))).astype(np.float64)
    expected = np.array(test.codes, np.float64)
    worst = float(np.abs(found - expected).max())
    same_place = (test.machine, test.runtime) == (platform.machine(), f"{model.file.runtime} {model.file.runtime_version}")
    allowed = 0 if same_place else OTHER_MACHINE_TOLERANCE
    same_decision = bool(found.argmax() == expected.argmax())
    passed = worst <= allowed and same_decision
    note = "codes differ a little, as they may on another machine or runtime" if passed and worst else ""
    return {
        "passed": passed, "equal_codes": float((found == expected).mean()), "worst_difference": worst,
        "allowed_difference": allowed, "same_decision": same_decision,
        "made_on": test.machine, "made_with": test.runtime, "note": note,
    }  # fmt: skip


def require_pass(facts: dict[str, Any]) -> None:
    """Refuse a failed self test, ``facts`` as :func:`self_test` gives them.

    Raises:
        CheckFailedError: by how much the codes differ.
    """
    if not facts["passed"]:
        decision = "the same" if facts["same_decision"] else "another"
        raise CheckFailedError(
            f"self test failed: codes differ by up to {facts['worst_difference']:g} from those made on "
            f"{facts['made_on']} with {facts['made_with']}, allowed {facts['allowed_difference']}; {decision} decision"
        )


def describe(bundle: Path, threads: int = 1) -> dict[str, Any]:
    """Everything that ``info BUNDLE`` tells, the self test among it (it may have failed).

    Raises:
        DeviceError: the bundle cannot be loaded or run.
    """
    model = Model.load(bundle, threads)
    manifest, partitions = model.manifest, model.file.delegate_partitions
    facts = environment() | {
        "model": manifest.model, "profile": manifest.profile, "threads": threads,
        "input": [int(s) for s in model.file.input["shape"]], "input_dtype": manifest.input.dtype,
        "classes": manifest.output.classes, "size_bytes": (bundle / manifest.model_file).stat().st_size,
        "delegate_partitions": partitions, "self_test": self_test(model),
    }  # fmt: skip
    if partitions == 0:
        facts["warning"] = "XNNPACK took no op: the model runs slowly here (is /sys visible?)"
    return facts

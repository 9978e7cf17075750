"""Stage 5: what ships."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import data, files
from qhyvit.bundle import check_judged
from qhyvit.config import CONFIG
from qhyvit.stages.solved import plan_of, solved
from qhyvit.stages.verification import JUDGED
from qhyvit.work import (
    FACTS,
    FLOAT,
    MODEL,
    PLAN,
    VELA,
    VERIFY,
    Work,
    alone,
    code,
    commit,
    default_preprocess,
    versions,
)
from qhyvit_device import __version__
from qhyvit_device.manifest import RANDOM, RANDOM_WEIGHTS
from qhyvit_device.preprocess import quantize
from qhyvit_device.tasks import TASKS

RAW = "raw"  # the board's task for those that it does not know, of other packages


@alone
def bundle(work: Work, out: Path, images: Path, labels: Path | None, command: str, *, force: bool) -> None:
    """Stage 5: the folder that ships; see :func:`qhyvit.bundle.check_verdict`."""
    from qhyvit.bundle import check_verdict, created_by, label_names, write_bundle

    facts, verified, model = work.json(FACTS), work.json(VERIFY), work.read(MODEL)
    if facts["weights"] == RANDOM_WEIGHTS:
        work.log(f"bundle: {RANDOM}")
    task = facts["task"] if facts["task"] in TASKS else RAW
    needed = TASKS[task].labels
    has_labels = labels is not None if needed is None else needed
    hashes = {name: files.sha256(model) if name == MODEL else work.hash(name) for name in JUDGED}
    check_verdict(work.folder / VERIFY, verified, hashes)
    plan = plan_of(work)
    created = created_by(command, facts, plan, verified) | {"float_sha256": hashes[FLOAT], "plan_sha256": hashes[PLAN]}
    created |= {"commit": commit(), "code": code()}
    created["config"] = work.json(CONFIG) if (work.folder / CONFIG).is_file() else {}
    (test_image,) = data.calibration_images(images, 1, plan.seed).values()
    made_with = {**versions(), **facts["versions"], "qhyvit": __version__, "python": platform.python_version()}
    write_bundle(
        out, model, default_preprocess(facts, plan.resize_mode), test_image,
        label_names(labels, facts["classes"]) if has_labels else None,
        {"model": facts["model"], "profile": plan.profile, "task": task,
         "outputs": [output["name"] for output in facts["outputs"]], "versions": made_with, "created_by": created},
        more=_more(work, verified),
        on_arm64=_on_arm64(work) if plan.profile == "integer" and not plan.int16 else None, force=force,
    )  # fmt: skip


def _more(work: Work, verified: Mapping[str, Any]) -> dict[str, bytes]:
    """Files that a target gets beside the plain one."""
    if VELA not in verified["files"]:
        return {}
    check_judged(work.folder / VERIFY, verified, {VELA: work.hash(VELA)})
    return {f"model_{verified['target']['name']}.tflite": work.read(VELA)}


def _on_arm64(work: Work) -> Callable[[np.ndarray], Sequence[int]]:
    """What arm64's kernels make of an image, by the simulation: codes of all outputs one after the other."""

    def codes(pixels: np.ndarray) -> Sequence[int]:
        from qhyvit.ops.shared.spec import Kernel
        from qhyvit.sim.integer import IntegerExecutor

        typed, how = solved(work).lowered.graph, default_preprocess(work.json(FACTS))
        entry = typed.tensors[typed.inputs[0]].quantization
        assert entry is not None
        given = quantize(pixels, how, entry.scale[0], entry.zero_point, "int8")[None]
        found = IntegerExecutor(typed, Kernel.ARM64).run(given)
        return [int(code) for t in typed.outputs for code in found[t].ravel()]

    return codes

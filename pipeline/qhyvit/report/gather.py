"""Finds out what a report shows, from a bundle and its work directory, and what is missing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch

from qhyvit import files
from qhyvit.errors import InputError, QhyvitError
from qhyvit.report import latency
from qhyvit.report.blocks import cost_facts
from qhyvit.report.facts import Cost, Examined, Missing, PageFacts
from qhyvit.report.pictures import examined, labelled_pictures, samples
from qhyvit.report.request import Request
from qhyvit.stages.solved import Solved, solved
from qhyvit.tasks import task
from qhyvit.verify.census import census
from qhyvit.work import FLOAT, MODEL, VERIFY, Work
from qhyvit_device.preprocess import normalize
from qhyvit_device.runner import Model
from qhyvit_device.targets import target_words


def gather(request: Request) -> PageFacts:
    """Everything that can be found out.

    Raises:
        InputError: no bundle, or a file or folder that was named is unfit.
    """
    model = Model.load(request.bundle)
    missing: list[Missing] = []
    work = _work(request, model, missing)
    pictures = None if request.images is None else labelled_pictures(request, request.images, model)
    pixels = None if work is None else samples(request, work, model, missing)
    found = None if work is None or pixels is None else solved(work)
    command = str(model.manifest.created_by.get("command", ""))
    cost = None
    if work is not None and pixels is not None and found is not None:
        images = torch.from_numpy(normalize(pixels, model.manifest.preprocess))
        cost = cost_facts(found, images, work, command, request.progress)
    seen = examined(request, work, model, pixels, pictures, missing)
    if seen is not None and not seen.figures and (columns := task(model.manifest.task).columns):
        missing.append(Missing(
            next(iter(columns.values())), "no labelled images were given",
            f"qhyvit report {request.bundle} --images LABELLED_FOLDER",
        ))  # fmt: skip
    rows = () if request.bench is None else latency.read(request.bench)
    if not rows:
        missing.append(Missing(
            "Latency", "no bench file was given",
            f"qhyvit bench {request.bundle} --ssh USER@BOARD --out bench.json; "
            f"qhyvit report {request.bundle} --bench bench.json",
        ))  # fmt: skip
    return _assemble(request, model, work, found, cost, seen, rows, missing)


def _work(request: Request, model: Model, missing: list[Missing]) -> Work | None:
    """The bundle's work directory, if it is there and belongs to this very file."""
    folder = request.work_folder
    why = None
    if not (folder / MODEL).is_file():
        why = f"the work directory {folder} is not there"
    elif files.sha256((folder / MODEL).read_bytes()) != model.manifest.checksums[model.manifest.model_file]:
        why = f"the work directory {folder} holds another build's model"
    if why is None:
        return Work(folder, request.progress)
    if request.work is not None:
        raise InputError(f"{why}; --work names the one that this bundle was made in")
    again = str(model.manifest.created_by.get("command", "qhyvit build ..."))
    what = "Blocks, tensors, changes that would pay, verification"
    missing.append(Missing(what, why, f"{again} --force; or --work DIR if it was moved"))
    return None


def _assemble(
    request: Request, model: Model, work: Work | None, found: Solved | None, cost: Cost | None,
    seen: Examined | None, rows: tuple[Any, ...], missing: list[Missing],
) -> PageFacts:  # fmt: skip
    manifest = model.manifest
    what = task(manifest.task)
    counted = census(files.read_bytes(request.bundle / manifest.model_file, "model"))
    created = manifest.created_by
    verified = _verified(work)
    build = {
        "target": target_words(created) or "not recorded",
        "command": str(created.get("command", "not recorded")),
        "options": json.dumps(created.get("options", {}), sort_keys=True),
        "calibration images": str(created.get("calibration_images", "not recorded")),
        "seed": str(created.get("seed", "not recorded")), "weights": str(created.get("weights", "not recorded")),
        **{f"version of {k}": str(v) for k, v in sorted(manifest.versions.items())},
    }  # fmt: skip
    return PageFacts(
        manifest.model, request.bundle.name, str(created.get("method", "not recorded")), manifest.profile, build,
        counted.size_bytes, None if work is None else (work.folder / FLOAT).stat().st_size,
        {f"{op} {dtype}": n for (op, dtype), n in sorted(counted.ops.items())}, counted.partitions,
        dict(sorted(counted.not_delegated.items())), counted.oldest_runtime,
        tuple(verified.get("checks", ())), tuple(verified.get("informs") or ()),
        () if found is None else tuple(asdict(f) for f in found.plan.folds),
        what.name, what.distance_name, cost, seen, rows, tuple(missing),
    )  # fmt: skip


def _verified(work: Work | None) -> dict[str, Any]:
    try:
        return {} if work is None else work.json(VERIFY)
    except QhyvitError:
        return {}

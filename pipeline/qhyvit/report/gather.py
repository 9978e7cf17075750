"""Finds out what a report shows, from a bundle and its work directory, and what is missing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qhyvit import data, files
from qhyvit.errors import InputError, QhyvitError
from qhyvit.evaluation import float_file, labelled_images, predict, used_to_calibrate
from qhyvit.latency.fit import load
from qhyvit.measure import measure
from qhyvit.methods._problem import outputs_of
from qhyvit.progress import Progress, silent
from qhyvit.report import latency
from qhyvit.report.chain import Block, block_of, chain
from qhyvit.report.changes import changes
from qhyvit.report.cost import Costs, rounded_tensors
from qhyvit.report.facts import BlockFacts, Cost, Examined, Missing, Report, rounded
from qhyvit.report.images import examine
from qhyvit.report.tensors import tensor_facts
from qhyvit.stages import FLOAT, LATENCY, MODEL, SAMPLES, VERIFY, Solved, Work, solved
from qhyvit.tflite.read import read
from qhyvit.verify.census import census
from qhyvit_device.preprocess import load_image, normalize, to_pixels
from qhyvit_device.runner import Model

Pictures = tuple[list[Path], np.ndarray | None]
COST_IMAGES = 8  # that each tensor's cost is measured on


@dataclass(frozen=True)
class Request:
    """What to report on.

    Args:
        bundle: folder; ``work``: its work directory, None for BUNDLE.work.
        images: folder to run both files on; ``labels``: another labels.csv; ``mode``: resize mode; ``count``: images.
        bench: file of measured latencies. ``float_model``: another float file than the build's.
    """

    bundle: Path
    work: Path | None = None
    images: Path | None = None
    labels: Path | None = None
    bench: Path | None = None
    float_model: Path | None = None
    mode: str | None = None
    count: int = 1000
    progress: Progress = field(default=silent)

    @property
    def work_folder(self) -> Path:
        """Where the work directory should be."""
        return self.work or self.bundle.with_name(self.bundle.name + ".work")


def gather(request: Request) -> Report:
    """Everything that can be found out.

    Raises:
        InputError: no bundle, or a file or folder that was named is unfit.
    """
    model = Model.load(request.bundle)
    missing: list[Missing] = []
    work = _work(request, model, missing)
    pictures = None if request.images is None else _pictures(request, request.images, model)
    pixels = None if work is None else _samples(request, work, model, missing)
    found = None if work is None or pixels is None else solved(work)
    command = str(model.manifest.created_by.get("command", ""))
    cost = None
    if work is not None and pixels is not None and found is not None:
        cost = _cost(found, torch.from_numpy(normalize(pixels, model.manifest.preprocess)), work, command, request)
    examined = _examined(request, work, model, pixels, pictures, missing)
    if examined is not None and examined.accuracy is None:
        missing.append(Missing(
            "Top-1", "no labelled images were given",
            f"qhyvit report {request.bundle} --images LABELLED_FOLDER",
        ))  # fmt: skip
    rows = () if request.bench is None else latency.read(request.bench)
    if not rows:
        missing.append(Missing(
            "Latency", "no bench file was given",
            f"qhyvit bench {request.bundle} --ssh USER@BOARD --out bench.json; "
            f"qhyvit report {request.bundle} --bench bench.json",
        ))  # fmt: skip
    return _assemble(request, model, work, found, cost, examined, rows, missing)


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


def _samples(request: Request, work: Work, model: Model, missing: list[Missing]) -> np.ndarray | None:
    """Images [N, H, W, 3] uint8 to measure the costs on: kept by the calibration, else some of the folder named."""
    if (work.folder / SAMPLES).is_file():
        found = work.load(SAMPLES, lambda content: files.unpack_arrays(content, SAMPLES)).get("pixels")
        size = model.manifest.input.height, model.manifest.input.width, 3
        if found is None or found.dtype != np.uint8 or found.ndim != 4 or found.shape[1:] != size or not len(found):
            raise InputError(f"{work.folder / SAMPLES} does not hold images of {size[0]}x{size[1]}; calibrate again")
        return found
    if request.images is not None:
        paths = [*data.calibration_images(request.images, COST_IMAGES, 0).values()]
        how = data.preprocess_for(request.images, model.manifest.preprocess, request.mode)
        return data.load_pixels(paths, model.manifest.input.height, how)
    missing.append(Missing(
        "Blocks, tensors, changes that would pay", f"the work directory holds no {SAMPLES} (an older calibration)",
        f"qhyvit report {request.bundle} --images FOLDER",
    ))  # fmt: skip
    return None


def _cost(found: Solved, images: torch.Tensor, work: Work, command: str, request: Request) -> Cost:
    images = images[:COST_IMAGES]
    reference = outputs_of(read(work.read(FLOAT)), images)
    costs = Costs(found, images, reference, measure(found.plan.measure))
    blocks = chain(found.folded)
    labels = block_of(found.folded, blocks)
    in_file = work.json(VERIFY)["sqnr_db"]
    items = rounded_tensors(found.folded, found.plan.tensors)
    tensors = []
    for number, item in enumerate(items):
        request.progress("tensors", number / len(items))
        tensors.append(tensor_facts(costs, item, labels[item.tensor.id], in_file, found.plan.bridge))
    kl_up_to = costs.up_to(blocks, request.progress)
    request.progress("changes", 0.0)
    latency_profile = work.load(LATENCY, lambda _: load(work.folder / LATENCY))
    logits = costs.everything(found.plan.tensors)
    total = costs.of(logits)
    return Cost(
        len(costs.images), rounded(total), int((logits.argmax(1) == costs.reference.argmax(1)).sum()),
        tuple(_block(costs, found, b, up_to) for b, up_to in zip(blocks, kl_up_to, strict=True)),
        tuple(tensors), changes(found.plan, command, costs, total, latency_profile),
    )  # fmt: skip


def _block(costs: Costs, found: Solved, block: Block, up_to: float) -> BlockFacts:
    nodes = block.nodes(found.folded)
    names = [found.folded.tensors[t].name for node in nodes for t in node.outputs]
    bridge = tuple(f"{n}: {found.plan.bridge[n]}" for n in names if n in found.plan.bridge)
    ops = dict(sorted(Counter(node.op for node in nodes).items()))
    return BlockFacts(block.label, ops, bridge, rounded(max(costs.block_alone(block), 0.0)), rounded(up_to))


def _examined(
    request: Request, work: Work | None, model: Model, samples: np.ndarray | None, pictures: Pictures | None,
    missing: list[Missing],
) -> Examined | None:  # fmt: skip
    """Both files on the images named, else on the samples."""
    path = request.float_model or (None if work is None else work.folder / FLOAT)
    reference = float_file(request.bundle, path, model)
    if reference is None:
        missing.append(Missing(
            "Images on which float and integer differ", "there is no float model to compare with",
            f"qhyvit report {request.bundle} --images FOLDER --float FLOAT.tflite",
        ))  # fmt: skip
        return None
    if request.images is None or pictures is None:
        if samples is None:
            return None
        names = [f"calibration image {i + 1}" for i in range(len(samples))]
        how, source = model.manifest.preprocess, "the calibration images that the work directory keeps"
        got = predict(model, reference, names, lambda i: samples[i], how, None, request.progress)
        return examine(got, model.labels, source)
    paths, classes = pictures
    how = data.preprocess_for(request.images, model.manifest.preprocess, request.mode)
    height, width = model.manifest.input.height, model.manifest.input.width
    used = used_to_calibrate(model.manifest)
    seen = sum(h in used for h in data.hash_files(paths))
    note = f", {seen} of which were used to calibrate" if seen else ""
    source = f"{len(paths)} images of {request.images} ({how.mode}){note}"

    def pixels(i: int) -> np.ndarray:
        return to_pixels(load_image(paths[i]), height, width, how)

    names = [p.name for p in paths]
    got = predict(model, reference, names, pixels, how, classes, request.progress)
    return examine(got, model.labels, source)


def _pictures(request: Request, folder: Path, model: Model) -> Pictures:
    """Up to ``count`` images, and their classes where there are labels.

    Raises:
        InputError: images or labels are missing or unfit.
    """
    if request.labels is None and not (folder / "labels.csv").is_file():
        paths, classes = [*data.calibration_images(folder, request.count, 0).values()], None
    else:
        found = data.subset(labelled_images(folder, request.labels, model.manifest.output.classes), request.count, 0)
        paths, classes = found.paths, found.classes
    data.check_readable(paths)
    return paths, classes


def _assemble(
    request: Request, model: Model, work: Work | None, found: Solved | None, cost: Cost | None,
    examined: Examined | None, rows: tuple[Any, ...], missing: list[Missing],
) -> Report:  # fmt: skip
    manifest = model.manifest
    counted = census(files.read_bytes(request.bundle / manifest.model_file, "model"))
    created = manifest.created_by
    verified = _verified(work)
    build = {
        "command": str(created.get("command", "not recorded")),
        "options": json.dumps(created.get("options", {}), sort_keys=True),
        "calibration images": str(created.get("calibration_images", "not recorded")),
        "seed": str(created.get("seed", "not recorded")), "weights": str(created.get("weights", "not recorded")),
        **{f"version of {k}": str(v) for k, v in sorted(manifest.versions.items())},
    }  # fmt: skip
    return Report(
        manifest.model, request.bundle.name, str(created.get("method", "not recorded")), manifest.profile, build,
        counted.size_bytes, None if work is None else (work.folder / FLOAT).stat().st_size,
        {f"{op} {dtype}": n for (op, dtype), n in sorted(counted.ops.items())}, counted.partitions,
        dict(sorted(counted.not_delegated.items())), counted.oldest_runtime,
        tuple(verified.get("checks", ())), () if found is None else tuple(asdict(f) for f in found.plan.folds),
        cost, examined, rows, tuple(missing),
    )  # fmt: skip


def _verified(work: Work | None) -> dict[str, Any]:
    try:
        return {} if work is None else work.json(VERIFY)
    except QhyvitError:
        return {}

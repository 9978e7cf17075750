"""The images of a report, and both files on them."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from qhyvit import data, files
from qhyvit.errors import InputError, OutputError
from qhyvit.evaluation import float_file, float_path, layout_of, predict, used_to_calibrate
from qhyvit.labels import labelled_images, order_hint
from qhyvit.report.blocks import COST_IMAGES
from qhyvit.report.facts import Examined, Missing
from qhyvit.report.images import Predictions, examine
from qhyvit.report.request import Request
from qhyvit.tasks import task
from qhyvit.work import FLOAT, OUTPUTS, SAMPLES, Work
from qhyvit_device.preprocess import load_input
from qhyvit_device.runner import Model


def samples(request: Request, work: Work, model: Model, missing: list[Missing]) -> np.ndarray | None:
    """Images [N, H, W, C], to measure the costs on: kept by the calibration, else some of the folder named."""
    if (work.folder / SAMPLES).is_file():
        found = work.load(SAMPLES, lambda content: files.unpack_arrays(content, SAMPLES)).get("pixels")
        shape, types = model.manifest.input.shape, (np.uint8, np.float32)
        if found is None or found.dtype not in types or found.ndim != 4 or found.shape[1:] != shape or not len(found):
            raise InputError(f"{work.folder / SAMPLES} does not hold images of {shape[0]}x{shape[1]}; calibrate again")
        return found
    if request.images is not None:
        paths = [*data.calibration_images(request.images, COST_IMAGES, 0).values()]
        how = data.preprocess_for(request.images, model.manifest.preprocess, request.mode)
        return data.load_pixels(paths, model.manifest.input.shape, how)
    missing.append(Missing(
        "Blocks, tensors, changes that would pay", f"the work directory holds no {SAMPLES} (an older calibration)",
        f"qhyvit report {request.bundle} --images FOLDER",
    ))  # fmt: skip
    return None


def labelled_pictures(request: Request, folder: Path, model: Model) -> data.Labelled:
    """Up to ``count`` images, and what is right about them where there are labels.

    Raises:
        InputError: images or labels are missing or unfit.
    """
    facts = model.manifest
    if request.labels is None and not (folder / "labels.csv").is_file():
        found = data.Labelled([*data.calibration_images(folder, request.count, 0).values()], None)
    else:
        labelled = labelled_images(
            folder, request.labels, task(facts.task), facts.classes, request.class_map, model.labels
        )
        found = data.subset(labelled, request.count, 0)
    data.check_labelled(found)
    if hint := order_hint(found.names, model.labels):
        request.log(hint)
    return found


def examined(
    request: Request, work: Work | None, model: Model, samples: np.ndarray | None, pictures: data.Labelled | None,
    missing: list[Missing],
) -> Examined | None:  # fmt: skip
    """Both files on the images named, else on the samples."""
    given = request.float_model or (None if work is None else work.folder / FLOAT)
    path, reference = float_path(request.bundle, given, model.manifest), float_file(request.bundle, given, model)
    if path is None or reference is None:
        missing.append(Missing(
            "Images on which float and integer differ", "there is no float model to compare with",
            f"qhyvit report {request.bundle} --images FOLDER --float FLOAT.tflite",
        ))  # fmt: skip
        return None
    facts = model.manifest
    if request.images is None or pictures is None:
        if samples is None:
            return None
        names: list[str] = [f"calibration image {i + 1}" for i in range(len(samples))]
        hashes = [files.sha256(pixels.tobytes()) for pixels in samples]
        how, source = facts.preprocess, "the calibration images that the work directory keeps"
        truth = None

        def pixels(i: int) -> np.ndarray:
            kept: np.ndarray = samples[i]
            return kept
    else:
        paths, truth = pictures.paths, pictures.truth
        how = data.preprocess_for(request.images, facts.preprocess, request.mode)
        used, hashes = used_to_calibrate(facts), [*data.hash_files(paths)]
        seen = sum(h in used for h in hashes)
        note = f", {seen} of which were used to calibrate" if seen else ""
        names, source = [p.name for p in paths], f"{len(paths)} images of {request.images} ({how.mode}){note}"

        def pixels(i: int) -> np.ndarray:
            return load_input(paths[i], facts.input.shape, how)

    key = Work.digest({
        "model": facts.checksums[facts.model_file], "images": hashes, "how": asdict(how),
        "float": files.sha256(files.read_bytes(path, "float model")),
    })  # fmt: skip
    kept = None if work is None else _kept(work, key)
    integer, floating = kept or predict(model, reference, pixels, how, len(names), request.progress)
    assert floating is not None
    if work is not None and kept is None:
        _keep(work, key, integer, floating)
    return examine(
        Predictions(task(facts.task), layout_of(facts), model.labels, names, truth, integer, floating, pixels), source
    )


def _keep(work: Work, key: str, integer: np.ndarray, floating: np.ndarray) -> None:
    """Outputs of both files, for the next report of the same files and images."""
    packed = files.pack_arrays({"key": np.frombuffer(key.encode(), np.uint8), "integer": integer, "float": floating})
    with contextlib.suppress(OutputError):  # a work directory that nobody may write to
        files.write_bytes(work.folder / OUTPUTS, packed)


def _kept(work: Work, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Outputs of both files that an earlier report left for ``key``, if it did."""
    if not (work.folder / OUTPUTS).is_file():
        return None
    try:
        found = files.unpack_arrays(files.read_bytes(work.folder / OUTPUTS, OUTPUTS), OUTPUTS)
    except InputError:  # damaged: made again
        return None
    if set(found) != {"key", "integer", "float"} or found["key"].tobytes() != key.encode():
        return None
    return found["integer"], found["float"]

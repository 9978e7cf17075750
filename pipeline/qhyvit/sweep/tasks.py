"""What the processes of a sweep do: export a model, run its float file, make and measure one build."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import data, files, stages
from qhyvit.config import BuildConfig, ModelConfig
from qhyvit.evaluation import Evaluation, evaluated, logits_of
from qhyvit.labels import labelled_images
from qhyvit.sweep.spec import EvaluationSpec
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.work import FACTS, FLOAT, MODEL, Work, default_preprocess, input_shape
from qhyvit_device.preprocess import Preprocess, load_input

SUBSET_SEED = 0  # of evaluation images, where a count is given: the same ones for every build


def export(folder: str, model: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The float file of a model (:class:`ModelConfig`) and its facts, in ``folder``; one process at a time."""
    work = Work(Path(folder))
    with work.lock(wait=True):
        stages.export(work, ModelConfig.parse(model, "the model"), seed)
    facts = work.json(FACTS)
    return {name: facts[name] for name in ("classes", "input_shape", "float_error")}


def test_set(
    work: Work, evaluation: Mapping[str, Any], names: Sequence[str]
) -> tuple[data.Labelled, Preprocess]:  # fmt: skip
    """The images of an :class:`EvaluationSpec` with what is right about them, and how they are resized.

    Args:
        names: of the model's values; columns of labels go by them.
    """
    facts, wanted = work.json(FACTS), EvaluationSpec.parse(evaluation, "the evaluation")
    found = labelled_images(wanted.images, wanted.labels, task(facts["task"]), facts["classes"], names=names)
    if wanted.count is not None:
        found = data.subset(found, wanted.count, SUBSET_SEED)
    return found, data.preprocess_for(wanted.images, default_preprocess(facts), wanted.resize_mode)


def _pixels(work: Work, paths: list[Path], how: Preprocess) -> Iterator[np.ndarray]:
    """[H, W, C], one after the other: a test set need not fit into memory."""
    shape = input_shape(work.json(FACTS))
    return (load_input(p, shape, how) for p in paths)


def reference(folder: str, target: str, evaluation: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Values [N, outputs] of the float file on the test images, float64, into ``target``."""
    work = Work(Path(folder))
    labelled, how = test_set(work, evaluation, names)
    data.check_labelled(labelled)
    values = logits_of(work.read(FLOAT), _pixels(work, labelled.paths, how), how)
    stream = io.BytesIO()
    np.save(stream, values)
    files.write_bytes(Path(target), stream.getvalue())
    return {"images": len(values)}


def build(
    folder: str, export: str, reference: str, config: Mapping[str, Any], evaluation: Mapping[str, Any],
    names: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Calibrate, convert and measure; a work directory that an ended process left is gone on with."""
    source, work, found = Path(export), Work(Path(folder)), BuildConfig.parse(config, "the build")
    for name in (FLOAT, FACTS):
        files.write_bytes(work.folder / name, files.read_bytes(source / name, "export"))
    stages.calibrate(work, found.data, found.method, found.target)
    stages.convert(work)
    measured = _measure(work, Path(reference), evaluation, names)
    plan, size = stages.plan_of(work), len(work.read(MODEL))
    shutil.rmtree(work.folder)
    return {
        **measured.to_json(), "size_bytes": size, "folds": len(plan.folds),
        "calibration_images": plan.image_count, "plan_sha256": files.sha256(_without_time(plan)),
    }  # fmt: skip


def _without_time(plan: Any) -> bytes:
    from dataclasses import replace

    text: str = replace(plan, seconds=0.0).to_json()
    return text.encode()


def _measure(work: Work, reference: Path, evaluation: Mapping[str, Any], names: Sequence[str]) -> Evaluation:
    (labelled, how), facts = test_set(work, evaluation, names), work.json(FACTS)
    floating = np.load(reference, allow_pickle=False)
    found = logits_of(work.read(MODEL), _pixels(work, labelled.paths, how), how)
    what, layout = task(facts["task"]), Layout.of_facts(facts["outputs"])
    return evaluated(what, layout, found, floating, labelled.truth, how.mode, labels=names)

"""The Python interface: what ``import qhyvit`` offers to those who script; ``qhyvit build`` is this with a display.

Everywhere: ``model`` is a name of ``qhyvit models``, ``timm/NAME``, ``FILE.py:FUNCTION``, or a ``torch.nn.Module`` that
takes [1, 3, H, W] and gives [1, classes]; a module is left as it is. ``weights`` is a ``.safetensors`` file or a torch
state dict; without it a factory's module keeps its own, and a name is refused unless ``random_weights`` asks for random
ones. ``count`` images are drawn from the folder ``images`` by
``seed``. ``options`` are those of the method (``qhyvit methods``); ``latency_profile`` is a file of
``qhyvit latency-profile``, a bench file with times by op, or ``cortex-a53``, ``cortex-a72``, ``cortex-a76``, None: the
package's own; ``resize_mode`` is ``crop`` or ``squash``, None: as the folder or the model says.
``measure`` is what calibration lowers and verification judges, ``decisions`` (the best class) or ``correlation`` (all
outputs: an embedding). ``progress(what, share)`` and ``log(line)`` are told what happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from qhyvit import data, evaluation, files, stages
from qhyvit.bundle import label_names, read_label_names
from qhyvit.evaluation import Evaluation
from qhyvit.graph.ir import Graph
from qhyvit.plan import QuantPlan
from qhyvit.progress import Log, Progress, silent
from qhyvit_device.preprocess import images_in

if TYPE_CHECKING:
    from torch import nn

AT_ONCE = 4  # images that :func:`run` computes together


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


@dataclass(frozen=True)
class Calibrated:
    """What calibration found.

    Args:
        graph: the float graph with its folds.
        shipped: the same with the constants that the file will hold.
        plan: scale, zero point, scheme and granularity of every tensor.
    """

    graph: Graph
    shipped: Graph
    plan: QuantPlan


@dataclass(frozen=True)
class Built:
    """What :func:`build` made.

    Args:
        bundle: the folder that ships, None where a check failed.
        work: the work directory: float and integer file, plan, ``verify.json``.
        verdict: every check of the file, its census, its decisions beside those of the simulation.
    """

    bundle: Path | None
    work: Path
    verdict: Mapping[str, Any]

    @property
    def plan(self) -> QuantPlan:
        """The plan of the file."""
        return stages.plan_of(stages.Work(self.work))


def calibrate(
    model: str | nn.Module, images: str | Path, *, weights: str | Path | None = None, classes: int | None = None,
    input_size: int | None = None, method: str = "qhyvit", options: Mapping[str, Any] | None = None, count: int = 128,
    seed: int = 0, bits: int = 8, profile: str = "integer", int16: bool = True, resize_mode: str | None = None,
    latency_profile: str | Path | None = None, measure: str = "decisions", work: str | Path | None = None,
    progress: Progress = silent, log: Log = silent, random_weights: bool = False,
) -> Calibrated:  # fmt: skip
    """Export and calibrate; the plan, and the graphs that it is for.

    Args:
        work: work directory, from which a second call resumes; None: a temporary one.

    Raises:
        QhyvitError: what the command line would print in one line.
    """
    with TemporaryDirectory() as temporary:
        place, pictures = stages.Work(Path(work or temporary), progress, log), Path(images)
        # what is wrong must not cost an export
        images_in(pictures)
        stages.check_choice(method, options or {}, bits, profile, measure, count=count, seed=seed, mode=resize_mode)
        stages.latency_of(_path(latency_profile))
        stages.check_weights(model, _path(weights), random_weights=random_weights)
        data.check_images(pictures, count, seed, verify=False)
        stages.export(
            place, model, _path(weights), classes, input_size, seed, pictures, random_weights=random_weights
        )  # fmt: skip
        stages.calibrate(place, pictures, method, count, seed, options or {}, resize_mode, bits, profile, int16=int16,
                         latency_file=_path(latency_profile), measure=measure)  # fmt: skip
        found = stages.solved(place)
    return Calibrated(found.folded, found.shipped, found.plan)


def build(
    model: str | nn.Module, images: str | Path, out: str | Path, *, weights: str | Path | None = None,
    classes: int | None = None, input_size: int | None = None, method: str = "qhyvit",
    options: Mapping[str, Any] | None = None, count: int = 128, seed: int = 0, bits: int = 8,
    profile: str = "integer", int16: bool = True, resize_mode: str | None = None,
    latency_profile: str | Path | None = None, measure: str = "decisions", min_agreement: float | None = None,
    labels: str | Path | None = None, work: str | Path | None = None,
    force: bool = False, command: str = "qhyvit.build", progress: Progress = silent, log: Log = silent,
    random_weights: bool = False,
) -> Built:  # fmt: skip
    """All five stages: export, calibrate, convert, verify, bundle. Resumes where an earlier run stopped.

    Args:
        out: bundle folder to make.
        min_agreement: share of images on which the file has to decide as float does, 0 to 1; None: the default, 0.9.
        labels: class names, one a line.
        work: work directory; None: ``out`` with ``.work`` behind its name.
        force: run every stage again, and replace ``out``.
        command: what the bundle says it was made by.

    Raises:
        QhyvitError: what the command line would print in one line. A file that fails a check is no error: the verdict
            says so, and there is no bundle.
    """
    folder, pictures = Path(out), Path(images)
    files.check_free(folder, force=force)
    place = stages.Work(Path(work or folder.with_name(folder.name + ".work")), progress, log, force)
    images_in(pictures)
    stages.check_choice(method, options or {}, bits, profile, measure, count=count, seed=seed, mode=resize_mode)
    stages.latency_of(_path(latency_profile))
    if labels is not None:
        read_label_names(Path(labels))
    stages.check_weights(model, _path(weights), random_weights=random_weights)
    data.check_images(pictures, count, seed, verify=True)
    with place.lock():
        stages.export(place, model, _path(weights), classes, input_size, seed, pictures, random_weights=random_weights)
        label_names(_path(labels), place.json(stages.FACTS)["classes"])
        stages.calibrate(place, pictures, method, count, seed, options or {}, resize_mode, bits, profile, int16=int16,
                         latency_file=_path(latency_profile), measure=measure)  # fmt: skip
        stages.convert(place)
        stages.verify(place, pictures, stages.VERIFY_IMAGES, seed, resize_mode, min_agreement)
        verdict = place.json(stages.VERIFY)
        if verdict["passed"]:
            stages.bundle(place, folder, pictures, _path(labels), command, force=force)
    return Built(folder if verdict["passed"] else None, place.folder, verdict)


def evaluate(
    bundle: str | Path, images: str | Path, *, labels: str | Path | None = None, float_model: str | Path | None = None,
    resize_mode: str | None = None, allow_calibration_images: bool = False, progress: Progress = silent,
    log: Log = silent,
) -> Evaluation:  # fmt: skip
    """The deployed file, and the float file on the same images: top-1, top-5, agreement, McNemar's test.

    Args:
        labels: a csv with the columns file and class_index; None: ``labels.csv`` of the folder.
        float_model: a float ``.tflite``; None: that of the build, where its work directory is there.

    Raises:
        QhyvitError: what the command line would print in one line.
    """
    paths = Path(bundle), Path(images), _path(labels), _path(float_model)
    return evaluation.evaluate(*paths, resize_mode, progress, log, allow=allow_calibration_images)


def run(graph: Graph, images: np.ndarray, plan: QuantPlan | None = None) -> np.ndarray:
    """Logits [N, classes], float64, of images [N, H, W, 3] (float, normalized as the model takes them).

    Args:
        plan: compute what the integer file of this plan computes, by its kernels' own arithmetic (``graph`` is then
            the ``shipped`` one); None: in float.

    Raises:
        GraphError: the images do not fit the graph's input.
    """
    import torch

    from qhyvit.sim.fakequant import ExactQuant, quantized_biases
    from qhyvit.sim.run import Executor
    from qhyvit.tflite.write import constants_on_grid_of

    hook = None
    if plan is not None:
        graph = quantized_biases(constants_on_grid_of(graph, plan.tensors), plan.tensors)
        hook = ExactQuant(graph, plan.tensors, plan.int16)
    executor = Executor(graph, torch.float64, exact=plan is None)
    feeds = torch.from_numpy(np.asarray(images, np.float64)).split(AT_ONCE)
    with torch.no_grad():
        found: np.ndarray = torch.cat([executor.logits(x, hook) for x in feeds]).numpy()
    return found

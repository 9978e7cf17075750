"""The Python interface: what ``import qhyvit`` offers to those who script; ``qhyvit build`` is this with a display.

Everywhere: ``model`` is a name of ``qhyvit models``, ``timm/NAME``, ``hf-hub:OWNER/NAME``, ``FILE.py:FUNCTION``, the
path of a ``.tflite``, ``.onnx`` or ``.pt2``, or a ``torch.nn.Module`` that takes [1, C, H, W] and gives tensors [1,
...], which is left as it is. In its place a :class:`BuildConfig` has all settings at once; else they are keywords,
named as its fields are (``method`` and ``model`` are the ``name`` of theirs): ``weights``, ``pretrained``,
``random_weights``, ``classes``, ``input_size``, ``mean``, ``std``, ``channel_order``, ``task``; ``images``,
``count``, ``resize_mode``; ``method``, ``options``, ``seed``, ``bits``, ``size``; ``target``, ``integer``; ``out``,
``work``, ``labels``, ``min_agreement``. None: the default. ``images`` is a folder of pictures or arrays, or any
iterable of arrays (:func:`qhyvit.data.write_arrays`). ``progress(what, share)`` and ``log(line)`` are told what
happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qhyvit import data, evaluation, files, stages
from qhyvit.bundle import label_names, read_label_names
from qhyvit.config import BuildConfig, DataConfig
from qhyvit.data import VERIFY_IMAGES
from qhyvit.errors import UsageError
from qhyvit.graph.ir import Graph
from qhyvit.plan import QuantPlan
from qhyvit.progress import Log, Progress, silent
from qhyvit.run_graph import run as run
from qhyvit.tasks.shared.layout import Layout
from qhyvit.work import VERIFY, Work
from qhyvit_device.preprocess import images_in

if TYPE_CHECKING:
    from torch import nn


Images = str | Path | Iterable[Any]


@contextlib.contextmanager
def _folder(images: Images | None, settings: dict[str, Any]) -> Iterator[str | Path | None]:
    """The folder of images; arrays are written into one that is there while the block runs.

    Raises:
        InputError: see :func:`qhyvit.data.write_arrays`.
    """
    if images is None or isinstance(images, str | Path):
        yield images
        return
    if not isinstance(images, Iterable):
        raise UsageError(f"images are a folder or an iterable of arrays, got a {type(images).__name__}")
    count = DataConfig(Path("arrays"), *[settings[k] for k in ("count",) if settings.get(k) is not None]).count
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "arrays"  # a bundle says the last part of the name
        data.write_arrays(images, folder, count + VERIFY_IMAGES)
        yield folder


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _config(model: str | Path | nn.Module | BuildConfig, given: Mapping[str, Any]) -> BuildConfig:
    """What the arguments mean.

    Raises:
        UsageError: see :meth:`BuildConfig.from_cli`; a config and other settings beside it.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    if not isinstance(model, BuildConfig):
        is_named = isinstance(model, str | Path)
        config = BuildConfig.from_cli({"model": str(model) if is_named else type(model).__name__, **settings})
        return config if is_named else replace(config, model=replace(config.model, module=model))
    if settings:
        raise UsageError(f"a BuildConfig has all settings of a build: {', '.join(settings)} cannot stand beside it")
    return model


def _checked(config: BuildConfig, *, verify: bool) -> BuildConfig:
    """What is wrong must not cost an export."""
    images_in(config.data.images)
    config.target.found.check_tools()
    config.target.found.latency  # noqa: B018 - a file that is none must not cost an export
    if config.output.labels is not None:
        read_label_names(config.output.labels)
    stages.check_weights(config.model)
    data.check_images(config.data.images, config.data.count, config.method.seed, verify=verify)
    return config


def _fit_of(config: BuildConfig) -> Callable[[Layout, int], None]:
    """Refuses a model's outputs, or its number of classes, that the settings behind the export do not fit."""

    def check(outputs: Layout, classes: int) -> None:
        outputs.weighted(config.method.output_weights)
        label_names(config.output.labels, classes)

    return check


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
        return stages.plan_of(Work(self.work))


def calibrate(
    model: str | Path | nn.Module | BuildConfig, images: Images | None = None, *, progress: Progress = silent,
    log: Log = silent, **settings: Any,
) -> Calibrated:  # fmt: skip
    """Export and calibrate; the plan, and the graphs that it is for.

    Args:
        settings: of :class:`BuildConfig`, see above. ``work``: work directory, from which a second call resumes; None:
            a temporary one.

    Raises:
        QhyvitError: what the command line would print in one line.
    """
    with TemporaryDirectory() as temporary, _folder(images, settings) as folder:
        config = _checked(_config(model, {"images": folder, **settings}), verify=False)
        work = Work(config.output.work or Path(temporary), progress, log)
        stages.export(work, config.model, config.method.seed, config.data.images, _fit_of(config))
        stages.calibrate(work, config.data, config.method, config.target)
        found = stages.solved(work)
    return Calibrated(found.folded, found.shipped, found.plan)


def build(
    model: str | Path | nn.Module | BuildConfig, images: Images | None = None, out: str | Path | None = None, *,
    force: bool = False, replace_bundle: bool = False, command: str = "qhyvit.build", progress: Progress = silent,
    log: Log = silent, **settings: Any,
) -> Built:  # fmt: skip
    """All five stages: export, calibrate, convert, verify, bundle. Resumes where an earlier run stopped.

    Args:
        model: or a config, which has all settings.
        out: bundle folder to make.
        settings: of :class:`BuildConfig`, see above.
        force: run every stage again, and replace ``out``; ``replace_bundle``: replace it by what has changed alone.
        command: what the bundle says it was made by.

    Raises:
        QhyvitError: what the command line would print in one line. A file that fails a check is no error: the verdict
            says so, and there is no bundle.
    """
    with _folder(images, settings) as folder:
        config = _config(model, {"images": folder, "out": out, **settings})
        return _built(config, command, progress, log, force=force, replaces=force or replace_bundle)


def _built(
    config: BuildConfig, command: str, progress: Progress, log: Log, *, force: bool, replaces: bool
) -> Built:  # fmt: skip
    output, pictures, seed = config.output, config.data.images, config.method.seed
    if output.out is None:
        raise UsageError("the build needs out: on the command line, or as out of [output]")
    files.check_free(output.out, force=replaces)
    _checked(config, verify=True)
    work = Work(output.work or files.beside(output.out, ".work"), progress, log, force)
    with work.lock():
        stages.export(work, config.model, seed, pictures, _fit_of(config))
        stages.calibrate(work, config.data, config.method, config.target)
        stages.convert(work)
        stages.verify(work, pictures, VERIFY_IMAGES, seed, config.data.resize_mode, output.min_agreement)
        verdict = work.json(VERIFY)
        if verdict["passed"]:
            stages.bundle(work, output.out, pictures, output.labels, command, force=replaces)
    return Built(output.out if verdict["passed"] else None, work.folder, verdict)


def evaluate(
    bundle: str | Path, images: str | Path, *, labels: str | Path | None = None, float_model: str | Path | None = None,
    resize_mode: str | None = None, allow_calibration_images: bool = False, progress: Progress = silent,
    log: Log = silent,
) -> evaluation.Evaluation:  # fmt: skip
    """The deployed file, and the float file on the same images: top-1, top-5, agreement, McNemar's test.

    Args:
        labels: a csv with the columns file and class_index; None: ``labels.csv`` of the folder.
        float_model: a float ``.tflite``; None: that of the build, where its work directory is there.

    Raises:
        QhyvitError: what the command line would print in one line.
    """
    paths = Path(bundle), Path(images), _path(labels), _path(float_model)
    return evaluation.evaluate(*paths, resize_mode, progress, log, allow=allow_calibration_images)

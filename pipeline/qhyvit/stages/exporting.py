"""Stage 1: the float file of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhyvit import data, files
from qhyvit.config import ModelConfig
from qhyvit.stages.settings import note
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.work import FACTS, FLOAT, Work, alone, code_digest, default_preprocess, state_digest
from qhyvit_device.preprocess import normalize

if TYPE_CHECKING:
    from qhyvit.models.shared.described import Source
    from qhyvit.models.shared.input_facts import Pixels


@alone
def export(
    work: Work, model: ModelConfig, seed: int = 0, images: Path | None = None,
    check: Callable[[Layout, int], None] = lambda outputs, classes: None,
) -> None:  # fmt: skip
    """Stage 1: ``float.tflite`` and ``export.json`` of a model (see :func:`qhyvit.models.shared.source.open_source`).

    Args:
        images: folder of real ones, of which a few show that the file computes what the module does; None: noise does.
        check: refuses outputs, or a number of classes, that other settings do not fit; it is asked before the work.
    """
    check_weights(model)
    pictures = {} if images is None else data.calibration_images(images, data.EXPORT_IMAGES, seed)
    key, digest = _key(model, seed, list(pictures))
    opened = None
    if _is_known_late(model):
        opened = _opened(work, model, seed)
        key |= {"state": state_digest(opened.reference), "code": code_digest(model.source, opened.reference)}
        key["preprocess"] = opened.preprocess

    def make() -> None:
        from qhyvit.models.shared.export import export as convert

        work.progress("export", 0.0)
        source = opened or _opened(work, model, seed)
        check(source.layout, source.classes)
        work.log(f"export: {source.name} by the {source.family} family, {source.weights} weights")
        for line in source.notes:
            work.log(f"export: {line}")
        how = default_preprocess({"preprocess": source.preprocess})
        real = normalize(data.load_pixels([*pictures.values()], source.shape, how), how) if pictures else None
        made = convert(source, work.log, real)
        layout, found = Layout.of_facts(made.facts["outputs"]), task(made.facts["task"])
        asked = "as asked" if model.task else "by the form of the outputs (--task says otherwise)"
        work.log(f"export: task {found.name}, {asked}: {layout.described()} is {found.summary}")
        files.write_bytes(work.folder / FLOAT, made.tflite)
        files.write_text(work.folder / FACTS, json.dumps({**made.facts, "weights_sha256": digest}, indent=1) + "\n")

    work.stage("export", key, (FLOAT, FACTS), make)
    facts = work.json(FACTS)
    check(Layout.of_facts(facts["outputs"]), facts["classes"])  # of an export that was there already
    note(work, model=model)


def _key(model: ModelConfig, seed: int, images: list[str]) -> tuple[dict[str, Any], str | None]:
    """What the export depends on, as far as this is known before the model is opened, and the hash of its weights."""
    from qhyvit.models.importers import identity
    from qhyvit.models.shared.given_weights import weights_digest

    digest = None if model.weights is None else weights_digest(model.weights)
    held = {} if model.module is not None else identity(model.name)
    digest = digest or next(iter(held.values()), None)
    return {"model": model.name, "weights": digest, "classes": model.classes, "size": model.input_size,
            "pixels": asdict(_pixels(model)), "seed": seed, "images": images, "task": model.task,
            "files": held}, digest  # fmt: skip


def _is_known_late(model: ModelConfig) -> bool:
    """Whether only opening a model tells what it is: a factory's, a hub's."""
    return model.module is not None or files.OWN in model.name or _is_published(model)


def _is_published(model: ModelConfig) -> bool:
    from qhyvit.models.shared.given_weights import is_published

    return model.pretrained or is_published(model.name)


def _opened(work: Work, model: ModelConfig, seed: int) -> Source:
    from qhyvit.models.shared.given_weights import choice
    from qhyvit.models.shared.source import open_source

    if _is_published(model):
        work.log(f"export: {model.name} as it is published, from the cache or the network")
    weights = choice(model.weights, pretrained=model.pretrained)
    return open_source(model.source, weights, model.classes, model.input_size, seed,
                       random_weights=model.random_weights, pixels=_pixels(model), task=model.task)  # fmt: skip


def _pixels(model: ModelConfig) -> Pixels:
    from qhyvit.models.shared.input_facts import Pixels

    return Pixels(model.mean, model.std, model.channel_order)


def check_weights(model: ModelConfig) -> None:
    """See :func:`qhyvit.models.shared.source.check_weights`; `build` asks before the work."""
    from qhyvit.models.shared.given_weights import check_weights as check
    from qhyvit.models.shared.given_weights import choice

    weights = choice(model.weights, pretrained=model.pretrained)
    check(model.source, weights, random_weights=model.random_weights)

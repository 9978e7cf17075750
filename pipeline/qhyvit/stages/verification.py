"""Stage 4: the proof."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qhyvit import data, files
from qhyvit.stages.solved import plan_of, solved
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.work import (
    CONSTANTS,
    FACTS,
    FLOAT,
    FOLDED,
    MODEL,
    PLAN,
    VELA,
    VERIFY,
    Work,
    alone,
    default_preprocess,
    input_shape,
)
from qhyvit_device.preprocess import normalize, quantize

if TYPE_CHECKING:
    from qhyvit.plan import QuantPlan
    from qhyvit.verify.report import Report


JUDGED = (FLOAT, FACTS, FOLDED, CONSTANTS, PLAN, MODEL)  # what a verdict is about


def runtimes_here(plan: QuantPlan) -> list[str]:
    """Interpreters to verify on: tensorflow's own beside LiteRT's where it is installed, and that of the target."""
    from importlib.util import find_spec

    from qhyvit.targets import target
    from qhyvit.verify.probe import MICRO

    micro = [MICRO] if target(plan.target).needs_arena else []
    return ["litert", *(["tensorflow"] if find_spec("tensorflow") else []), *micro]


@alone
def verify(
    work: Work, images: Path, count: int, seed: int, mode: str | None, least: float | None = None
) -> Report | None:
    """Stage 4: ``verify.json``, on images that calibration did not use, where there are enough; None if kept.

    Args:
        least: share of what float says that the file has to say too (:mod:`qhyvit.verify.against_float`);
            None: the default.
    """
    from qhyvit.verify.against_float import FloatFile

    facts, plan = work.json(FACTS), plan_of(work)
    drawn = data.verification_images(images, plan.image_hashes, count, seed)
    how = data.preprocess_for(images, default_preprocess(facts, plan.resize_mode), mode)
    hashes = {name: work.hash(name) for name in JUDGED}
    key = {"files": hashes, "images": list(drawn), "how": asdict(how), "least": least}
    outcome: list[Report] = []

    def make() -> None:
        import torch

        from qhyvit.stages.on_target import on_target
        from qhyvit.verify.report import verify as check

        work.progress("verify", 0.0)
        found, model = solved(work, plan), work.read(MODEL)
        pixels = data.load_pixels([*drawn.values()], input_shape(facts), how)
        entry = plan.tensors[found.folded.tensors[found.folded.inputs[0]].name]
        codes = [quantize(p, how, entry.scale[0], entry.zero_point[0], "int8")[None] for p in pixels]
        floats = torch.from_numpy(normalize(pixels, how))
        reference = FloatFile(
            work.read(FLOAT), facts, task(facts["task"]), Layout.of_facts(facts["outputs"]), least
        )
        report = check(found.folded, found.lowered, model, floats, codes, runtimes_here(plan), reference, work.progress)
        facts_there, notes = on_target(work, plan, model, codes[0])
        outcome.append(replace(report, target=facts_there, informs=tuple(notes)))
        vela = {VELA: work.hash(VELA)} if "estimated" in facts_there else {}
        verdict = {**outcome[0].to_json(), "files": {**hashes, MODEL: files.sha256(model), **vela}}
        files.write_text(work.folder / VERIFY, json.dumps(verdict, indent=1) + "\n")

    work.stage("verify", key, (VERIFY,), make)
    return next(iter(outcome), None)

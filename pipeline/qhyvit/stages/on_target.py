"""What a target's own tools or rules say of the integer file: Vela's census, the arena of a microcontroller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qhyvit import files
from qhyvit.targets import target
from qhyvit.verify.check import Note
from qhyvit.verify.micro import run_micro
from qhyvit.verify.probe import MICRO
from qhyvit.verify.rules import by_rules
from qhyvit.verify.vela import compiled
from qhyvit.work import VELA, Work

if TYPE_CHECKING:
    from qhyvit.plan import QuantPlan


def on_target(work: Work, plan: QuantPlan, model: bytes, codes: np.ndarray) -> tuple[dict[str, Any], list[Note]]:
    """Facts of ``model`` on the plan's target, and the same in lines; an Ethos-U's file is written beside it.

    Args:
        codes: input codes [1, *shape] of one image.

    Raises:
        InputError: the target's tools are missing, or refuse the file.
    """
    found = target(plan.target)
    facts: dict[str, Any] = {"name": found.called, "proof": found.proof}
    if found.accelerator:
        work.progress("Vela", 0.0)
        npu = compiled(model, found)
        files.write_bytes(work.folder / VELA, npu.model)
        note = Note(f"Vela compiles it for {found.accelerator}", npu.said)
        return {**facts, "estimated": npu.to_json()}, [note]
    if found.needs_arena:
        arena = run_micro(model, [codes]).arena_bytes
        said = f"an arena of {arena / 1024:.0f} KiB, {len(model) / 1024:.0f} KiB of flash"
        return {**facts, "arena_bytes": arena, "flash_bytes": len(model)}, [Note(f"{MICRO}: memory", said)]
    if found.rules is not None:
        ruled = by_rules(model, found)
        note = Note(f"by the published rules of {ruled.whose}, which was not run", ruled.said)
        return {**facts, "rules": ruled.to_json()}, [note]
    return facts, []

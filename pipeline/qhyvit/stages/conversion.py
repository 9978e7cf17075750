"""Stage 3: the integer file."""

from __future__ import annotations

from qhyvit import files
from qhyvit.stages.solved import solved
from qhyvit.work import CONSTANTS, FOLDED, MODEL, PLAN, Work, alone


@alone
def convert(work: Work) -> None:
    """Stage 3: ``model.tflite``."""
    key = {name: work.hash(name) for name in (FOLDED, CONSTANTS, PLAN)}

    def make() -> None:
        from qhyvit.tflite.serialize import serialize

        work.progress("convert", 0.0)
        files.write_bytes(work.folder / MODEL, serialize(solved(work).lowered.graph))

    work.stage("convert", key, (MODEL,), make)

"""The stages of a build on a work directory: each writes its files whole, and is skipped where nothing changed."""

from __future__ import annotations

from qhyvit.stages.bundling import bundle
from qhyvit.stages.calibration import calibrate
from qhyvit.stages.conversion import convert
from qhyvit.stages.exporting import check_weights, export
from qhyvit.stages.problem import float_graph
from qhyvit.stages.solved import plan_of, solved
from qhyvit.stages.verification import verify

__all__ = [
    "bundle", "calibrate", "check_weights", "convert", "export", "float_graph", "plan_of", "solved",
    "verify",
]  # fmt: skip

"""What calibration left in a work directory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.plan import QuantPlan
from qhyvit.work import CONSTANTS, FLOAT, FOLDED, PLAN, Work

if TYPE_CHECKING:
    from qhyvit.graph.ir import Graph
    from qhyvit.lowering.lower import Lowered


@dataclass(frozen=True)
class Solved:
    """What calibration left: the float graph with its folds, the same with the constants that ship, the plan."""

    folded: Graph
    shipped: Graph
    plan: QuantPlan

    @property
    def lowered(self) -> Lowered:
        """The typed graph: what the file holds."""
        from qhyvit.lowering.lower import lower

        return lower(self.shipped, self.plan)


def plan_of(work: Work) -> QuantPlan:
    """The plan alone."""
    return work.load(PLAN, lambda content: QuantPlan.from_json(content.decode()))


def solved(work: Work, plan: QuantPlan | None = None) -> Solved:
    """Read what calibration wrote; ``plan``: if it was read already.

    Raises:
        InputError: something is missing or damaged, or the float file is another one by now.
    """
    from qhyvit.graph import edit
    from qhyvit.lowering.profiles import ids_of, widened, with_gates, with_islands
    from qhyvit.targets import target
    from qhyvit.tflite.read import read

    plan = plan or plan_of(work)
    if plan.model_sha256 and work.hash(FLOAT) != plan.model_sha256:
        raise InputError(f"{work.folder / FLOAT} is not the file that was calibrated: run calibrate again")
    folded = replace(work.load(FOLDED, read), centred=target(plan.target).symmetric)
    folded = with_islands(folded, plan.profile, ids_of(folded, plan.floats))
    folded = widened(folded, ids_of(folded, plan.wide))
    folded = with_gates(folded, plan.gates)
    constants = work.load(CONSTANTS, lambda content: files.unpack_arrays(content, CONSTANTS))
    return Solved(folded, edit.with_named(folded, constants), plan)

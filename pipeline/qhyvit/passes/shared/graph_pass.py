"""What a pass is: a value-preserving edit of a graph, when it runs and behind which others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import Sizes
from qhyvit.sim.checked import Edit
from qhyvit.targets import Target


class Phase(StrEnum):
    """When a pass runs.

    EXPORT: on the converted float graph, before it is compared with the user's module. PREPARE: before calibration.
    LOWERED: behind the search, once it is known what computes outside int8.
    """

    EXPORT = "export"
    PREPARE = "prepare"
    LOWERED = "lowered"


@dataclass(frozen=True)
class Pass:
    """One pass.

    Args:
        name: that of its file.
        summary: what holds of a graph behind it.
        apply: gives an equal graph, the very same one where there is nothing to do.
        phase: when it runs.
        after: names of passes of its phase that have to come before it.
        only: which targets it is for; None: all.
        sized: the same function where it takes, as its second argument, from which sizes on it pays; None: it takes
            none.
        targeted: the same where that is the target.
    """

    name: str
    summary: str
    apply: Callable[[Graph], Graph]
    phase: Phase = Phase.PREPARE
    after: tuple[str, ...] = ()
    only: Callable[[Target], bool] | None = None
    sized: Callable[[Graph, Sizes], Graph] | None = None
    targeted: Callable[[Graph, Target], Graph] | None = None

    def edit(self, target: Target) -> Edit:
        """The pass for a target, for the door that all edits go through."""
        return Edit(f"pass {self.name}", self._on(target))

    def _on(self, target: Target) -> Callable[[Graph], Graph]:
        sized, targeted = self.sized, self.targeted
        if sized is not None:
            return lambda graph: sized(graph, target.latency.sizes)
        if targeted is not None:
            return lambda graph: targeted(graph, target)
        return self.apply

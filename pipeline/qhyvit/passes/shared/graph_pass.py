"""What a pass is: a value-preserving edit of a graph, when it runs and behind which others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from qhyvit.graph.ir import Graph
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
        apply: gives an equal graph, the very same one where there is nothing to do. If ``sized``, its second argument
            says from which sizes on that pays (:class:`qhyvit.latency.profile.Sizes`).
        phase: when it runs.
        after: names of passes of its phase that have to come before it.
        only: which targets it is for; None: all.
        targeted: ``apply`` takes the target as well, as its second argument.
    """

    name: str
    summary: str
    apply: Callable[..., Graph]
    phase: Phase = Phase.PREPARE
    after: tuple[str, ...] = ()
    only: Callable[[Target], bool] | None = None
    sized: bool = False
    targeted: bool = False

    def edit(self, target: Target) -> Edit:
        """The pass for a target, for the door that all edits go through."""
        given = {"sizes": target.latency.sizes} if self.sized else {"target": target} if self.targeted else {}
        return Edit(f"pass {self.name}", partial(self.apply, **given))

"""The options of ``qhyvit``, and what is proposed where a build was made with fewer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from qhyvit.folds import all_folds
from qhyvit.methods.shared.problem import Options, Proposal
from qhyvit.options import setting


@dataclass(frozen=True)
class QhyvitOptions(Options):
    """Options of ``qhyvit``."""

    rounds: int = setting(3, "of gradients and ranges", low=1, high=100)
    ends: str = setting(
        "independent",
        "both ends of a range searched; joint: multiples of min-max, as in the paper",
        choices=("independent", "joint"),
    )
    scheme: str = setting("search", "of activations", choices=("search", "asymmetric", "symmetric"))
    folds: str = setting(
        "all",
        "scales of channels that go into neighbours",
        choices=tuple(all_folds()),
        joined=True,
        alone=("all", "none"),
    )
    int16_ms: float = setting(
        0.2,
        "that int16 softmaxes may add where the objective gains; 0: no int16 at all",
        low=0,
        high=1e6,
        unit="milliseconds",
    )
    bridge: bool = setting(True, "block outputs as the objective inside bridge blocks")
    ridge: float = setting(
        1.0, "weights that undo the error before them: the pull towards the float ones; 0: off", low=0, high=1e6
    )
    rounding: bool = setting(True, "weights rounded with care (GPTQ)")
    bias: bool = setting(True, "biases take the mean error")
    learn: int = setting(
        3,
        "times that learned scales see all images, if some are left to judge; twice that where every output counts",
        low=0,
        high=1000,
    )
    search_images: int = setting(
        32, "of all, for everything before; where every output counts it is seven eighths", low=1, high=10**6
    )

    fast: bool = setting(
        False, "two rounds, of sixteen images where the task allows it, and nothing learned: two thirds of the time"
    )

    @property
    def effective(self) -> QhyvitOptions:
        """What is done: these options, with ``fast`` carried out."""
        if not self.fast:
            return self
        return replace(
            self, rounds=min(self.rounds, 2), search_images=min(self.search_images, 16), learn=0, fast=False
        )

    @property
    def fold_names(self) -> list[str]:
        """The folds that are wanted."""
        return list(all_folds()) if self.folds == "all" else [] if self.folds == "none" else self.folds.split(",")

    def without_int16(self) -> QhyvitOptions:
        """See :meth:`Options.without_int16`."""
        return replace(super().without_int16(), int16_ms=0.0)

    def with_more_int16(self, ms: float) -> QhyvitOptions:
        """See :meth:`Options.with_more_int16`; in tenths of a millisecond."""
        return replace(self, int16_ms=math.ceil(10 * (self.int16_ms + ms)) / 10)

    def proposals(self) -> tuple[Proposal, ...]:
        """See :meth:`Options.proposals`."""
        default, found = QhyvitOptions(), []
        if self.fast:
            reason = "fast: two rounds of sixteen images chose the ranges and solved the weights; more find better ones"
            return (Proposal("Search for longer", reason, replace(self, fast=False)),)
        if self.folds != "all":
            reason = f"folds={self.folds}: channels of small values share the steps of the largest"
            found.append(Proposal("Move channel scales into neighbouring weights", reason, replace(self, folds="all")))
        if not self.learn:
            reason = "scales stay as single decisions left them; errors that add up or cancel are not seen"
            better = replace(self, learn=default.learn)
            found.append(Proposal("Let all scales follow the gradient of the KL", reason, better))
        off = [name for name in ("ridge", "rounding", "bias") if not getattr(self, name)]
        if off:
            reason = (
                f"{', '.join(off)} are off: weights do not make up for the errors before them; float weights would "
                "bring the KL shown"
            )
            better = replace(self, **{name: getattr(default, name) for name in off})
            found.append(Proposal("Solve weights and biases in closed form", reason, better, solves_weights=True))
        return tuple(found)

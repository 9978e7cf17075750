"""What a task is: how the outputs of a network are read, and how far two networks' outputs are from each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import Score, Truth

if TYPE_CHECKING:
    import torch

# (reference [B, N], outputs [B, N]) -> distance of each image [B], differentiable, 0 where equal
Distance = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
DEVIATIONS = 2.0  # how far a share of few decisions may lie below a limit by chance


@dataclass(frozen=True)
class Measure:
    """A task's distance for one network, and what a search has to know of it.

    Args:
        task: its name.
        distance: see :data:`Distance`.
        far: distance behind the first ranges from which on accuracy is worth more than time, so that islands of 16 bits
            or float are made for it.
        thorough: a search sees seven eighths of all images, and a mirrored crop of each: where every output counts,
            rare large values of single channels decide, and a few images show few of them.
    """

    task: str
    distance: Distance
    far: float
    thorough: bool = False


@dataclass(frozen=True)
class Alike:
    """How much of what float says another file says too, on some images.

    Args:
        share: 1 where it is all; what a limit is for.
        text: in words.
        figures: named values for programs.
        decisions: how many decisions ``share`` is a share of, 0 where it is none.
        doubt: why it says little of this network, "" where it does.
        reading: the figure that people read (``Task.reading`` is its title).
        each: the reading of every output, or of every value, where ``reading`` is that of the worst.
    """

    share: float
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)
    decisions: int = 0
    doubt: str = ""
    reading: float = 0.0
    each: tuple[float, ...] = ()

    def least(self, limit: float) -> float:
        """The lowest share that a limit lets pass: few decisions may lie below it by chance."""
        if not self.decisions:
            return limit
        spread = DEVIATIONS * math.sqrt(self.decisions * limit * (1 - limit))
        return max(math.ceil(limit * self.decisions - spread), 0) / self.decisions

    def by_name(self, layout: Layout, labels: Sequence[str] = ()) -> dict[str, float]:
        """:attr:`each` by the names of the outputs or of the values, the worst first; nothing where there is one alone.

        Args:
            labels: names of the values, where somebody gave some.
        """
        values = labels or [f"value {i}" for i in range(len(self.each))]
        names = layout.names if len(layout.names) > 1 else values
        several = zip(names, self.each, strict=True) if len(self.each) > 1 else ()
        return dict(sorted(several, key=lambda found: found[1]))


@dataclass(frozen=True)
class Task:
    """One way to read outputs.

    Args:
        name: how the user calls it; ``summary``: one line.
        unfit: why outputs are not this task's, "" where they are.
        distance: of a network with these outputs; the second argument is the reference on the calibration images,
            [N, outputs], for what is measured in the outputs' own spread.
        alike: (reference [N, outputs], outputs [N, outputs], their layout) -> what the integer file keeps of float.
        kept: what ``share`` of :class:`Alike` is, in words; ``limit``: the lowest that verification lets pass, unless
            the user says otherwise.
        far, thorough: see :class:`Measure`.
        cut: ops that are taken off the end of a network, because this task applies them itself.
        channels_last: outputs of rank 4 are turned to [1, height, width, channels] when they are exported.
        truth: what labels say of an image; ``truth_is_needed``: an evaluation without them says nothing;
            ``wrong_truth``: (the truth, outputs of the model) -> why no such labels can be right, "" where they can.
        one_class: each image is decided for one class, by its largest output.
        score: (outputs [N, outputs], the truth, layout) -> how right they are; None where there is no truth. The truth
            is [N] class indices, [N, values], or :class:`qhyvit.tasks.shared.score.LabelMaps`.
        columns: titles of the score's figures, by their names; ``errors``: those of which less is better.
        apart: (reference [N, outputs], outputs [N, outputs], layout) -> how far each image is from float, [N]; 0 where
            there is nothing to show. ``said``: (outputs [outputs], layout, labels) -> what they say, in words.
            ``picture``: (outputs [outputs], layout) -> the class of each pixel, [h, w], where that can be drawn.
        reading: title of ``reading`` of :class:`Alike`; ``distance_name``: what the distance is called, in a word.
    """

    name: str
    summary: str
    unfit: Callable[[Layout], str]
    distance: Callable[[Layout, torch.Tensor], Distance]
    alike: Callable[[np.ndarray, np.ndarray, Layout], Alike]
    kept: str
    limit: float
    far: float
    thorough: bool = False
    cut: tuple[str, ...] = ()
    channels_last: bool = False
    truth: Truth = Truth.NONE
    truth_is_needed: bool = False
    wrong_truth: Callable[[np.ndarray, int], str] = lambda truth, outputs: ""
    one_class: bool = False
    score: Callable[[np.ndarray, Any, Layout], Score] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    apart: Callable[[np.ndarray, np.ndarray, Layout], np.ndarray] = lambda a, b, layout: np.abs(a - b).max(axis=1)
    said: Callable[[np.ndarray, Layout, Sequence[str]], str] = lambda row, layout, labels: ""
    picture: Callable[[np.ndarray, Layout], np.ndarray] | None = None
    reading: str = "kept of float"
    distance_name: str = "KL"

    @property
    def part(self) -> str:
        """What each of :attr:`Alike.each` is about, in a word."""
        return "value" if self.truth is Truth.VALUES else "output"

    def worst_of(self, each: Mapping[str, float]) -> str:
        """What to say behind a reading that is the first of ``each``; "" where there are not several."""
        return f" (the worst of {len(each)} {self.part}s: {next(iter(each))})" if each else ""

    def measure(self, layout: Layout, reference: torch.Tensor) -> Measure:
        """What calibration lowers for a network whose outputs on the calibration images are ``reference``."""
        return Measure(self.name, self.distance(layout, reference), self.far, self.thorough)


def unfit_for_rows(layout: Layout, least: int, what: str) -> str:
    """Why outputs are not one vector of ``least`` values or more; "" where they are."""
    one = len(layout.shapes) == 1 and len(layout.shapes[0]) == 1
    return "" if one and layout.shapes[0][0] >= least else f"needs one output [1, {what}], {least} or more"

"""What every method is given, what it may be told, and the type that it returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self, TypeVar

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile
from qhyvit.options import Settings, setting
from qhyvit.plan import FoldNote, TensorQuant
from qhyvit.progress import Log, Progress, silent
from qhyvit.sim.checked import Door, Edit
from qhyvit.sim.run import Executor, Hook
from qhyvit.store import Store
from qhyvit.targets import Target
from qhyvit.targets import target as find_target
from qhyvit.tasks import task as find_task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Measure, Task
from qhyvit.threads import in_order

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 2  # batches: each takes its memory
HELD_OUT = 8  # of so many pictures, a search leaves one to the judges where it sees all others


@dataclass(frozen=True)
class Batch:
    """Some of the images, [B, H, W, C], their reference outputs, [B, outputs], and which batch they are."""

    number: int
    images: torch.Tensor
    targets: torch.Tensor


def at_once(do: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """``do`` of each item, in their order, two at a time with half of torch's threads each.

    Small ops leave most of a second thread idle; two batches side by side do not. The caller has no more threads in
    between: one that waits for its next op would spin on a core that a batch needs.
    """
    threads = torch.get_num_threads()
    workers = min(AT_ONCE, threads)
    torch.set_num_threads(threads // workers)
    try:
        yield from in_order(do, items, workers, lambda: torch.set_num_threads(threads // workers))
    finally:
        torch.set_num_threads(threads)


def all_done(do: Callable[[Item], None], items: Iterable[Item]) -> None:
    """``do`` of each item, in :data:`AT_ONCE` shares side by side; for many small ones."""
    found = list(items)

    def several(first: int) -> None:
        for item in found[first::AT_ONCE]:
            do(item)

    for _ in at_once(several, range(AT_ONCE)):
        pass


@dataclass(frozen=True)
class Problem:
    """A float graph and the images to calibrate on.

    Args:
        graph: float graph, the one that ships. Edits make others of it (:meth:`on`).
        images: preprocessed calibration images, [N, H, W, C] float32, no labels.
        reference: outputs of the unedited network on them, [N, outputs]: the target of all that is searched, learned
            and chosen, whatever was edited since. None: those of ``graph`` as it is given here.
        task: what the outputs mean; ``measure``: how far they are from the reference, None: the task's.
        door: compares the outputs before and after an edit; None: one with the first image.
        bridge: names of the tensors inside bridge blocks.
        bits: of activations and weights, 4 to 8; ``int4``: weights may have four where a kernel takes them, and the
            file may have ``size`` bytes, None: what is left of accuracy decides.
        target: what the file is for: what ops cost there, and whether nodes may compute in float.
        store: where finished pieces are kept.
        batch: images that run at once in one thread (memory: a batch holds all activations and their gradients).
        views: how many of the images show one picture: row i of each of that many equal parts of them shows picture i.
        progress: told how far the work is; ``log``: told what was found.
    """

    graph: Graph
    images: torch.Tensor
    reference: torch.Tensor | None = None
    task: Task = field(default_factory=lambda: find_task("classify"))
    measure: Measure | None = None
    door: Door | None = None
    bridge: frozenset[str] = frozenset()
    batch: int = 2
    views: int = 1
    seed: int = 0
    bits: int = 8
    int4: bool = False
    size: int | None = None
    target: Target = field(default_factory=find_target)
    store: Store = field(default_factory=Store)
    progress: Progress = field(default=silent)
    log: Log = field(default=silent)

    def __post_init__(self) -> None:
        if self.reference is None:
            object.__setattr__(self, "reference", outputs_of(self.graph, self.images, self.batch))
        if self.measure is None:
            object.__setattr__(self, "measure", self.task.measure(layout_of(self.graph), self.targets))
        if self.door is None:
            object.__setattr__(self, "door", Door(self.images, self.seed, self.log))

    def on(self, graph: Graph) -> Problem:
        """The same problem, with the same reference, on an edited graph."""
        return replace(self, graph=graph)

    def edited(self, edits: Sequence[Edit]) -> tuple[Problem, list[bool]]:
        """The problem behind the edits that fit and change no output (:class:`Door`), and which those are."""
        assert self.door is not None
        graph, done = self.door.through(self.graph, edits)
        return self.on(graph), done

    def some(self, count: int) -> Problem:
        """The same problem on ``count`` of the images, drawn by the seed; all if there are no more."""
        if len(self.images) <= count:
            return self
        return replace(self._on_images(self._order[:count]), views=1)  # not all views of a picture are drawn

    @property
    def _order(self) -> torch.Tensor:
        """Indices of the images as the seed shuffles them."""
        return torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.seed))

    def _on_images(self, picked: torch.Tensor) -> Problem:
        order = picked.sort().values
        return replace(self, images=self.images[order], reference=self.targets[order])

    def _parted(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the images that a search sees, and of the others.

        It sees ``count``, or where the measure is thorough all views of all pictures but one in :data:`HELD_OUT`.
        """
        if not self.lowered.thorough:
            return self._order[:count], self._order[count:]
        pictures = len(self.images) // self.views
        order = torch.randperm(pictures, generator=torch.Generator().manual_seed(self.seed))
        rows = order[:, None] + pictures * torch.arange(self.views)
        held = pictures // HELD_OUT
        return rows[held:].flatten(), rows[:held].flatten()

    def searched(self, count: int) -> Problem:
        """The same problem on the images that a search sees: ``count``, or nearly all where the measure is thorough."""
        seen, others = self._parted(count)
        return self._on_images(seen) if len(others) else self

    def unseen(self, count: int, most: int) -> Problem:
        """The same problem on up to ``most`` images that ``searched(count)`` leaves out: they judge what it found.

        Where it leaves out none, those that it sees judge.
        """
        others = self._parted(count)[1]
        return self._on_images(others[:most]) if len(others) else self

    def leaves_some(self, count: int) -> bool:
        """Whether ``searched(count)`` leaves out any image."""
        return len(self._parted(count)[1]) > 0

    @property
    def latency(self) -> LatencyProfile:
        """Times of the target's kernels."""
        return self.target.latency

    @property
    def lowered(self) -> Measure:
        """The measure: what a calibration lowers."""
        assert self.measure is not None
        return self.measure

    @property
    def targets(self) -> torch.Tensor:
        """The reference, [N, outputs]."""
        assert self.reference is not None
        return self.reference

    def _batches(self) -> Iterator[Batch]:
        parts = zip(*(torch.split(x, self.batch) for x in (self.images, self.targets)), strict=True)
        yield from (Batch(i, *pair) for i, pair in enumerate(parts))

    def each(self, do: Callable[[Batch], Result], label: str = "") -> Iterator[Result]:
        """``do`` of every batch, in their order, :data:`AT_ONCE` at a time; ``label``: what ``progress`` is told."""
        with contextlib.closing(at_once(do, self._batches())) as found:
            for done in range(self.batch_count):
                if label:
                    self.progress(label, done / self.batch_count)
                yield next(found)  # kept by nobody here: a result may be large

    def in_pairs(self, do: Callable[[Batch], Result], label: str = "") -> Iterator[list[Result]]:
        """The same, :data:`AT_ONCE` results together; between two such lists the caller has all of torch's threads."""
        batches = list(self._batches())
        for first in range(0, len(batches), AT_ONCE):
            if label:
                self.progress(label, first / self.batch_count)
            yield [*at_once(do, batches[first : first + AT_ONCE])]

    def values(self, executor: Executor, tensors: Collection[int]) -> Iterator[dict[int, torch.Tensor]]:
        """What ``executor`` makes of every batch, in their order: see :func:`runner`."""
        yield from self.each(runner(executor, tensors))

    @property
    def together(self) -> int:
        """Images that run at once, in all threads."""
        return min(AT_ONCE * self.batch, len(self.images))

    @cached_property
    def batch_count(self) -> int:
        """How many batches there are."""
        return -(-len(self.images) // self.batch)


def runner(
    executor: Executor, tensors: Collection[int], hook: Hook | None = None
) -> Callable[[Batch], dict[int, torch.Tensor]]:
    """A function of a batch: values of ``tensors`` and of the outputs by id, [B, *file shape], without gradients."""

    def found(batch: Batch) -> dict[int, torch.Tensor]:
        with torch.no_grad():
            return executor.run(batch.images, hook, tensors)

    return found


def layout_of(graph: Graph) -> Layout:
    """Names and shapes of a graph's outputs."""
    found = [graph.tensors[t] for t in graph.outputs]
    return Layout(tuple(t.name for t in found), tuple(t.shape[1:] for t in found))


def outputs_of(graph: Graph, images: torch.Tensor, batch: int = 2) -> torch.Tensor:
    """Outputs [N, outputs] of a float graph on images [N, H, W, C], its gates exact."""
    executor = Executor(graph, exact=True)

    def one(some: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return executor.rows(some)

    return torch.cat([*at_once(one, torch.split(images, batch))])


@dataclass(frozen=True)
class Solution:
    """What a method decided: the float-equal graph with its folds, a quantization for every tensor, the folds made.

    ``constants``: by name, values that take the place of the graph's own in the file (rounded weights, biases);
    ``int16``: scales of what the islands compute where they are int16 (:attr:`qhyvit.plan.QuantPlan.int16`).
    """

    graph: Graph
    tensors: Mapping[str, TensorQuant]
    folds: tuple[FoldNote, ...] = ()
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    int16: Mapping[str, float] = field(default_factory=dict)

    @property
    def shipped(self) -> Graph:
        """The graph with the constants that the file will hold."""
        return edit.with_named(self.graph, self.constants)


@dataclass(frozen=True)
class Proposal:
    """Other options of a method, and why they may pay; ``solves_weights``: what they gain, float weights show."""

    title: str
    reason: str
    options: Options
    solves_weights: bool = False


@dataclass(frozen=True)
class Options(Settings):
    """What every method may be told; each adds its own."""

    fast_softmax: bool = setting(True, "large softmaxes of int8 ops that XNNPACK has (at 8 bits)")
    fast_gelu: bool = setting(True, "int8 GELUs as SiLU where the outputs allow it (at 8 bits)")

    def without_int16(self) -> Self:
        """For targets that have no int16 kernels."""
        return self

    def without_log(self) -> Self:
        """For targets that have no int8 LOG."""
        return replace(self, fast_softmax=False)

    def with_more_int16(self, ms: float) -> Self | None:
        """With that many milliseconds more for int16 kernels; None: the method has none."""
        return None

    def proposals(self) -> tuple[Proposal, ...]:
        """What would lower the objective further than these options do."""
        return ()

"""The one door for graph edits: both graphs run on the same seeded inputs, and what computes something else is refused.

An edit promises to leave the network's function as it was. Here that promise is tried, on one real image and on one of
random values, before anything is built on it. The proof of the finished file (:mod:`qhyvit.verify.against_float`) does
not rely on it: it compares with the exported file again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qhyvit.errors import GraphError, QhyvitError
from qhyvit.graph.ir import Graph
from qhyvit.progress import Log, silent
from qhyvit.sim.run import Executor

# Of the largest output. Constants are float32, so that an exact edit may move outputs by some 1e-7 each; softmax and
# norms in a row multiply that. Wrong edits were off by 1e-3 and more.
EXACT = 2e-5
# A network that divides by its own values multiplies more than that: rounding its constants anew, which no edit can
# help, is tried on it then, and what that moves is allowed too, up to LARGEST.
ROUNDING, LARGEST = 2.0**-24, 1e-3
QUICK = 1e-6  # in float32; what differs by more is run again in float64


class EditError(GraphError):
    """An edit that changes what the network computes."""


@dataclass(frozen=True)
class Edit:
    """One edit; ``apply`` gives the graph, the very same one where there is nothing to do, None where it does not fit.

    ``name`` says which edit at which place, for whoever reads of a refusal.
    """

    name: str
    apply: Callable[[Graph], Graph | None]


class Door:
    """Compares graphs on fixed inputs [2, *input shape without batch].

    Args:
        images: real ones, [N, H, W, C] as the network takes them; the first is used, and one of random values from the
            same range is made by ``seed``.
        log: is told of what was refused.
    """

    def __init__(self, images: torch.Tensor, seed: int = 0, log: Log = silent) -> None:
        real = images[:1].float()
        low, high = float(real.min()), float(real.max())
        noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(seed))
        self.inputs = torch.cat([real, low + (high - low) * noise])
        self.log = log
        self.refused: list[str] = []
        self._rounded: float | None = None
        self._last: tuple[Graph, list[torch.Tensor]] | None = None

    @staticmethod
    def on_noise(graph: Graph, seed: int = 0, log: Log = silent) -> Door:
        """A door without a real image, for a graph with one input."""
        shape = graph.tensors[graph.inputs[0]].shape
        return Door(torch.rand((1, *shape[1:]), generator=torch.Generator().manual_seed(seed + 1)), seed, log)

    def through(self, graph: Graph, edits: Sequence[Edit]) -> tuple[Graph, list[bool]]:
        """The graph with all edits that fit and leave its outputs as they were, in order, and which those are.

        All are tried at once; only where the outputs differ is each looked at by itself.
        """
        try:
            edited, done = _all(graph, edits, lambda edit, g: edit.apply(g))
            if edited is graph or self._is_equal(graph, self.difference(graph, edited)):
                return edited, done
        except QhyvitError:
            raise
        except Exception:  # a fault of one of them, which is named below
            pass
        return _all(graph, edits, self._tried)

    def _tried(self, edit: Edit, graph: Graph) -> Graph | None:
        """The graph with one edit; None, and a line in the log, where it is refused."""
        try:
            return self.checked(edit, graph)
        except EditError as error:
            self.refused.append(edit.name)
            self.log(f"{error}; it is left out")
            return None

    def checked(self, edit: Edit, graph: Graph) -> Graph | None:
        """The graph with one edit; None where it does not fit.

        Raises:
            EditError: the outputs differ, with the edit's name and the first tensor that is not as it was; or the edit
                fails on this graph.
        """
        try:
            new = edit.apply(graph)
            if new is None or new is graph:
                return new
            new.check()
            error = self.difference(graph, new)
        except QhyvitError:
            raise
        except Exception as fault:
            raise EditError(f"{edit.name} fails on this network ({type(fault).__name__}: {fault})") from fault
        if not self._is_equal(graph, error):
            raise EditError(
                f"{edit.name} changes what the network computes: outputs differ by {error:.1e} of the largest, "
                f"first at {self._first_change(graph, new)}"
            )
        return new

    def difference(self, before: Graph, after: Graph) -> float:
        """Largest difference of any output over all inputs, relative to the largest value of that output."""
        error = _largest(self._outputs(before), _run(after, self.inputs, torch.float32))
        if not error <= QUICK:
            error = _largest(*(_run(g, self.inputs, torch.float64) for g in (before, after)))
        return error

    def _is_equal(self, graph: Graph, error: float) -> bool:
        """Whether outputs that differ so much from those of ``graph`` differ by rounding alone."""
        return error <= EXACT or (error <= LARGEST and error <= self._rounding(graph))

    def _rounding(self, graph: Graph) -> float:
        """How far the outputs move where every constant of the graph is rounded to float32 another way."""
        if self._rounded is None:
            executor, draws = Executor(graph, torch.float64, exact=True), torch.Generator().manual_seed(0)
            for t in (t for t in graph.tensors.values() if t.is_constant and t.dtype == "FLOAT32"):
                values = graph.constant(t.id).astype(np.float64)
                share = torch.rand(values.shape, generator=draws, dtype=torch.float64).numpy()
                executor.set_constant(t.id, values * (1 + ROUNDING * (2 * share - 1)))
            with torch.no_grad():
                moved = executor.run(self.inputs)
            self._rounded = _largest(_run(graph, self.inputs, torch.float64), [moved[t] for t in graph.outputs])
        return self._rounded

    def _outputs(self, graph: Graph) -> list[torch.Tensor]:
        """Outputs in float32; those of the graph that was asked for last are kept."""
        if self._last is None or self._last[0] is not graph:
            self._last = graph, _run(graph, self.inputs, torch.float32)
        return self._last[1]

    def _first_change(self, before: Graph, after: Graph) -> str:
        """Name of the first tensor of both graphs, in the order of execution, whose values differ."""
        made = {t.name for t in after.activations()}
        names = [t.name for t in before.activations() if t.name in made]
        with torch.no_grad():
            old, new = (
                Executor(g, torch.float64, exact=True).run(self.inputs, None, [g.by_name[n].id for n in names])
                for g in (before, after)
            )
        for name in names:
            x, y = old[before.by_name[name].id], new[after.by_name[name].id]
            if x.shape != y.shape or not _relative(x, y) <= EXACT:
                return name
        return before.tensors[before.outputs[0]].name


def _all(graph: Graph, edits: Sequence[Edit], apply: Callable[[Edit, Graph], Graph | None]) -> tuple[Graph, list[bool]]:
    """The graph after ``apply`` of each edit, one on the other, and which of them fitted."""
    done = []
    for edit in edits:
        new = apply(edit, graph)
        done.append(new is not None)
        graph = graph if new is None else new
    return graph, done


def _run(graph: Graph, inputs: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Every output."""
    with torch.no_grad():
        values = Executor(graph, dtype, exact=True).run(inputs)
    return [values[t] for t in graph.outputs]


def _relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).abs().max()) / max(float(x.abs().max()), 1e-30)


def _largest(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """The largest difference of any output, each relative to its own largest value; NaN where one is."""
    found = [_relative(x, y) for x, y in zip(before, after, strict=True)]
    return math.nan if any(math.isnan(error) for error in found) else max(found)

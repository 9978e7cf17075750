"""A search as phases: each makes a new state of the one before, and what is finished is kept for a run that goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from qhyvit import memory
from qhyvit.graph.ir import Graph
from qhyvit.lowering.contracts import Group, groups
from qhyvit.lowering.profiles import marked, marks
from qhyvit.methods.shared.problem import Problem, Solution
from qhyvit.plan import FoldNote, TensorQuant, quants_from_json, quants_to_json
from qhyvit.store import Piece
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize

GRAPH, POSITIONS, CONSTANTS = "graph", "positions:", "constants:"  # names of a piece's arrays


@dataclass(frozen=True)
class State:
    """What is known between two phases. Tensors go by name.

    Args:
        graph: the float graph as it is by now.
        quants: of every tensor that has one, weights included.
        notes: the folds that were made.
        tried: the quantizations in front of each round since the last edit.
        positions: what each position of a layer's output counts in the closed form, [images, positions].
        constants: values that take the place of the graph's own in the file.
        far: behind the first ranges the outputs were far from float's.
        judged: the distance of the outputs from float's on unseen images, where this state was compared with others.
    """

    graph: Graph
    quants: Mapping[str, TensorQuant]
    notes: tuple[FoldNote, ...] = ()
    tried: tuple[Mapping[str, TensorQuant], ...] = ()
    positions: Mapping[str, np.ndarray] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    far: bool = False
    judged: float | None = None

    @property
    def chosen(self) -> dict[Group, TensorQuant]:
        """The quantization of each group of tensors that share one."""
        names = ((group, self.graph.tensors[group.members[0]].name) for group in groups(self.graph))
        return {group: self.quants[name] for group, name in names}

    @property
    def solution(self) -> Solution:
        """What a method gives."""
        return Solution(self.graph, self.quants, self.notes, self.constants)

    def pack(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Facts and arrays for the store; the graph is in the latter, as a ``.tflite``."""
        facts = {
            "quants": quants_to_json(self.quants), "notes": [asdict(note) for note in self.notes],
            "tried": [quants_to_json(quants) for quants in self.tried],
            "marks": marks(self.graph), "centred": self.graph.centred, "far": self.far,
            "judged": self.judged,
        }  # fmt: skip
        arrays = {GRAPH: np.frombuffer(serialize(self.graph), np.uint8)}
        for prefix, named in ((POSITIONS, self.positions), (CONSTANTS, self.constants)):
            arrays |= {prefix + name: values for name, values in named.items()}
        return facts, arrays

    @staticmethod
    def unpack(piece: Piece) -> State:
        """What :meth:`pack` gave."""
        facts, arrays = piece.facts, piece.arrays
        named = [
            {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
            for prefix in (POSITIONS, CONSTANTS)
        ]
        tried = tuple(quants_from_json(quants) for quants in facts["tried"])
        graph = replace(marked(read(arrays[GRAPH].tobytes()), facts["marks"]), centred=facts["centred"])
        notes = tuple(FoldNote(**note) for note in facts["notes"])
        positions, constants = named
        quants, far, judged = quants_from_json(facts["quants"]), facts["far"], facts["judged"]
        return State(graph, quants, notes, tried, positions, constants, far, judged)


@dataclass(frozen=True)
class SearchPhase:
    """One step of a search; ``name`` is what the store calls the state behind it."""

    name: str
    run: Callable[[Problem, State], State]


def behind(problem: Problem, state: State, phases: Sequence[SearchPhase]) -> State:
    """The state behind all phases; what an earlier run finished is taken from the store."""
    done = [problem.store.get(phase.name) for phase in phases]
    first = max((i + 1 for i, piece in enumerate(done) if piece is not None), default=0)
    if first:
        piece = done[first - 1]
        assert piece is not None
        state = State.unpack(piece)
    for phase in phases[first:]:
        memory.give_back()
        state = phase.run(problem, state)
        problem.store.put(phase.name, *state.pack())
    return state

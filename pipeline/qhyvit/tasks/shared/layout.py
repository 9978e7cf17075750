"""Where each output of a network lies in a row that holds them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from qhyvit.errors import InputError, UsageError

Rows = TypeVar("Rows")  # torch.Tensor or np.ndarray


@dataclass(frozen=True)
class Layout:
    """Names and shapes (without the batch) of a network's outputs.

    Everything that compares networks works on rows [B, N]: the outputs of one image, one after the other, as they lie
    in the file.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...] = ()  # how much each counts where several do; empty: all alike

    @classmethod
    def of_facts(cls, outputs: Sequence[Mapping[str, Any]]) -> Self:
        """From the list that ``export.json`` holds.

        Raises:
            InputError: a shape is no list of whole numbers above 0.
        """
        for output in outputs:
            if not all(isinstance(n, int) and n > 0 for n in output["shape"]):
                raise InputError(f"output {output['name']!r} has the shape {output['shape']!r}")
        return cls(tuple(o["name"] for o in outputs), tuple(tuple(o["shape"]) for o in outputs))

    def to_facts(self) -> list[dict[str, Any]]:
        """What :meth:`of_facts` reads."""
        return [{"name": n, "shape": list(s)} for n, s in zip(self.names, self.shapes, strict=True)]

    def weighted(self, weights: Mapping[str, float]) -> Self:
        """The same with weights by name; 1 of an output that is not named.

        Raises:
            UsageError: no output has a name that is given, or one output alone is weighted.
        """
        unknown = [name for name in weights if name not in self.names]
        if unknown or (weights and len(self.names) == 1):
            names = ", ".join(self.names)
            there = f"the outputs are {names}" if unknown else "there is one output, which counts for all"
            raise UsageError(f"--output-weight {next(iter(unknown or weights))}: {there}")
        return replace(self, weights=tuple(weights.get(name, 1.0) for name in self.names) if weights else ())

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of each output."""
        return tuple(math.prod(shape) for shape in self.shapes)

    def parts(self, rows: Any) -> list[Any]:
        """Each output [B, *shape] of rows [B, N], torch's or numpy's."""
        found, start = [], 0
        for size, shape in zip(self.sizes, self.shapes, strict=True):
            found.append(rows[:, start : start + size].reshape(len(rows), *shape))
            start += size
        return found

    def described(self) -> str:
        """In words."""
        shapes = [f"[1, {', '.join(map(str, shape))}]" for shape in self.shapes]
        return shapes[0] if len(shapes) == 1 else f"{len(shapes)} outputs, {', '.join(shapes)}"

"""What a method is: a search between what all of them share, the forms of the graph before it and the last passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qhyvit.methods.shared.forms import formed
from qhyvit.methods.shared.last_edits import lowered
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.options import Option, options_of


@dataclass(frozen=True)
class Method:
    """One way to choose quantization parameters: ``find(problem, options)``, with :class:`Options` of its own.

    ``has_int4``: it knows weights of four bits (``Problem.int4``).
    """

    name: str
    summary: str
    find: Callable[[Problem, Any], Solution]
    options_type: type[Options] = Options
    has_int4: bool = False

    @property
    def options(self) -> Mapping[str, Option]:
        """What each option may be."""
        return options_of(self.options_type)

    @property
    def defaults(self) -> dict[str, Any]:
        """The value of each option where none is given."""
        return self.options_type().to_json()

    def parse(self, given: Mapping[str, Any]) -> Options:
        """``given`` in the options' types, over the defaults.

        Raises:
            UsageError: see :meth:`qhyvit.options.Settings.parse`.
        """
        return self.options_type.parse(given, f"method {self.name}")

    def search(self, problem: Problem, options: Mapping[str, Any] | Options | None = None) -> Solution:
        """What the method decides; None: by its defaults.

        Raises:
            UsageError: see :meth:`parse`.
        """
        chosen = options if isinstance(options, Options) else self.parse(options or {})
        problem = formed(problem, chosen)
        return lowered(problem, self.find(problem, chosen))

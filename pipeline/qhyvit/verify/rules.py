"""A finished file by the published rules of a compiler that was not run: what it could map, and what not and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from qhyvit.errors import InputError
from qhyvit.graph.ir import INT8
from qhyvit.targets import Target
from qhyvit.tflite.read import read


@dataclass(frozen=True)
class ByRules:
    """What the rules say of a file; nothing of it was measured.

    Args:
        whose, source: the compiler, and where its rules stand.
        operators: all of the file's; ``mapped``: those that the compiler could map, each for itself.
        first_part: of these, the ones that read no result of one that it could not map: a compiler that parts a network
            once maps no others.
        refused: (op, tensor that it writes, reason) of the others, as the file has them.
        off_centre: activations in int8 whose zero point is not 0, by name.
    """

    whose: str
    source: str
    operators: int
    mapped: int
    first_part: int
    refused: tuple[tuple[str, str, str], ...]
    off_centre: tuple[str, ...]

    @property
    def said(self) -> str:
        """In a line."""
        counts = Counter((op, reason) for op, _, reason in self.refused)
        reasons = [f"{op} {count}: {reason}" for (op, reason), count in sorted(counts.items())]
        more = f"; not these: {'; '.join(reasons)}" if reasons else ""
        part = f", {self.first_part} of them ahead of the first that could not" if reasons else ""
        zeros = f"; zero point 0 in all activations but {len(self.off_centre)}, where a kernel prescribes another"
        return f"{self.mapped} of {self.operators} operators could be mapped{part}{more}{zeros}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def by_rules(model: bytes, target: Target) -> ByRules:
    """``model`` by the target's rules.

    Raises:
        InputError: the bytes are no model, or the target has no rules.
    """
    if target.rules is None:
        raise InputError(f"no rules are known of the target {target.called}")
    graph = read(model)
    refused, mapped, behind = [], 0, set[int]()  # behind: tensors that the processor writes, or that follow from them
    first_part = 0
    for node in graph.nodes:
        reason = target.rules.reason(graph, node)
        if reason:
            refused.append((node.op, graph.tensors[node.outputs[0]].name, reason))
        mapped += not reason
        if reason or behind.intersection(node.inputs):
            behind.update(node.outputs)
        else:
            first_part += 1
    codes = ((t.name, t.quantization) for t in graph.activations() if t.dtype == INT8)
    off_centre = tuple(name for name, quant in codes if quant is not None and quant.zero_point)
    rules = target.rules
    return ByRules(rules.whose, rules.source, len(graph.nodes), mapped, first_part, tuple(refused), off_centre)

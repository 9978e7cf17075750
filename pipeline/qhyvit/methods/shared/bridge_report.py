"""What happens at the bridges of a network, in words, for the plan and the report."""

from __future__ import annotations

from collections.abc import Mapping

from qhyvit import affine
from qhyvit.lowering.contracts import groups
from qhyvit.methods.shared.bridge_blocks import bridges
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.problem import Problem
from qhyvit.plan import TensorQuant


def bridge_report(problem: Problem, quants: Mapping[str, TensorQuant]) -> dict[str, str]:
    """At each bridge tensor: whether min-max would leave int8, what that costs, and what was chosen; in words."""
    found = {b.tensor: b for b in bridges(problem.graph)}
    concerned = [g for g in groups(problem.graph) if any(t in found for t in g.roots)]
    lines = {}
    for group, (low, high) in observe(problem, concerned, "minmax").items():
        params = affine.fit(low, high, affine.grid(), symmetric=False)
        overflow, loss = int(params.overflow), float(params.resolution_loss)
        cost = "zero point inside int8, nothing lost"
        if overflow:
            cost = f"zero point {overflow:+d} codes outside int8: range extended to zero, steps {loss:.2f} x as wide"
        for t in (t for t in group.roots if t in found):
            side = "entry" if found[t].entry else "exit"
            name = problem.graph.tensors[t].name
            chosen = quants[name]
            choice = f"{chosen.choice.granularity}, {chosen.choice.scheme}, zero point {chosen.zero_point[0]}"
            lines[name] = f"{side}, range [{low:.4g}, {high:.4g}]: {cost}; chosen: {choice}"
    return lines

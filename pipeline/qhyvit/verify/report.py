"""The verdict on an integer file: every check with its figure, its limit, and whether it passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Graph
from qhyvit.plan import QuantPlan
from qhyvit.tflite.squares import as_written
from qhyvit.verify.against_float import AgainstFloat, FloatFile, against_float
from qhyvit.verify.agree import NARROWED, WIDENED, Agreement, op_by_op
from qhyvit.verify.census import Census, census
from qhyvit.verify.check import Check
from qhyvit.verify.decide import Decisions, decisions, file_codes

WITHIN_ONE_SHARE = 0.999  # of the codes of each op
DECISION_SHARE = 0.98  # of the images


@dataclass(frozen=True)
class Report:
    """Everything that verification found, by runtime; ``against_float``: None where no float file was given."""

    census: Census
    agreements: Mapping[str, Agreement]
    decisions: Mapping[str, Decisions]
    checks: tuple[Check, ...] = field(default=())
    against_float: AgainstFloat | None = None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(c.passed for c in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        first = next(iter(self.agreements.values()))
        return {
            "passed": self.passed,
            "checks": [vars(c) for c in self.checks],
            "census": self.census.to_json(),
            "ops": {run: [o.to_json() for o in a.ops.values()] for run, a in self.agreements.items()},
            "decisions": {run: {**vars(d), "share": d.share} for run, d in self.decisions.items()},
            "against_float": None if self.against_float is None else self.against_float.to_json(),
            "sqnr_db": first.sqnr_db,
        }


def _op_checks(runtime: str, agreement: Agreement) -> list[Check]:
    bad = [o for o in agreement.ops.values() if o.within_one < WITHIN_ONE_SHARE * o.compared]
    checks = []
    for o in bad:
        share = o.within_one / o.compared
        checks.append(Check(f"{runtime}: {o.op} agrees with the simulation", False,
                            f"{share:.4%} of codes within one, worst {o.worst} at {o.worst_tensor}"))  # fmt: skip
    if not bad:
        total = sum(o.compared for o in agreement.ops.values())
        equal = sum(o.equal for o in agreement.ops.values())
        worst = max((o.worst for o in agreement.ops.values()), default=0)
        detail = f"{equal / max(total, 1):.4%} of {total} codes equal, worst difference {worst}"
        checks.append(Check(f"{runtime}: every op agrees with the simulation", True, detail))
    unread = agreement.missing
    checks.append(Check(f"{runtime}: every tensor was compared", not unread,
                        f"{len(unread)} not readable" + (f", first {unread[0]}" if unread else "")))  # fmt: skip
    return checks


def _float_check(found: Census, graph: Graph, *, int16: bool) -> Check:
    """No float tensor; or, with float islands, none but theirs."""
    floats, planned = found.float_tensors, graph.floats - graph.wide
    if not planned or int16:
        first = f", first {floats[0]}" if floats else ""
        return Check("no float tensor", not floats, f"{len(floats)} float tensors{first}")
    own = _around(graph, planned)
    stray = [name for name in floats if name.removesuffix(WIDENED) not in own]
    first = f", elsewhere {len(stray)}, first {stray[0]}" if stray else ", none elsewhere"
    return Check("float only where planned", not stray, f"{len(floats)} float tensors in islands{first}")


def _around(graph: Graph, outputs: frozenset[int]) -> set[str]:
    """Names of all that the nodes which write ``outputs`` read or write."""
    nodes = [n for n in graph.nodes if outputs.intersection(n.outputs)]
    return {graph.tensors[t].name for n in nodes for t in (*n.inputs, *n.outputs) if t >= 0}


def _census_checks(found: Census, graph: Graph, *, int16: bool) -> list[Check]:
    """Checks of what is in the file; ``int16``: the islands of ``graph`` are."""
    wide = _around(graph, graph.floats if int16 else graph.wide)
    unplanned = [n for n in found.int16_tensors if n.removesuffix(NARROWED).removesuffix(WIDENED) not in wide]
    return [
        _float_check(found, graph, int16=int16),
        Check("int16 only where planned", not unplanned, f"{len(found.int16_tensors)} int16 tensors"),
        Check("XNNPACK takes the graph", found.partitions > 0,
              f"{found.partitions} partitions; builtin kernels run {sum(found.not_delegated.values())} ops: "
              + (", ".join(f"{n} {op}" for op, n in sorted(found.not_delegated.items())) or "none")),
    ]  # fmt: skip


def verify(
    folded: Graph, shipped: Graph, plan: QuantPlan, model: bytes, pixels: torch.Tensor, codes: Sequence[np.ndarray],
    runtimes: Sequence[str] = ("litert",), op_images: int = 4, reference: FloatFile | None = None,
) -> Report:  # fmt: skip
    """Check ``model`` against ``shipped`` and ``plan`` on images; op by op on the first ``op_images`` of them.

    Args:
        folded: the float graph after all edits.
        shipped: the same with the constants that the file holds.
        pixels: float images [N, H, W, 3]; ``codes``: the same images as input codes [1, H, W, 3].
        reference: the exported float file, which the edited graph and the integer file are compared with as well.
    """
    found = census(model)
    written = as_written(shipped, plan)
    checks = _census_checks(found, written, int16=bool(plan.int16))
    agreements, outcomes, outputs = {}, {}, {}
    for runtime in runtimes:
        agreement = op_by_op(
            folded, shipped, plan.tensors, model, pixels[:op_images], codes[:op_images], runtime, int16=plan.int16
        )
        outputs[runtime] = file_codes(model, codes, runtime)
        outcome = decisions(shipped, plan.tensors, outputs[runtime], pixels, plan.int16)
        agreements[runtime], outcomes[runtime] = agreement, outcome
        checks += _op_checks(runtime, agreement)
        detail = f"{outcome.simulation_agrees} of {outcome.images} images"
        checks.append(Check(f"{runtime}: simulation and file decide alike", outcome.share >= DECISION_SHARE, detail))
    if reference is None:
        return Report(found, agreements, outcomes, tuple(checks))
    quant = plan.tensors[shipped.tensors[shipped.outputs[0]].name]
    values = (outputs[runtimes[0]] - quant.zero_point[0]) * quant.scale[0]
    beside, float_checks = against_float(reference, folded, plan, pixels, values)
    return Report(found, agreements, outcomes, (*float_checks, *checks), beside)

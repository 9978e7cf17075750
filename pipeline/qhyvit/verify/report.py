"""The verdict on an integer file: every check with its figure, its limit, and whether it passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Graph
from qhyvit.lowering.lower import Lowered
from qhyvit.ops.shared.spec import Kernel
from qhyvit.progress import Progress, silent, told
from qhyvit.tflite.read import read
from qhyvit.verify.against_float import AgainstFloat, FloatFile, against_float
from qhyvit.verify.agree import Agreement, OpAgreement, op_by_op
from qhyvit.verify.census import Census, census
from qhyvit.verify.check import Check, Note
from qhyvit.verify.decide import HERE, Decisions, decisions, output_values, simulated_codes
from qhyvit.verify.probe import MICRO, outputs

OP_IMAGES = 4  # on which every op is compared
WITHIN_ONE_SHARE = 0.999  # of the codes of each op
DECISION_SHARE = 0.98  # of the images, or of what the task compares


@dataclass(frozen=True)
class Report:
    """Everything that verification found, by runtime; ``against_float``: None where no float file was given;
    ``target``: what is known of the file on its target, and ``informs``: the same in lines that ask for nothing."""

    census: Census
    agreements: Mapping[str, Agreement]
    decisions: Mapping[str, Decisions]
    checks: tuple[Check, ...] = field(default=())
    against_float: AgainstFloat | None = None
    target: Mapping[str, Any] = field(default_factory=dict)
    informs: tuple[Note, ...] = ()

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
            "informs": [vars(n) for n in self.informs],
            "census": self.census.to_json(),
            "ops": {run: [o.to_json() for o in a.ops.values()] for run, a in self.agreements.items()},
            "decisions": {run: {**vars(d), "share": d.share} for run, d in self.decisions.items()},
            "against_float": None if self.against_float is None else self.against_float.to_json(),
            "sqnr_db": first.sqnr_db,
            "target": dict(self.target),
        }


def kernel_of(runtime: str) -> Kernel:
    """Whose arithmetic a runtime has here."""
    return Kernel.TFLM if runtime == MICRO else HERE


def _is_alike(runtime: str, op: OpAgreement) -> bool:
    """TensorFlow Lite Micro computes all in integers: there every code has to be equal."""
    return op.equal == op.compared if runtime == MICRO else op.within_one >= WITHIN_ONE_SHARE * op.compared


def _op_checks(runtime: str, agreement: Agreement) -> list[Check]:
    bad = [o for o in agreement.ops.values() if not _is_alike(runtime, o)]
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


def _dtype_check(found: Census, planned: Graph, dtype: str) -> Check:
    """No tensor of a type but those of the typed graph."""
    names = {t.name for t in planned.activations() if t.dtype == dtype}
    names |= {t.name for t in planned.tensors.values() if t.is_constant and t.dtype == dtype}
    there = found.float_tensors if dtype == "FLOAT32" else found.int16_tensors
    kind = {"FLOAT32": "float", "INT16": "int16"}[dtype]
    stray = [name for name in there if name not in names]
    first = f", {len(stray)} of them not planned, first {stray[0]}" if stray else ""
    title = f"{kind} only where planned" if names or dtype == "INT16" else f"no {kind} tensor"
    return Check(title, not stray, f"{len(there)} {kind} tensors{first}")


def _census_checks(found: Census, planned: Graph) -> list[Check]:
    """Checks of what is in the file."""
    return [
        _dtype_check(found, planned, "FLOAT32"),
        _dtype_check(found, planned, "INT16"),
        Check("XNNPACK takes the graph", found.partitions > 0,
              f"{found.partitions} partitions; builtin kernels run {sum(found.not_delegated.values())} ops: "
              + (", ".join(f"{n} {op}" for op, n in sorted(found.not_delegated.items())) or "none")),
    ]  # fmt: skip


def _file_check(model: bytes, planned: Graph) -> Check:
    """The file holds the typed graph, tensor for tensor and op for op."""
    difference = first_difference(planned, read(model))
    detail = f"{len(planned.nodes)} ops and {len(planned.tensors)} tensors, codes and scales"
    return Check("file holds the planned graph", difference is None, difference or detail)


def first_difference(a: Graph, b: Graph) -> str | None:
    """Where two typed graphs part, in words; None where they are equal: ops, tensors, codes, scales, zero points."""
    used = {t for node in a.nodes for t in (*node.inputs, *node.outputs) if t >= 0} | {*a.inputs, *a.outputs}
    if len(a.nodes) != len(b.nodes):
        return f"{len(b.nodes)} ops, planned are {len(a.nodes)}"
    ends = [[g.tensors[t].name for t in (*g.inputs, *g.outputs)] for g in (a, b)]
    if ends[0] != ends[1]:
        return f"inputs and outputs are {', '.join(ends[1])}, planned are {', '.join(ends[0])}"
    for x, y in zip(a.nodes, b.nodes, strict=True):
        names = [[g.tensors[t].name if t >= 0 else "" for t in (*n.inputs, *n.outputs)] for g, n in ((a, x), (b, y))]
        if (x.op, x.attrs) != (y.op, y.attrs) or names[0] != names[1]:
            return f"{y.op} {names[1][-1]!r} is not the planned {x.op} {names[0][-1]!r}"
    for t in (a.tensors[i] for i in sorted(used)):
        other = b.by_name[t.name]
        same = (t.shape, t.dtype, t.quantization) == (other.shape, other.dtype, other.quantization)
        if not same or (t.data is None) != (other.data is None):
            return f"tensor {t.name!r} has another shape, type or quantization than planned"
        if t.data is not None and other.data is not None and t.data.tobytes() != other.data.tobytes():
            return f"constant {t.name!r} has other values than planned"
    return None


def _output_check(
    runtime: str, typed: Graph, simulated: np.ndarray, found: np.ndarray, reference: FloatFile | None
) -> Check:
    """Simulation and file, end to end, by their output codes [N, outputs]: of classes a tie of codes is no difference.

    Other tasks judge by their own share of what is alike.
    """
    name, outcome = f"{runtime}: simulation and file decide alike", decisions(found, simulated)
    equal = f"{outcome.equal_codes:.2%} of codes equal"
    if reference is None or reference.task.one_class:
        detail = f"{outcome.simulation_agrees} of {outcome.images} images, {equal}"
        return Check(name, outcome.share >= DECISION_SHARE, detail)
    alike = reference.task.alike(output_values(typed, simulated), output_values(typed, found), reference.layout)
    return Check(name, alike.share >= DECISION_SHARE, f"{alike.text}; {equal}")


def verify(
    edited: Graph, lowered: Lowered, model: bytes, pixels: torch.Tensor,
    codes: Sequence[np.ndarray], runtimes: Sequence[str] = ("litert",), reference: FloatFile | None = None,
    progress: Progress = silent,
) -> Report:  # fmt: skip
    """Check ``model`` against the typed graph on images; op by op on the first few of them.

    Args:
        edited: the float graph after all edits.
        pixels: float images [N, H, W, 3]; ``codes``: the same images as input codes [1, H, W, 3].
        runtimes: of several the first decides as float does, or TensorFlow Lite Micro.
        reference: the exported float file, which the edited graph and the integer file are compared with as well.
    """
    found, typed = census(model), lowered.graph
    checks = [_file_check(model, typed), *_census_checks(found, typed)]
    kernels = dict.fromkeys(map(kernel_of, runtimes))
    simulated = {k: simulated_codes(typed, told(codes, "simulate", progress), k) for k in kernels}
    agreements, outcomes, found_codes = {}, {}, {}
    for runtime in runtimes:
        kernel = kernel_of(runtime)
        first = told(codes[:OP_IMAGES], "compare op by op", progress)
        agreements[runtime] = op_by_op(edited, lowered, model, pixels[:OP_IMAGES], first, kernel, runtime)
        found_codes[runtime] = outputs(model, codes, runtime)
        outcomes[runtime] = decisions(found_codes[runtime], simulated[kernel])
        checks += _op_checks(runtime, agreements[runtime])
        checks.append(_output_check(runtime, typed, simulated[kernel], found_codes[runtime], reference))
    if reference is None:
        return Report(found, agreements, outcomes, tuple(checks))
    values = output_values(typed, found_codes[MICRO if MICRO in found_codes else runtimes[0]])
    beside, float_checks = against_float(reference, edited, pixels, values)
    return Report(found, agreements, outcomes, (*float_checks, *checks), beside)

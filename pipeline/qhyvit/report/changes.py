"""What could be changed about a build, what each change would regain of the KL, and the command that makes it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile
from qhyvit.lowering.contracts import groups, weights
from qhyvit.lowering.profiles import placed, wide_cost_ms, widened
from qhyvit.methods import method as find_method
from qhyvit.methods.shared.problem import Options, Problem
from qhyvit.methods.shared.ranges import group_quant
from qhyvit.methods.shared.rest import observed
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.report.cost import Costs
from qhyvit.report.facts import Change, rounded
from qhyvit.targets import may_float, target

ENOUGH_IMAGES = 128  # the default of --count
LEAST_SHARE = 0.01  # of the KL: what regains less is not worth a build
SHOWN = 3
BEST_METHOD = "qhyvit"


@dataclass(frozen=True)
class _Build:
    """The build that a change starts from; ``command``: the one recorded, or one of its stages."""

    plan: QuantPlan
    command: str
    latency: LatencyProfile

    @property
    def options(self) -> Options:
        """Options of the method as this build had them; those that it no longer has are left out."""
        method = find_method(self.plan.method)
        return method.parse({name: value for name, value in self.plan.options.items() if name in method.options})

    def with_options(self, wanted: Options) -> str:
        """The build's command with these options of its method."""
        before = self.options.to_json()
        changed = {name: value for name, value in wanted.to_json().items() if value != before[name]}
        return self.again(*(word for name, value in changed.items() for word in ("--set", f"{name}={_written(value)}")))

    def again(self, *options: str, switch: str = "") -> str:
        """The build's command with other options (name, value, name, value, ...), and one without a value."""
        try:
            words = shlex.split(self.command)
        except ValueError:  # a quote without its end: anyone may have written the manifest
            words = []
        if words[:2] != ["qhyvit", "build"]:
            words = ["qhyvit", "build", "MODEL", "--images", "IMAGES", "--out", "BUNDLE"]
        for name, value in zip(options[::2], options[1::2], strict=True):
            if name in words[:-1] and name != "--set":
                words[words.index(name) + 1] = value
            else:
                words += [name, value]
        words += [switch] if switch else []
        return shlex.join([*words, *(() if "--force" in words else ("--force",))])


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def refitted(costs: Costs, graph: Graph, ids: Collection[int]) -> dict[str, TensorQuant]:
    """The plan's quantizations with the groups around ``ids`` ranged anew, as the contracts of ``graph`` have it.

    Ranges are the extremes on the samples; tensors that stay float in ``graph`` lose their codes.
    """
    quants = dict(costs.quants)
    for group in groups(graph):
        if not set(ids).intersection(group.members):
            continue
        values = [costs.replay.values[t] for t in group.roots if t in costs.replay.values]
        low, high = min(float(x.min()) for x in values), max(float(x.max()) for x in values)
        quant = group_quant(group, low, high, "minmax", bits=quants[graph.tensors[group.members[0]].name].bits)
        quants.update({graph.tensors[t].name: quant for t in group.members})
    inside = {t.name for t in graph.tensors.values() if graph.islands and graph.stays_inside(t.id)}
    return {name: quant for name, quant in quants.items() if name not in inside}


def _kl(costs: Costs, quants: Mapping[str, TensorQuant], constants: Graph | None = None) -> float:
    return costs.of(costs.everything(quants, constants))


def _bits(build: _Build, costs: Costs) -> Change | None:
    bits = min((q.bits for q in build.plan.tensors.values() if q.axis is None), default=8)
    if bits >= 8:
        return None
    reason = f"the grid has {2**bits} codes a tensor; TFLite's kernels take 256 at the same speed"
    return Change("Use 8 bits", reason, build.again("--bits", "8"), None)


def _method(build: _Build, costs: Costs) -> Change | None:
    """Another method, where squared-error ranges alone show that this one's are not the best."""
    if build.plan.method == BEST_METHOD:
        return None
    found = observed(Problem(costs.graph, costs.images), "mse")["mse"]
    free = {costs.graph.tensors[t].name: q for g, q in found.items() if g.fixed is None for t in g.members}
    quants = {name: free.get(name, q) for name, q in costs.quants.items()}
    reason = (
        f"{build.plan.method} chose these ranges without looking at the logits; ranges of least squared error alone "
        "bring the KL shown, gradients, folds and solved weights come on top"
    )
    return Change("Let the KL choose ranges, folds and weights", reason, build.again("--method", BEST_METHOD),
                  _kl(costs, quants))  # fmt: skip


def _cpu_profile(build: _Build, costs: Costs) -> Change | None:
    # norms that need more than int8 have it
    if build.plan.profile != "integer" or build.plan.int16 or not may_float(build.plan.target):
        return None
    graph = placed(costs.graph, replace(target(integer=False), times=build.latency))
    if not graph.islands:
        return None
    reason = (
        f"{len(graph.islands)} ops, softmax and the roots of norms among them, have coarse or slow int8 kernels; "
        "this profile computes them in float (the file is then no longer integer only)"
    )
    return Change("Compute softmax and norms in float", reason, build.again(switch="--no-integer"),
                  _kl(costs, refitted(costs, graph, graph.islands)))  # fmt: skip


def _int16(build: _Build, costs: Costs) -> Change | None:
    spent = {t.id: wide_cost_ms(costs.graph, t.id, build.latency) for t in costs.graph.activations()}
    narrow = {t: ms for t, ms in spent.items() if ms is not None}
    more = build.options.with_more_int16(sum(narrow.values()))
    if build.plan.profile != "integer" or more is None or not narrow or not target(build.plan.target).int16:
        return None
    reason = (
        f"{len(narrow)} softmax outputs are int8 with the step 1/256 that their kernel prescribes; int16 costs about "
        f"{sum(narrow.values()):.2g} ms on one core (those that gain nothing stay int8)"
    )
    return Change("Give int16 softmax more time", reason, build.with_options(more),
                  _kl(costs, refitted(costs, widened(costs.graph, narrow), narrow)))  # fmt: skip


def _proposed(build: _Build, costs: Costs) -> list[Change]:
    """What the method itself knows; solved weights are measured as float ones, the best that they can come to."""
    names = {w.name for _, w, _ in weights(costs.graph)}
    solved = {n: q for n, q in costs.quants.items() if n not in names}
    return [
        Change(p.title, p.reason, build.with_options(p.options),
               _kl(costs, solved, costs.graph) if p.solves_weights else None)
        for p in build.options.proposals()
    ]  # fmt: skip


def _images(build: _Build, costs: Costs) -> Change | None:
    if build.plan.image_count >= ENOUGH_IMAGES:
        return None
    reason = (
        f"{build.plan.image_count} images decided over ranges and weights, {ENOUGH_IMAGES} are the default; more "
        "images show rarer values and let scales be learned without fitting these few"
    )
    return Change("Calibrate on more images", reason, build.again("--count", str(ENOUGH_IMAGES)), None)


KNOWN = (_bits, _method, _cpu_profile, _int16, _images)


def changes(
    plan: QuantPlan, command: str, costs: Costs, kl: float, latency: LatencyProfile
) -> tuple[Change, ...]:  # fmt: skip
    """The three that pay most: those measured, by what they regain; then the method's own, and those of KNOWN."""
    build = _Build(plan, command, latency)
    found = [*_proposed(build, costs), *(c for c in (make(build, costs) for make in KNOWN) if c is not None)]
    measured = [c for c in found if c.kl_after is not None and kl - c.kl_after >= LEAST_SHARE * kl]
    best = sorted(measured, key=lambda c: c.kl_after or 0.0) + [c for c in found if c.kl_after is None]
    return tuple(replace(c, kl_after=None if c.kl_after is None else rounded(c.kl_after)) for c in best[:SHOWN])

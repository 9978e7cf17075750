"""hyq: hardware-friendly quantization of hybrids (IJCAI 2024): learned input-channel scales of 1x1 convolutions.

QADS: x / alpha, W alpha for the expand and project convolutions of inverted residual blocks, alpha learned by Adam on
the squared error of the convolution's output (1000 steps, cosine decay); SiLU outputs begin at -0.2785; power-of-two
factors at norms. A channel scale behind SiLU is beyond TFLite: ``expressible`` leaves QADS and factors out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.lowering.contracts import Group
from qhyvit.methods.shared.channels import power_of_two_factors
from qhyvit.methods.shared.layers import Sampled, sample
from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.patterns import norms, pointwise_beside_depthwise, silu_outputs
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.methods.shared.ranges import ends, finish, group_quant, minmax_weights, spread
from qhyvit.methods.shared.rest import OBSERVERS, assembled, best, observed
from qhyvit.options import setting
from qhyvit.plan import Choice, Granularity, Scheme, TensorQuant

SILU_LOWEST = -0.2785
RATE = 1e-2


@dataclass(frozen=True)
class HyqOptions(Options):
    """Options of ``hyq``."""

    fast_softmax: bool = setting(False, "large softmaxes of int8 ops; the paper has codes for a softmax's outputs")
    fast_gelu: bool = setting(False, "GELUs as SiLU; the paper keeps them")
    steps: int = setting(1000, "of the gradient", low=1, high=10**6)
    expressible: bool = setting(False, "only what TFLite can express")


def learn_alpha(layer: Sampled, bits: int, steps: int) -> tuple[torch.Tensor, float]:
    """alpha [C] with the least squared error at the layer's output, and that error over the one at alpha = 1."""
    alpha = torch.ones(layer.w.shape[2], requires_grad=True)
    optimizer = torch.optim.Adam([alpha], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    kept, least, first = torch.ones_like(alpha), float("inf"), 0.0
    for step in range(steps):
        a = alpha.clamp_min(1e-3)
        y = layer.output(_rounded(layer.x / a, bits), _rounded_weights(layer.w * a, bits))
        loss = ((y - layer.y) ** 2).mean()
        first = float(loss.detach()) if step == 0 else first
        if float(loss) < least:
            least, kept = float(loss), a.detach().clone()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return kept, least / max(first, 1e-30)


def _rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Asymmetric, straight-through, the range moving with what it holds."""
    top = 2**bits - 1
    low, high = x.amin().clamp(max=0.0), x.amax()
    scale = (high - low).clamp_min(1e-8) / top
    zero = torch.round(-low / scale)
    steps = x / scale
    steps = steps + (torch.round(steps) - steps).detach()
    found: torch.Tensor = (torch.clamp(steps + zero, 0, top) - zero) * scale
    return found


def _rounded_weights(w: torch.Tensor, bits: int) -> torch.Tensor:
    top = 2 ** (bits - 1) - 1
    scale = w.abs().amax(dim=2, keepdim=True).clamp_min(1e-8) / top
    steps = w / scale
    found: torch.Tensor = (steps + (torch.round(steps) - steps).detach()).clamp(-top, top) * scale
    return found


def _scaled(problem: Problem, layers: Sequence[Sampled], start: Mapping[Group, TensorQuant], steps: int) -> tuple[
    dict[int, TensorQuant], dict[str, np.ndarray]
]:  # fmt: skip
    """Quantization of the inputs, and the rounded weights by name, of the scaled convolutions."""
    graph, bits = problem.graph, problem.bits
    wanted = {n.outputs[0] for n in pointwise_beside_depthwise(graph)}
    by_member = {t: g for g in start for t in g.members}
    own: dict[int, TensorQuant] = {}
    constants: dict[str, np.ndarray] = {}
    chosen = [s for s in layers if s.layer.out in wanted and s.layer.groups == 1 and s.layer.data in by_member]
    for done, layer in enumerate(chosen):
        problem.progress("learn channel scales", done / len(chosen))
        source = layer.layer.data
        if source in own:
            continue
        alpha, gain = learn_alpha(layer, bits, steps)
        if gain >= 1:
            continue
        x = layer.x / alpha
        quant = group_quant(by_member[source], float(x.min()), float(x.max()), "qads", bits=bits)
        scale = tuple(float(s) for s in quant.scale[0] * alpha.double())
        choice = Choice(Granularity.CHANNEL, Scheme.ASYMMETRIC, "qads")
        axis = len(graph.tensors[source].shape) - 1
        own[source] = TensorQuant(scale, quant.zero_point * len(scale), axis, bits, quant.low, choice=choice)
        # stored as W alpha: seen from W, the grid has a step for each row and column
        fixed = _rounded_weights(layer.w * alpha, bits) / alpha
        constants[layer.weight_name] = layer.layer.weight_of(fixed).astype(np.float32)
    return own, constants


def find(problem: Problem, options: HyqOptions) -> Solution:
    """Learn the scales, then take the best observer for the rest."""
    graph, bits = problem.graph, problem.bits
    rests = observed(problem, *OBSERVERS)
    start = rests["minmax"]
    weights = minmax_weights(graph, bits)
    own: dict[int, TensorQuant] = {}
    constants: dict[str, np.ndarray] = {}
    if not options.expressible:
        own |= power_of_two_factors(problem, list(dict.fromkeys(n.source for n in norms(graph))))
        layers = sample(problem, finish(graph, {**spread(graph, start), **weights}))
        scaled, constants = _scaled(problem, layers, start, options.steps)
        own |= scaled
        weights = {name: quant for name, quant in weights.items() if name not in constants}
    silus = set(silu_outputs(graph))
    tries = []
    for name, rest in rests.items():
        for group, quant in rest.items():
            if silus & set(group.roots) and not group.symmetric:
                rest[group] = group_quant(group, SILU_LOWEST, ends(quant)[1], name, bits=bits)
        tries.append((name, assembled(problem, rest, own, weights)))
    found = best(problem.on(edit.with_named(graph, constants)), tries)
    return Solution(graph, found, constants=constants)


METHOD = Method("hyq", "learned channel scales of 1x1 convolutions", find, HyqOptions)

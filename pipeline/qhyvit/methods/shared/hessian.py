"""The Hessian-guided objective: squared gradients of the distance to the float outputs weigh every tensor's error.

Q-HyViT, Algorithm 1: the distance is KL(float || quantized), and the gradient is taken with the network quantized (at
first by min-max). In a network that still runs in float the KL is zero and its gradient rounding noise. The float
outputs are those of the unedited network (:attr:`qhyvit.methods.shared.problem.Problem.reference`).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from qhyvit.errors import CalibrationError
from qhyvit.graph.ir import Node, Tensor
from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.methods.shared.bridge_blocks import BridgeBlock
from qhyvit.methods.shared.problem import Batch, Problem, all_done
from qhyvit.methods.shared.unbounded import cut_at, largest_results
from qhyvit.observers.shared.histogram import Histogram
from qhyvit.observers.shared.observer import ends
from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import fake_quantize, rounds
from qhyvit.sim.run import Executor


class Capture:
    """Hook that quantizes by the plan and keeps the quantized tensors that gradients are wanted for."""

    def __init__(self, quants: Mapping[str, TensorQuant], wanted: Collection[int]) -> None:
        self.quants, self.wanted = quants, frozenset(wanted)
        self.kept: dict[int, torch.Tensor] = {}

    def __call__(self, tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
        """What the executor goes on with in the place of ``x``."""
        quant = self.quants.get(tensor.name)
        y = x if quant is None or not rounds(node) else fake_quantize(x, quant)
        if tensor.id in self.wanted:
            if not y.requires_grad:
                y = y.detach().requires_grad_()
            self.kept[tensor.id] = y
        return y


@dataclass(frozen=True)
class Step:
    """One batch of the gradient pass: float values and squared-error weights at the wanted tensors, distances [B].

    ``gradients``: where a tensor's own error counts, d distance / dx; inside a bridge block a random combination of the
    errors that reach the block's outputs, whose square has the mean sum_o (g_o dO_o/dx)^2.
    """

    values: Mapping[int, torch.Tensor]
    gradients: Mapping[int, torch.Tensor]
    distance: torch.Tensor


class GradientPass:
    """Runs float and quantized graph side by side, batch by batch."""

    def __init__(
        self,
        problem: Problem,
        quants: Mapping[str, TensorQuant],
        wanted: Collection[int],
        blocks: Sequence[BridgeBlock] = (),
    ) -> None:
        self.problem, self.quants, self.wanted, self.blocks = problem, quants, list(wanted), blocks
        self.float = Executor(problem.graph, exact=True)
        self.cut = cut_at(largest_results(problem.graph, quants))
        self.quantized = Executor(constants_on_grid_of(problem.graph, quants))

    def step(self, batch: Batch) -> Step:
        """Values and gradients of one batch.

        Raises:
            CalibrationError: a gradient is not finite; the objective would be blind before that tensor.
        """
        with torch.no_grad():
            values = self.float.run(batch.images, self.cut, self.wanted)
        gradients, distance = self.gradients(batch)
        return Step(values, gradients, distance)

    def gradients(self, batch: Batch) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Gradients of one batch at the wanted tensors, and its distances [B]; see :meth:`step` and :class:`Step`."""
        capture, random = Capture(self.quants, self.wanted), torch.Generator()
        random.manual_seed((self.problem.seed << 20) + batch.number)
        logits = self.quantized.rows(batch.images, capture)
        loss = self.problem.lowered.distance(batch.targets, logits)
        kept = [capture.kept[t] for t in self.wanted]
        grads = torch.autograd.grad(loss.sum(), kept, allow_unused=True, retain_graph=bool(self.blocks))
        gradients = {t: g for t, g in zip(self.wanted, grads, strict=True) if g is not None}
        for block in self.blocks:
            gradients.update(self._through(block, capture, gradients, random))
        for t, g in gradients.items():
            if not bool(torch.isfinite(g.sum())):
                raise CalibrationError(f"the gradient at {self.problem.graph.tensors[t].name!r} is not finite")
        return gradients, loss.detach()

    def _through(
        self, block: BridgeBlock, capture: Capture, gradients: Mapping[int, torch.Tensor], random: torch.Generator
    ) -> dict[int, torch.Tensor]:
        """What stands for the gradients inside ``block``: random signs v times g at its outputs, carried back.

        E_v[(J^T (g v))_i^2] = sum_o (g_o J_oi)^2: the diagonal of the quadratic form of the block's output error.
        """
        ends = [t for t in block.outputs if t in gradients]
        inside = [t for t in block.inside if t in gradients]
        if not ends or not inside:
            return {}
        signs = [torch.randint(0, 2, gradients[t].shape, generator=random) * 2.0 - 1.0 for t in ends]
        carried = torch.autograd.grad(
            [capture.kept[t] for t in ends], [capture.kept[t] for t in inside],
            [gradients[t] * v for t, v in zip(ends, signs, strict=True)], allow_unused=True, retain_graph=True,
        )  # fmt: skip
        return {t: u for t, u in zip(inside, carried, strict=True) if u is not None}


class Statistics:
    """What a gradient pass gathers for each wanted tensor.

    ``histograms``: float values weighted by squared gradients; ``by_channel``: the same a channel (last axis), for
    the tensors that a fold may scale; ``energy``: mean x^2 a channel [C]; ``weight``: sum of g^2 a channel [C];
    ``peak``: largest |x| a channel [C]; ``distance``: of the quantized network's outputs, mean over the images.
    """

    BINS_BY_CHANNEL = 512
    SAMPLED = 2**15  # values of a tensor that one batch adds to its histogram, at the most

    def __init__(self, wanted: Collection[int], by_channel: Collection[int] = ()) -> None:
        self.histograms = {t: Histogram(None) for t in wanted}
        self.by_channel = {t: Histogram(-1, self.BINS_BY_CHANNEL) for t in by_channel}
        self.energy: dict[int, torch.Tensor] = {}
        self.weight: dict[int, torch.Tensor] = {}
        self.peak: dict[int, torch.Tensor] = {}
        self.distance = 0.0

    def add(self, steps: Sequence[Step], images: int) -> None:
        """Take some batches, of ``images`` in all batches that there are."""
        for step in steps:
            self.distance += float(step.distance.sum()) / images
        all_done(functools.partial(self._add, steps, images), self.histograms)

    def _add(self, steps: Sequence[Step], images: int, t: int) -> None:
        for step in steps:
            if (g := step.gradients.get(t)) is None:
                continue
            share, rows, weights = len(step.distance) / images, self._sample(step.values[t]), self._sample(g)
            low, high = ends(step.values[t].reshape(-1, step.values[t].shape[-1]), 0)
            peak = torch.maximum(-low, high)
            # the rows drawn stand for all of them
            weights = weights * weights * (g.numel() / weights.numel())
            self.histograms[t].update(rows, weights)
            if t in self.by_channel:
                self.by_channel[t].update(rows, weights)
            self.energy[t] = self.energy.get(t, 0.0) + (rows * rows).mean(dim=0) * share
            self.weight[t] = self.weight.get(t, 0.0) + weights.sum(dim=0)
            self.peak[t] = torch.maximum(self.peak[t], peak) if t in self.peak else peak

    def _sample(self, x: torch.Tensor) -> torch.Tensor:
        """Rows [rows, C] evenly spaced over all positions of all images."""
        rows = x.reshape(-1, x.shape[-1])
        step = -(-rows.numel() // self.SAMPLED)
        return rows[:: step | 1]  # an odd step meets every column of an even width


def gather(
    problem: Problem,
    quants: Mapping[str, TensorQuant],
    wanted: Collection[int],
    by_channel: Collection[int],
    label: str,
    blocks: Sequence[BridgeBlock] = (),
) -> Statistics:
    """One gradient pass over all calibration images with the network quantized by ``quants``."""
    statistics, passes = Statistics(wanted, by_channel), GradientPass(problem, quants, wanted, blocks)
    for steps in problem.in_pairs(passes.step, label):
        statistics.add(steps, len(problem.images))
        del steps  # before the next ones are made
    return statistics


def position_weights(
    problem: Problem, quants: Mapping[str, TensorQuant], wanted: Collection[int]
) -> dict[int, torch.Tensor]:
    """How much an error at each position of each wanted tensor counts, [images, positions], with the mean 1.

    The length of the gradient over the channels there. Its square is the objective's own weight; unsquared, it leaves
    more of the positions a say, which a fit of many weights to few images needs.
    """
    found: dict[int, list[torch.Tensor]] = {t: [] for t in wanted}
    passes = GradientPass(problem, quants, wanted)
    for gradients, _ in problem.each(passes.gradients, "weigh positions"):
        for t, g in gradients.items():
            found[t].append(g.norm(dim=-1).reshape(len(g), -1))
    lengths = {t: torch.cat(parts) for t, parts in found.items() if parts}
    means = {t: float(x.mean(dtype=torch.float64)) for t, x in lengths.items()}
    return {t: x / means[t] for t, x in lengths.items() if means[t] > 0}


def mean_distance(problem: Problem, quants: Mapping[str, TensorQuant]) -> float:
    """Mean distance of the outputs from the reference over the calibration images, with everything quantized."""
    executor, capture = Executor(constants_on_grid_of(problem.graph, quants)), Capture(quants, ())

    def distance(batch: Batch) -> float:
        with torch.no_grad():
            return float(problem.lowered.distance(batch.targets, executor.rows(batch.images, capture)).sum())

    return sum(problem.each(distance)) / len(problem.images)

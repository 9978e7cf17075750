"""Learned step sizes: scales and zero points follow the gradient of KL(float || quantized) itself.

LSQ (arXiv 1902.08153) on the calibration images, without labels: weights and biases stay. What the search
decides tensor by tensor is here adjusted jointly, a few steps from where it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from qhyvit import affine
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.methods._hessian import float_logits, kl
from qhyvit.methods._problem import Problem
from qhyvit.methods._ranges import finish
from qhyvit.plan import Scheme, TensorQuant
from qhyvit.sim.fakequant import fake_quantize
from qhyvit.sim.run import Executor
from qhyvit.tflite.legal import groups
from qhyvit.tflite.write import constants_on_grid_of

SCALE_RATE, ZERO_RATE = 1e-2, 0.025  # of the logarithm of a scale; in codes


class _Quantizers:
    """Hook with a learned scale and zero point for every group that is free."""

    def __init__(self, graph: Graph, quants: Mapping[str, TensorQuant]) -> None:
        self.quants = quants
        self.log_scale: dict[int, torch.Tensor] = {}
        self.zero: dict[int, torch.Tensor] = {}
        self.free_zero: set[int] = set()
        self.group_of: dict[str, int] = {}
        for i, group in enumerate(groups(graph)):
            names = [graph.tensors[t].name for t in group.members]
            if group.fixed is not None or all(graph.tensors[t].is_constant for t in group.members):
                continue
            quant = quants[names[0]]
            self.group_of |= dict.fromkeys(names, i)
            self.log_scale[i] = torch.tensor([np.log(quant.scale[0])], dtype=torch.float32, requires_grad=True)
            free = not (group.symmetric or group.low_at_zero) and quant.choice.scheme is Scheme.ASYMMETRIC
            self.zero[i] = torch.tensor([float(quant.zero_point[0])], requires_grad=free)
            if free:
                self.free_zero.add(i)

    def __call__(self, tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
        """See :data:`qhyvit.sim.run.Hook`."""
        i = self.group_of.get(tensor.name)
        if i is None:
            quant = self.quants.get(tensor.name)
            return x if quant is None else fake_quantize(x, quant)
        low, high = self.quants[tensor.name].limits
        learned = torch._fake_quantize_learnable_per_tensor_affine
        found: torch.Tensor = learned(x, self.log_scale[i].exp(), self.zero[i], low, high, 1.0)
        return found

    def found(self) -> dict[str, TensorQuant]:
        """Quantizations with what was learned."""
        result = dict(self.quants)
        for name, i in self.group_of.items():
            low, high = self.quants[name].limits
            scale = max(float(np.float32(self.log_scale[i].detach().exp().item())), affine.SCALE_FLOOR)
            zero = int(np.clip(np.rint(self.zero[i].item()), low, high))
            result[name] = replace(result[name], scale=(scale,), zero_point=(zero,))
        return result


def learn(problem: Problem, graph: Graph, quants: Mapping[str, TensorQuant], steps: int) -> dict[str, TensorQuant]:
    """Quantizations with new scales and zero points after ``steps`` steps of ``problem.batch`` images.

    Args:
        graph: with its weights on their grids already; ``problem.graph`` is the float one.
    """
    target = float_logits(problem.graph, problem)
    executor, hook = Executor(constants_on_grid_of(graph, quants)), _Quantizers(graph, quants)
    zeros = [hook.zero[i] for i in hook.free_zero]
    parameters = [{"params": list(hook.log_scale.values()), "lr": SCALE_RATE}, {"params": zeros, "lr": ZERO_RATE}]
    optimizer = torch.optim.Adam(parameters, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, now in enumerate(_draws(len(problem.images), problem.batch, steps, problem.seed)):
        problem.progress("learn scales", step / steps)
        loss = kl(target[now], executor.logits(problem.images[now], hook)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return finish(graph, hook.found())


def _draws(count: int, batch: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of ``steps`` batches; every image once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        yield order[:batch]
        order = order[batch:]

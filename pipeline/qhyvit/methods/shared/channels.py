"""Channel-wise activations, as some papers have them; TFLite cannot, so these plans run in simulation only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qhyvit import affine
from qhyvit.methods.shared.problem import Problem
from qhyvit.plan import Choice, Granularity, Scheme, TensorQuant
from qhyvit.sim.run import Executor


def values_of(problem: Problem, tensors: Sequence[int]) -> dict[int, torch.Tensor]:
    """Float values of ``tensors`` over all images, [rows, C]; every 7th row where there are many."""
    executor = Executor(problem.graph)
    found: dict[int, list[torch.Tensor]] = {t: [] for t in tensors}
    for values in problem.values(executor, tensors):
        for t in tensors:
            rows = values[t].reshape(-1, values[t].shape[-1])
            found[t].append(rows[::7] if len(rows) > 4096 else rows)
    return {t: torch.cat(parts).double() for t, parts in found.items()}


def power_of_two_factors(problem: Problem, tensors: Sequence[int]) -> dict[int, TensorQuant]:
    """PTF (FQ-ViT): scale s 2^a, a in 0..3 a channel with the least squared error, one zero point."""
    found = {}
    for t, x in values_of(problem, tensors).items():
        params = affine.fit(float(x.min()), float(x.max()), affine.grid(problem.bits), symmetric=False)
        zero, finest = int(params.zero_point), float(params.scale) / 8
        grid = affine.grid(problem.bits)
        errors = []
        for a in range(4):
            codes = torch.clamp(torch.round(x / (finest * 2**a)) + zero, grid.qmin, grid.qmax)
            errors.append((((codes - zero) * finest * 2**a - x) ** 2).sum(dim=0))
        power = torch.stack(errors).argmin(dim=0).numpy()
        scale = tuple(float(np.float32(finest * 2.0**a)) for a in power)
        choice = Choice(Granularity.CHANNEL, Scheme.ASYMMETRIC, "ptf")
        axis = len(problem.graph.tensors[t].shape) - 1
        found[t] = TensorQuant(scale, (zero,) * len(scale), axis, problem.bits, grid.qmin, choice=choice)
    return found


def channel_wise(problem: Problem, tensors: Sequence[int]) -> dict[int, TensorQuant]:
    """Scale and zero point a channel by min-max (RepQ-ViT before its reparameterization)."""
    found, grid = {}, affine.grid(problem.bits)
    for t, x in values_of(problem, tensors).items():
        params = affine.fit(x.amin(dim=0).numpy(), x.amax(dim=0).numpy(), grid, symmetric=False)
        choice = Choice(Granularity.CHANNEL, Scheme.ASYMMETRIC, "minmax")
        scale, zero = tuple(float(s) for s in params.scale), tuple(int(z) for z in params.zero_point)
        axis = len(problem.graph.tensors[t].shape) - 1
        found[t] = TensorQuant(scale, zero, axis, problem.bits, grid.qmin, choice=choice)
    return found

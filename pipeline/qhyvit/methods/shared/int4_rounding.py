"""Codes of four bits for a layer's weights: GPTQ for several scales of each output channel, then coordinate descent.

The error of codes q is that of the layer's output, (w - s q)^T H (w - s q), with H the covariance of what the layer
reads. Sixteen codes leave a covariance of few images much to be fooled by: directions in which these images do not vary
would take any error. Its entries off the diagonal are therefore shrunk by what the samples leave uncertain of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qhyvit.affine import SCALE_FLOOR
from qhyvit.methods.shared.reconstruct import DAMP, Gram, cholesky

TOP = 7  # codes are -7 .. 7
SHRINKS = (0.45, 0.52, 0.6, 0.68, 0.76, 0.84, 0.92, 1.0)  # of the scale that holds the largest weight
BLOCK = 64  # columns whose errors go on to the rest at once
SWEEPS = 3  # over all columns, at the most; twice, with the scales fitted in between
SETTLED = 0.002  # of the codes moved in a sweep


@dataclass(frozen=True)
class RoundedRows:
    """Codes of weights [G, O, K], -7 to 7.

    Args:
        codes: float64 integers [G, O, K].
        scale: [G, O, 1], float64 with float32 values.
        wish: what each code would be with all others as they are, in steps [G, O, K].
        error: of the layer's output, mean square of each output channel [G, O].
    """

    codes: torch.Tensor
    scale: torch.Tensor
    wish: torch.Tensor
    error: torch.Tensor


def shrunk_covariance(gram: Gram, alike: float) -> torch.Tensor:
    """Covariance of the inputs [G, K, K], its entries off the diagonal smaller the fewer samples there are.

    Args:
        alike: how many samples say no more than one would by itself: positions of an image are alike.
    """
    covariance, _ = gram.centred()
    count = covariance.shape[1]
    share = count / (count + gram.effective / alike)
    return torch.lerp(covariance, torch.diag_embed(covariance.diagonal(dim1=1, dim2=2)), share)


def round_to_int4(w: torch.Tensor, gram: Gram, alike: float = 1.0) -> RoundedRows:
    """Codes and scales of weights [G, O, K] with a small error at the layer's output; :func:`shrunk_covariance`."""
    covariance = shrunk_covariance(gram, alike)
    level, least = gram.level()
    system = covariance + torch.diag_embed((DAMP * level + least)[:, None].expand(-1, w.shape[2]))
    top = w.abs().amax(2, keepdim=True).clamp_min(SCALE_FLOOR * TOP) / TOP
    codes, scale = _best_of(w, [top * shrink for shrink in SHRINKS], system)
    codes, _ = _descended(w, codes, scale, system)
    scale = _fitted(w, codes, scale, system)
    codes, wish = _descended(w, codes, scale, system)
    return RoundedRows(codes, scale, wish, _error(w, codes, scale, covariance))


def _error(w: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, system: torch.Tensor) -> torch.Tensor:
    left = w - codes * scale
    return ((left @ system) * left).sum(2)


def _best_of(w: torch.Tensor, scales: list[torch.Tensor], system: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scale of each output channel, of those scales the one with the least error."""
    groups, outputs = w.shape[:2]
    many, all_scales = w.repeat(1, len(scales), 1), torch.cat(scales, 1)
    codes = _gptq(many, all_scales, system)
    error = _error(many, codes, all_scales, system).reshape(groups, len(scales), outputs)
    best = error.argmin(1)[:, None, :, None]

    def picked(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(groups, len(scales), outputs, -1)
        return rows.gather(1, best.expand(-1, -1, -1, rows.shape[3]))[:, 0]

    return picked(codes), picked(all_scales)


def _gptq(w: torch.Tensor, scale: torch.Tensor, system: torch.Tensor) -> torch.Tensor:
    """Codes [G, O, K], columns in order of falling variance, each one's error handed on (arXiv 2210.17323)."""
    k = system.shape[1]
    order = system.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    system = system.gather(1, order[:, :, None].expand(-1, -1, k)).gather(2, order[:, None, :].expand(-1, k, -1))
    index = order[:, None, :].expand(-1, w.shape[1], -1)
    rest, done = w.gather(2, index).clone(), torch.empty_like(w)
    factor = cholesky(torch.cholesky_inverse(cholesky(system))).transpose(1, 2)  # upper
    for start in range(0, k, BLOCK):
        end = min(start + BLOCK, k)
        errors = torch.empty_like(rest[:, :, start:end])
        for j in range(start, end):
            column = rest[:, :, j : j + 1]
            done[:, :, j : j + 1] = torch.clamp(torch.round(column / scale), -TOP, TOP)
            error = (column - done[:, :, j : j + 1] * scale) / factor[:, None, j : j + 1, j]
            errors[:, :, j - start : j - start + 1] = error
            rest[:, :, j + 1 : end] -= error * factor[:, None, j, j + 1 : end]
        rest[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(w).scatter_(2, index, done)


def _descended(
    w: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, system: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes behind sweeps in which each takes the best value beside all others, and the values they would like."""
    codes, slope = codes.clone(), (w - codes * scale) @ system
    steps = system.diagonal(dim1=1, dim2=2)[:, None, :] * scale
    for _ in range(SWEEPS):
        moved = 0
        for j in range(w.shape[2]):
            old = codes[:, :, j : j + 1]
            new = torch.clamp(torch.round(old + slope[:, :, j : j + 1] / steps[:, :, j : j + 1]), -TOP, TOP)
            change = new - old
            count = int(torch.count_nonzero(change))
            if count:
                moved += count
                codes[:, :, j : j + 1] = new
                slope -= change * scale * system[:, None, j, :]
        if moved < SETTLED * codes.numel():
            break
    return codes, codes + slope / steps


def _fitted(w: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, system: torch.Tensor) -> torch.Tensor:
    """The scale of each output channel with the least error for these codes."""
    reached = codes @ system
    along, own = (reached * w).sum(2, keepdim=True), (reached * codes).sum(2, keepdim=True)
    found = torch.where((along > 0) & (own > 0), along / own.clamp_min(1e-30), scale)
    return found.clamp_min(SCALE_FLOOR).float().double()

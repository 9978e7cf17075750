"""Distances between probabilities that outputs stand for, and between outputs themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SMALLEST_POWER = 1e-12  # outputs that are all alike have no variance to divide by


def kl_of_classes(reference: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """KL(softmax(reference) || softmax(outputs)) over the last axis; [..., C] and [..., C] -> [...].

    Source: Q-HyViT, Algorithm 1, KL(float || quantized) of the class probabilities.
    """
    # torch.log_softmax adds up in an order of each processor's own
    target, found = (x - x.logsumexp(dim=-1, keepdim=True) for x in (reference, outputs))
    return (target.exp() * (target - found)).sum(dim=-1)


def _log_no(x: torch.Tensor) -> torch.Tensor:
    """log(1 - sigmoid(x)), without overflow."""
    return -(x.clamp_min(0) + (-x.abs()).exp().log1p())


def kl_of_labels(reference: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """KL of each yes-or-no decision, sigmoid(reference) || sigmoid(outputs); any shape, kept.

    Of one logit z it is what :func:`kl_of_classes` gives of the two logits (0, z).
    """
    p = reference.sigmoid()
    yes = _log_no(-reference) - _log_no(-outputs)
    no = _log_no(reference) - _log_no(outputs)
    return p * yes + (1 - p) * no


def variance(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """Variance over some axes, at least a tiny number."""
    centred = x - x.mean(dim=dims, keepdim=True)
    return (centred * centred).mean(dim=dims).clamp_min(SMALLEST_POWER)

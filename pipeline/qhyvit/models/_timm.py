"""Imports timm beside a CPU build of torch."""

from __future__ import annotations

from typing import Any

_declared: list[Any] = []  # a Library takes its operators with it when it is collected


def import_timm() -> Any:
    """The timm package.

    timm imports torchvision, whose wheel on the package index is built for CUDA: beside a CPU torch its extension
    does not load, and its import dies on two operators that it expects there. Their schemas are enough.
    """
    import torch

    if not _declared and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    import timm

    return timm

"""Transposed convolutions in the forms that litert-torch converts: no output padding or dilation, SAME or no padding.

More outputs at the end are zeros at the end of the kernel, dilation is zeros inside it. What then is neither SAME nor
without padding is computed whole, and its margins are cut off.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

FUNCTIONS = {nn.ConvTranspose1d: F.conv_transpose1d, nn.ConvTranspose2d: F.conv_transpose2d}


def _kernel(module: Any) -> torch.Tensor:
    """The weight [I, O / groups, *kernel] with zeros for dilation and output padding."""
    weight: torch.Tensor = module.weight.detach()
    for axis, (dilation, more) in enumerate(zip(module.dilation, module.output_padding, strict=True), start=2):
        size = (weight.shape[axis] - 1) * dilation + 1 + more
        spaced = weight.new_zeros((*weight.shape[:axis], size, *weight.shape[axis + 1 :]))
        spaced.index_copy_(axis, torch.arange(weight.shape[axis]) * dilation, weight)
        weight = spaced
    return weight


class _Expressible(nn.Module):
    """A transposed convolution with the same results."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.function = FUNCTIONS[type(module)]
        self.weight, self.bias = nn.Parameter(_kernel(module), requires_grad=False), module.bias
        self.stride, self.groups, self.padding = module.stride, module.groups, tuple(module.padding)
        sizes = zip(self.weight.shape[2:], module.stride, module.padding, strict=True)
        self.same = all(kernel - stride == 2 * padding for kernel, stride, padding in sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.same:
            return self.function(x, self.weight, self.bias, self.stride, self.padding, 0, self.groups)
        whole = self.function(x, self.weight, self.bias, self.stride, 0, 0, self.groups)
        return F.pad(whole, [-cut for axis in reversed(self.padding) for cut in (axis, axis)])


def _is_foreign(module: nn.Module) -> bool:
    """Whether the converter has no form for it; with stride 1 it is a convolution."""
    if type(module) not in FUNCTIONS or max(module.stride) == 1:  # type: ignore[arg-type]
        return False
    made: Any = module
    plain = not any(made.output_padding) and set(made.dilation) == {1}
    return not plain or (any(made.padding) and not _Expressible(module).same)


def with_expressible(module: nn.Module) -> nn.Module:
    """``module`` with every transposed convolution in a form that the converter has; itself where all are.

    A subclass of torch's module, and a call of the function, stay as they are.
    """
    if not any(_is_foreign(m) for m in module.modules()):
        return module
    changed = copy.deepcopy(module)
    for parent in list(changed.modules()):
        for name, child in list(parent.named_children()):
            if _is_foreign(child):
                setattr(parent, name, _Expressible(child))
    return changed

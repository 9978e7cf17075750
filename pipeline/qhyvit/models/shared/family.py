"""What a model family is: its variants, how to build one in torch, and its deployment-friendly equivalent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from qhyvit.models.shared.shape import Shape


@dataclass(frozen=True)
class Variant:
    """One model of a family.

    Args:
        name: how the user calls it; also timm's name.
        input_size: height and width of the input, pixels.
        bridge_blocks: how many bridge blocks the Q-HyViT paper counts in it.
        preprocess: keys resize (shortest side, pixels), interpolation, mean, std (of values in 0..1).
        classes: outputs of the published model.
    """

    name: str
    input_size: int
    bridge_blocks: int
    preprocess: Mapping[str, Any]
    classes: int = 1000


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: of the family.
        summary: one line.
        variants: by name.
        build: (variant, classes) -> the reference torch module, NCHW input, randomly initialised.
        rewrite: (reference module in eval mode, height, width and channels of its input) -> an equivalent module that
            takes [1, H, W, C] and gives [1, classes], in forms that become few and quantizable TFLite ops.
        network: class of the reference module.
        blocks: by class of a block, (block in eval mode, height, width and channels of its input) -> an equivalent that
            takes [1, C, H, W], for networks that somebody else built of them.
    """

    name: str
    summary: str
    variants: Mapping[str, Variant]
    build: Callable[[Variant, int], nn.Module]
    rewrite: Callable[[nn.Module, Shape], nn.Module]
    network: str
    blocks: Mapping[str, Callable[[Any, Shape], nn.Module]]

    def occurs_in(self, module: nn.Module) -> bool:
        """Whether a module is, or has within it, what this family has an equivalent of."""
        return any(is_a(m, kind) for m in module.modules() for kind in self.blocks or (self.network,))

    def is_network(self, module: nn.Module) -> bool:
        """Whether ``rewrite`` may know a whole module: timm shares one class between this family and others."""
        return is_a(module, self.network) and self.occurs_in(module)


def is_a(module: nn.Module, kind: str) -> bool:
    """Whether a module's class, or one that it inherits from, is called ``kind``."""
    return any(c.__name__ == kind for c in type(module).__mro__)

"""Deployment-friendly forms of the blocks that families share, built from a timm module's own weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from qhyvit.errors import ExportError
from qhyvit.models.shared.shape import Shape, as_size, by_sides, channels_first
from qhyvit.models.shared.torch_forms import TorchForms


def folded_conv(conv: nn.Conv2d, norm: Any, gain: torch.Tensor | float = 1.0) -> nn.Conv2d:
    """A convolution with the batch norm behind it folded in, and ``gain`` (a layer scale) behind that; with a bias."""
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    geometry: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    kernel: Any = conv.kernel_size
    new = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, groups=conv.groups, bias=True, **geometry)
    assert new.bias is not None
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.detach()
    new.weight.data = conv.weight.detach() * (scale * gain)[:, None, None, None]
    new.bias.data = (norm.bias.detach() + (bias - norm.running_mean) * scale) * gain
    return new


def linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A Linear with these values, [O, I] and [O]; a missing bias becomes zeros."""
    new = nn.Linear(weight.shape[1], weight.shape[0])
    new.weight.data = weight.detach().clone()
    new.bias.data = torch.zeros(weight.shape[0]) if bias is None else bias.detach().clone()
    return new


def behind_norm(weight: torch.Tensor, bias: torch.Tensor | None, norm: Any, gain: float = 1.0) -> nn.Linear:
    """A linear behind a norm, with the norm's gamma and beta inside, for an input that is ``gain`` times smaller."""
    weight = weight.detach().reshape(weight.shape[0], -1)
    bias = torch.zeros(weight.shape[0]) if bias is None else bias.detach()
    return linear(weight * norm.weight.detach() * gain, bias + weight @ norm.bias.detach())


def averaged_heads(source: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of one linear that gives the mean of ``head`` and ``head_dist``."""
    heads = (source.head, source.head_dist)
    weight, bias = (torch.stack([getattr(h, key).detach() for h in heads]).mean(dim=0) for key in ("weight", "bias"))
    return weight, bias


def check_grid(shape: Shape, stride: int, grid: tuple[int, int], where: str) -> None:
    """Refuse an input that does not give the ``grid`` of tokens that a table of attention biases is for.

    Raises:
        ExportError: another grid.
    """
    found = tuple(-(-side // stride) for side in shape[:2])  # convolutions of stride 2 round up
    if found != grid:
        sizes = " by ".join(dict.fromkeys(f"{(side - 1) * stride + 1} to {side * stride}" for side in grid))
        reason = f"the attention biases of {where} are for {by_sides(grid)}; use {sizes}"
        raise ExportError(f"input size {as_size(shape)} gives {by_sides(found)} tokens, but {reason}")


def centred(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear whose outputs have mean 0 over the channels; [O, I] (or 1x1 convolution), [O]."""
    weight = weight.detach().flatten(1)
    centre = None if bias is None else bias.detach() - bias.detach().mean()
    return linear(weight - weight.mean(dim=0, keepdim=True), centre)


def without_offsets(key: nn.Linear, value: nn.Linear) -> torch.Tensor:
    """Set the biases of an attention's keys and values to 0; returns what the product's result lacks then, [V].

    A constant on all keys shifts all scores of a query alike, which softmax does not see; its results sum to 1, so that
    a constant on all values comes out whole. Both are right operands with a symmetric int8 grid: offsets cost range.
    """
    offset = value.bias.detach().clone()
    key.bias.data, value.bias.data = torch.zeros_like(key.bias), torch.zeros_like(offset)
    return offset


def silu(x: torch.Tensor) -> torch.Tensor:
    """x * sigmoid(x): LOGISTIC and MUL."""
    return x * torch.sigmoid(x)


class ChannelsLast(nn.Module):
    """[1, H, W, C] in front of a module that takes [1, C, H, W]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, W, C] -> [1, classes]."""
        with TorchForms():
            found: torch.Tensor = self.net(x.permute(0, 3, 1, 2))
        return found


class FromChannelsFirst(nn.Module):
    """[1, C, H, W] in front of a module that takes [1, H, W, C]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, classes]."""
        found: torch.Tensor = self.net(x.permute(0, 2, 3, 1))
        return found


class Called(nn.Module):
    """A module that is called with more than an image, or by name: everything but the image is always the same."""

    def __init__(self, net: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        super().__init__()
        self.net, self.args, self.named = net, args, named

    def forward(self, x: torch.Tensor) -> Any:
        """[1, C, H, W] -> what the module gives."""
        args, named = pytree.tree_map_only(torch.Tensor, lambda _: x, (self.args, self.named))
        return self.net(*args, **named)


class Reversed(nn.Module):
    """Red first in front of a module that takes blue first; the order goes into its first convolution at export."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.eval()
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 3, H, W] -> [1, classes]."""
        found: torch.Tensor = self.net(x.flip(1))
        return found


class ConvNormAct(nn.Module):
    """timm's ConvNormAct with its norm folded; SiLU or nothing behind."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.conv = folded_conv(source.conv, source.bn)
        act = source.bn.act
        if not isinstance(act, nn.SiLU | nn.Identity):
            raise ExportError(f"activation {type(act).__name__} is not supported in this family")
        self.has_act = isinstance(act, nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C', H', W']."""
        x = self.conv(x)
        return silu(x) if self.has_act else x


class InvertedResidual(nn.Module):
    """Expand, depthwise, project, and the shortcut where the shapes allow it."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.conv1_1x1 = ConvNormAct(source.conv1_1x1)
        self.conv2_kxk = ConvNormAct(source.conv2_kxk)
        self.conv3_1x1 = ConvNormAct(source.conv3_1x1)
        self.shortcut = source.shortcut is not None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C', H', W']."""
        y: torch.Tensor = self.conv3_1x1(self.conv2_kxk(self.conv1_1x1(x)))
        return x + y if self.shortcut else y


def block_shapes(model: nn.Module, kind: str, shape: Shape) -> dict[str, Shape]:
    """Shape of the map that every module of class ``kind`` reads, by module name.

    Raises:
        ExportError: a side that 2x2 patches do not divide (timm would interpolate).
    """
    shapes: dict[str, Shape] = {}
    handles = []
    for name, module in model.named_modules():
        if type(module).__name__ == kind:
            handles.append(module.register_forward_pre_hook(_recorder(shapes, name)))
    with torch.no_grad():
        model(torch.zeros(channels_first(shape)))
    for handle in handles:
        handle.remove()
    odd = {name: found for name, found in shapes.items() if found[0] % 2 or found[1] % 2}
    if odd:
        name, found = next(iter(odd.items()))
        at = f"{by_sides(found)} at {name}"
        raise ExportError(f"input size {as_size(shape)} gives {at}; 2x2 patches need even sizes, use a multiple of 64")
    return shapes


def _recorder(shapes: dict[str, Shape], name: str) -> Any:
    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        _, channels, height, width = inputs[0].shape
        shapes[name] = height, width, channels

    return record


class Backbone(nn.Module):
    """Stem, stages, final convolution and head of timm's ByobNet, from NHWC pixels to logits."""

    def __init__(self, source: Any, stages: nn.Module) -> None:
        super().__init__()
        self.stem = ConvNormAct(source.stem)
        self.stages = stages
        last = source.final_conv
        self.final_conv = nn.Identity() if isinstance(last, nn.Identity) else ConvNormAct(last)
        self.head = linear(source.head.fc.weight, source.head.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, W, C] -> [1, classes]."""
        x = self.stem(x.permute(0, 3, 1, 2))  # [1, H, W, C] -> [1, C, H, W]
        x = self.final_conv(self.stages(x)).permute(0, 2, 3, 1)
        logits: torch.Tensor = self.head(x.mean(dim=(1, 2)))  # [1, H, W, C] -> [1, C]
        return logits


def rewrite_stages(source: Any, kind: str, make: Any, shape: Shape) -> nn.Sequential:
    """The stages with every block of class ``kind`` made by ``make(block, shape)``, the others InvertedResidual."""
    shapes = block_shapes(source, kind, shape)
    stages = []
    for i, stage in enumerate(source.stages):
        blocks = []
        for j, block in enumerate(stage):
            is_hybrid = type(block).__name__ == kind
            blocks.append(make(block, shapes[f"stages.{i}.{j}"]) if is_hybrid else InvertedResidual(block))
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages)

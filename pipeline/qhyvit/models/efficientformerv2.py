"""EfficientFormerV2 (arXiv 2212.08059), timm's efficientformerv2_*: attention with talking heads between convolutions.

The first talking head mixes the scores of all heads, W1 (Q K^T) = sum_h (w_gh Q_h) K_h^T: one product of the keys with
queries that carry W1, so the mixed scores stay in a 32-bit accumulator. The bias table goes through W1 to a constant.
The second is a linear over the heads as last axis. The softmax output and what is made of it are left operands.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.models.shared.family import Family, Variant
from qhyvit.models.shared.modules import averaged_heads, check_grid, folded_conv, linear
from qhyvit.models.shared.shape import Shape
from qhyvit.models.shared.timm_models import import_timm


def _tokens(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[1, h * d, H, W] -> [h, H * W, d]."""
    _, channels, height, width = x.shape
    # [1, H, W, h * d] -> [N, h, d] -> [h, N, d]
    return x.permute(0, 2, 3, 1).reshape(height * width, heads, channels // heads).permute(1, 0, 2)


def _map(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[h, N, d] -> [1, h * d, H, W]."""
    # [h, N, d] -> [N, h, d] -> [1, H, W, h * d]
    return x.permute(1, 0, 2).reshape(1, *size, -1).permute(0, 3, 1, 2)


def _gathered(source: Any) -> torch.Tensor:
    """The table of attention biases for every pair of tokens, [h, N, M]."""
    found: torch.Tensor = source.attention_biases.detach()[:, source.attention_bias_idxs]
    return found


class TalkingHeadsAttention(nn.Module):
    """Self-attention with talking heads, on the map or on one of half its size."""

    mix: torch.Tensor
    bias: torch.Tensor

    def __init__(self, source: Any, gain: torch.Tensor) -> None:
        super().__init__()
        self.heads, self.size = source.num_heads, tuple(source.resolution)
        self.has_stride = source.stride_conv is not None
        self.stride_conv = folded_conv(source.stride_conv.conv, source.stride_conv.bn) if self.has_stride else None
        self.query = folded_conv(source.q.conv, source.q.bn, source.scale)
        self.key = folded_conv(source.k.conv, source.k.bn)
        self.value = folded_conv(source.v.conv, source.v.bn)
        self.v_local = folded_conv(source.v_local.conv, source.v_local.bn)
        self.proj = folded_conv(source.proj.conv, source.proj.bn, gain)
        first, second = source.talking_head1, source.talking_head2
        weight = first.weight.detach().flatten(1)
        # [g, h] -> [g, 1, 1, h * kd]
        self.register_buffer("mix", weight.repeat_interleave(source.key_dim, dim=1)[:, None, None])
        bias = torch.einsum("gh,hnm->gnm", weight, _gathered(source)) + first.bias.detach()[:, None, None]
        self.register_buffer("bias", bias.reshape(1, -1, bias.shape[2]))  # [g, N, M] -> [1, g * N, M]
        self.talk = linear(second.weight.flatten(1), second.bias)

    def _scores(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [g, N, M]: the softmax of the scores that the first talking head mixed."""
        count = self.size[0] * self.size[1]
        query = self.query(x).permute(0, 2, 3, 1) * self.mix  # [1, H, W, h * kd] -> [g, H, W, h * kd]
        query = query.reshape(1, self.heads * count, -1)  # [g, H, W, h * kd] -> [1, g * N, h * kd]
        key = self.key(x).permute(0, 2, 3, 1).reshape(1, count, -1)  # [1, H, W, h * kd] -> [1, M, h * kd]
        # einsum, not bmm of a transposed key: one BATCH_MATMUL that reads the key as it lies
        scores = torch.einsum("bnc,bmc->bnm", query, key) + self.bias
        # [1, g * N, M] -> [g, N, M]
        return torch.softmax(scores, dim=-1).reshape(self.heads, count, count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        if self.stride_conv is not None:
            x = self.stride_conv(x)
        # [h, N, M] -> [N, M, h] -> [g, N, M]
        mixed = self.talk(self._scores(x).permute(1, 2, 0)).permute(2, 0, 1)
        value = self.value(x)
        y = _map(torch.bmm(mixed, _tokens(value, self.heads)), self.size) + self.v_local(value)
        if self.has_stride:
            y = F.interpolate(y, scale_factor=2.0, mode="bilinear")
        found: torch.Tensor = self.proj(F.gelu(y))
        return found


class AttentionDownsample(nn.Module):
    """Attention of a quarter of the positions to all of them."""

    bias: torch.Tensor

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.heads, self.size = source.num_heads, tuple(source.resolution2)
        self.q_local = _with_subsampling(source.q.local)
        self.query = folded_conv(source.q.proj.conv, source.q.proj.bn, source.scale)
        self.key = folded_conv(source.k.conv, source.k.bn)
        self.value = folded_conv(source.v.conv, source.v.bn)
        self.v_local = folded_conv(source.v_local.conv, source.v_local.bn)
        self.proj = folded_conv(source.proj.conv, source.proj.bn)
        self.register_buffer("bias", _gathered(source))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C', H / 2, W / 2]."""
        query, key = _tokens(self.query(self.q_local(x)), self.heads), _tokens(self.key(x), self.heads)
        value = self.value(x)
        # [h, N, kd] x [h, M, kd]^T -> [h, N, M]
        scores = torch.softmax(torch.einsum("hnc,hmc->hnm", query, key) + self.bias, dim=-1)
        y = _map(torch.bmm(scores, _tokens(value, self.heads)), self.size) + self.v_local(value)
        found: torch.Tensor = self.proj(F.gelu(y))
        return found


def _with_subsampling(source: nn.Conv2d) -> nn.Conv2d:
    """A 3x3 depthwise convolution of stride 2 plus every second pixel of its input: 1 more in the centre."""
    new = copy.deepcopy(source)
    new.weight.data[:, :, 1, 1] += 1.0
    return new


class Block(nn.Module):
    """Attention in some, and an inverted bottleneck with a depthwise convolution; layer scales inside."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        mixer = source.token_mixer
        self.attention = None if mixer is None else TalkingHeadsAttention(mixer, source.ls1.gamma.detach())
        mlp = source.mlp
        self.fc1, self.mid = folded_conv(mlp.fc1.conv, mlp.fc1.bn), folded_conv(mlp.mid.conv, mlp.mid.bn)
        self.fc2 = folded_conv(mlp.fc2.conv, mlp.fc2.bn, source.ls2.gamma.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        if self.attention is not None:
            x = x + self.attention(x)
        found: torch.Tensor = x + self.fc2(F.gelu(self.mid(F.gelu(self.fc1(x)))))
        return found


class Stage(nn.Module):
    """Downsampling, with attention beside the convolution in the last stage, and blocks."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        down = source.downsample
        has_down = not isinstance(down, nn.Identity)
        self.downsample = folded_conv(down.conv.conv, down.conv.bn) if has_down else nn.Identity()
        attention = down.attn if has_down else None
        self.attention = None if attention is None else AttentionDownsample(attention)
        self.blocks = nn.Sequential(*[Block(b) for b in source.blocks])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C', H', W']."""
        y = self.downsample(x)
        found: torch.Tensor = self.blocks(y if self.attention is None else self.attention(x) + y)
        return found


class EfficientFormerV2(nn.Module):
    """The whole model, from NHWC pixels to logits."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        stem = source.stem
        self.conv1, self.conv2 = (folded_conv(c.conv, c.bn) for c in (stem.conv1, stem.conv2))
        self.stages = nn.Sequential(*[Stage(s) for s in source.stages])
        norm = source.norm
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        shift = norm.bias.detach() - norm.running_mean * scale
        weight, bias = averaged_heads(source)  # the norm before them is linear and passes through the mean
        self.head = linear(weight * scale, bias + weight @ shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, W, C] -> [1, classes]."""
        x = x.permute(0, 3, 1, 2)  # [1, H, W, C] -> [1, C, H, W]
        x = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        x = self.stages(x).permute(0, 2, 3, 1)
        logits: torch.Tensor = self.head(x.mean(dim=(1, 2)))  # [1, H, W, C] -> [1, C]
        return logits


def _build(variant: Variant, classes: int) -> nn.Module:
    model: nn.Module = import_timm().create_model(variant.name, pretrained=False, num_classes=classes)
    return model


def _rewrite(module: nn.Module, shape: Shape) -> nn.Module:
    stages: Any = module.stages
    for stage, stride in ((2, 16), (3, 32)):
        for name, inner in stages[stage].named_modules():
            if hasattr(inner, "talking_head1"):
                scale = 1 if inner.stride_conv is None else 2
                grid = inner.resolution[0] * scale, inner.resolution[1] * scale
                check_grid(shape, stride, grid, f"stages.{stage}.{name}")
    return EfficientFormerV2(module).eval()


def _variant(size: str) -> Variant:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    facts = {"resize": 235, "interpolation": "bicubic", "mean": mean, "std": std}
    return Variant(f"efficientformerv2_{size}", 224, 2, facts)


FAMILY = Family(
    "efficientformerv2",
    "EfficientFormerV2: attention with talking heads between convolutions (timm)",
    {v.name: v for v in map(_variant, ("s0", "s1", "s2", "l"))},
    _build,
    _rewrite,
    "EfficientFormerV2",
    {"EfficientFormerV2Stage": lambda stage, _: Stage(stage)},
)

"""MobileViT (arXiv 2110.02178), timm's mobilevit_{xxs,xs,s}: self-attention over unfolded patches, then fusion.

Tokens are [N * P, C], patches first, so that one transpose unfolds and one folds; the head split sorts the pixel
positions P into the batch of the matrix products. Every use of the residual stream goes through LayerNorm, which
does not see a constant added to all channels: its producers are centred, and LayerNorm becomes x * rsqrt(mean(x^2)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qhyvit.models._blocks import (
    Backbone,
    ConvNormAct,
    behind_norm,
    centred,
    folded_conv,
    rewrite_stages,
    silu,
    without_offsets,
)  # fmt: skip
from qhyvit.models._family import Family, Variant, holds
from qhyvit.models._timm import import_timm


def centred_conv(source: nn.Conv2d) -> nn.Conv2d:
    """The same for a 1x1 convolution without bias."""
    new = nn.Conv2d(source.in_channels, source.out_channels, 1, bias=False)
    new.weight.data = source.weight.detach() - source.weight.detach().mean(dim=0, keepdim=True)
    return new


class Normalize(nn.Module):
    """x * rsqrt(mean(x^2) + eps) for each token of a centred stream; [T, C]."""

    eps: torch.Tensor

    def __init__(self, eps: float, tokens: int) -> None:
        super().__init__()
        # full shape: a scalar would cost a RESHAPE behind MEAN
        self.register_buffer("eps", torch.full((tokens, 1), eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, C] -> [T, C]."""
        return x * torch.rsqrt((x * x).mean(dim=1, keepdim=True) + self.eps)


class Attention(nn.Module):
    """Multi-head self-attention within each pixel position."""

    def __init__(self, source: Any, norm: Any, positions: int, patches: int) -> None:
        super().__init__()
        heads, channels = source.num_heads, source.proj.weight.shape[0]
        self.batch, self.patches, self.head_dim = positions * heads, patches, channels // heads
        weight, bias = source.qkv.weight.chunk(3), source.qkv.bias.chunk(3)
        self.query = behind_norm(weight[0] * source.scale, bias[0] * source.scale, norm)
        self.key, self.value = (behind_norm(w, b, norm) for w, b in zip(weight[1:], bias[1:], strict=True))
        offset = without_offsets(self.key, self.value)
        self.proj = centred(source.proj.weight, source.proj.bias + source.proj.weight @ offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, C] -> [T, C]."""
        shape = (self.patches, self.batch, self.head_dim)
        # [N * P, h * d] -> [N, P * h, d] -> [P * h, N, d]
        query, key, value = (f(x).reshape(shape).permute(1, 0, 2) for f in (self.query, self.key, self.value))
        # einsum, not bmm of a transposed key: one BATCH_MATMUL that packs the key's rows as they lie, a fifth faster
        scores = torch.einsum("bnd,bmd->bnm", query, key)
        mixed = torch.bmm(torch.softmax(scores, dim=-1), value)
        # [P * h, N, d] -> [N, P * h, d] -> [N * P, h * d]
        return self.proj(mixed.permute(1, 0, 2).reshape(x.shape))


class TransformerBlock(nn.Module):
    """Attention and feed-forward on a centred stream."""

    def __init__(self, source: Any, positions: int, patches: int) -> None:
        super().__init__()
        tokens = positions * patches
        self.norm1, self.norm2 = Normalize(source.norm1.eps, tokens), Normalize(source.norm2.eps, tokens)
        self.attn = Attention(source.attn, source.norm1, positions, patches)
        self.fc1 = behind_norm(source.mlp.fc1.weight, source.mlp.fc1.bias, source.norm2)
        self.fc2 = centred(source.mlp.fc2.weight, source.mlp.fc2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, C] -> [T, C]."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(silu(self.fc1(self.norm2(x))))


class MobileVitBlock(nn.Module):
    """Local convolutions, unfold, transformer, fold, and the fusion with the block's input."""

    def __init__(self, source: Any, size: int) -> None:
        super().__init__()
        self.size, self.patch_rows = size, size // 2
        self.channels = source.conv_1x1.out_channels
        patches = self.patch_rows * self.patch_rows
        self.conv_kxk = ConvNormAct(source.conv_kxk)
        self.conv_1x1 = centred_conv(source.conv_1x1)
        self.transformer = nn.Sequential(*[TransformerBlock(b, 4, patches) for b in source.transformer])
        self.norm = Normalize(source.norm.eps, 4 * patches)
        projection = folded_conv(source.conv_proj.conv, source.conv_proj.bn)
        self.conv_proj = behind_norm(projection.weight, projection.bias, source.norm)
        self.conv_fusion = ConvNormAct(source.conv_fusion)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        y = self.conv_1x1(self.conv_kxk(x)).permute(0, 2, 3, 1)
        # [1, H, W, C] -> [nh, 2, nw, 2 * C] -> [nh, nw, 2, 2 * C] -> [N * P, C]
        y = y.reshape(self.patch_rows, 2, self.patch_rows, 2 * self.channels).permute(0, 2, 1, 3)
        y = y.reshape(-1, self.channels)
        y = silu(self.conv_proj(self.norm(self.transformer(y))))
        width = y.shape[1]
        y = y.reshape(self.patch_rows, self.patch_rows, 2, 2 * width).permute(0, 2, 1, 3)
        y = y.reshape(1, self.size, self.size, width).permute(0, 3, 1, 2)
        return self.conv_fusion(torch.cat((x, y), dim=1))


def _build(variant: Variant, classes: int) -> nn.Module:
    return import_timm().create_model(variant.name, pretrained=False, num_classes=classes)


def _rewrite(module: nn.Module, input_size: int) -> nn.Module:
    stages = rewrite_stages(module, "MobileVitBlock", MobileVitBlock, input_size)
    return Backbone(module, stages).eval()


def _variant(size: str) -> Variant:
    facts = {"resize": 284, "interpolation": "bicubic", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return Variant(f"mobilevit_{size}", 256, 3, facts)


FAMILY = Family(
    "mobilevit",
    "MobileViT: self-attention over patches (timm)",
    {v.name: v for v in map(_variant, ("xxs", "xs", "s"))},
    _build,
    _rewrite,
    holds("MobileVitBlock"),
)

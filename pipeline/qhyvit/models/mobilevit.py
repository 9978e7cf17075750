"""MobileViT (arXiv 2110.02178), timm's mobilevit_{xxs,xs,s}: self-attention over unfolded patches, then fusion.

Tokens are [P, N, 1, C]: P = 4 pixel positions of a 2x2 patch, N patches, and an axis along which the projection reads
the heads. Every use of the residual stream goes through LayerNorm, which does not see a constant added to all channels:
its producers are centred, and LayerNorm becomes x * rsqrt(mean(x^2) + eps). The stream carries sqrt(eps) on all its
channels, so that the mean of squares holds eps, and what reads it is blind to that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qhyvit.errors import ExportError
from qhyvit.models.shared.family import Family, Variant
from qhyvit.models.shared.modules import (
    Backbone,
    ConvNormAct,
    behind_norm,
    centred,
    folded_conv,
    linear,
    rewrite_stages,
    silu,
    without_offsets,
)  # fmt: skip
from qhyvit.models.shared.shape import Shape
from qhyvit.models.shared.timm_models import import_timm


def centred_conv(source: nn.Conv2d, offset: float) -> nn.Conv2d:
    """A 1x1 convolution without bias whose outputs have the mean ``offset`` over the channels."""
    new = nn.Conv2d(source.in_channels, source.out_channels, 1)
    new.weight.data = source.weight.detach() - source.weight.detach().mean(dim=0, keepdim=True)
    assert new.bias is not None
    new.bias.data = torch.full_like(new.bias, offset)
    return new


def blind(layer: nn.Linear) -> nn.Linear:
    """The same for inputs of mean 0, and what is added to all input channels changes nothing."""
    layer.weight.data = layer.weight.detach() - layer.weight.detach().mean(dim=1, keepdim=True)
    return layer


class NormalizeLastAxis(nn.Module):
    """x * rsqrt(mean(x^2)) for each token; [.., C]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[.., C] -> [.., C]."""
        return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True))


class PixelAttention(nn.Module):
    """Multi-head self-attention within each pixel position.

    Query, key and value are one layer here and three in an integer file (passes/own_layers.py). The projection is a
    convolution over the heads as they lie, so that no RESHAPE puts them beside each other.
    """

    def __init__(self, source: Any, norm: Any, positions: int, patches: int) -> None:
        super().__init__()
        heads, channels = source.num_heads, source.proj.weight.shape[0]
        self.heads, self.shape = heads, (positions, patches, 3 * heads, channels // heads)
        weight, bias = source.qkv.weight.chunk(3), source.qkv.bias.chunk(3)
        query = behind_norm(weight[0] * source.scale, bias[0] * source.scale, norm)
        key, value = (behind_norm(w, b, norm) for w, b in zip(weight[1:], bias[1:], strict=True))
        offset = without_offsets(key, value)
        parts = (query, key, value)
        self.qkv = blind(linear(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])))
        proj = centred(source.proj.weight, source.proj.bias + source.proj.weight @ offset)
        self.proj = nn.Conv2d(channels // heads, channels, (1, heads))
        # [C, h * d] -> [C, d, 1, h]
        self.proj.weight.data = proj.weight.detach().reshape(channels, 1, heads, -1).permute(0, 3, 1, 2).contiguous()
        self.proj.bias = proj.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, N, 1, C] -> [P, N, 1, C]."""
        # [P, N, 1, 3 h d] -> [P, N, 3 h, d] -> [3 h, P, N, d]
        query, key, value = self.qkv(x).reshape(self.shape).permute(2, 0, 1, 3).split(self.heads)
        # einsum, not matmul of a transposed key: one BATCH_MATMUL that packs the key's rows as they lie, a fifth faster
        scores = torch.einsum("hpnd,hpmd->hpnm", query, key)
        mixed = torch.einsum("hpnm,hpmd->hpnd", torch.softmax(scores, dim=-1), value)
        # [h, P, N, d] -> [P, d, N, h], as a convolution reads it
        found: torch.Tensor = self.proj(mixed.permute(1, 3, 2, 0)).permute(0, 2, 3, 1)
        return found


class TransformerBlock(nn.Module):
    """Attention and feed-forward on a centred stream that carries sqrt(eps)."""

    def __init__(self, source: Any, positions: int, patches: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = NormalizeLastAxis(), NormalizeLastAxis()
        self.attn = PixelAttention(source.attn, source.norm1, positions, patches)
        self.fc1 = blind(behind_norm(source.mlp.fc1.weight, source.mlp.fc1.bias, source.norm2))
        self.fc2 = centred(source.mlp.fc2.weight, source.mlp.fc2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, N, 1, C] -> [P, N, 1, C]."""
        x = x + self.attn(self.norm1(x))
        found: torch.Tensor = x + self.fc2(silu(self.fc1(self.norm2(x))))
        return found


class MobileVitBlock(nn.Module):
    """Local convolutions, unfold, transformer, fold, and the fusion with the block's input."""

    def __init__(self, source: Any, shape: Shape) -> None:
        super().__init__()
        self.height, self.width = shape[:2]
        self.rows, self.columns = self.height // 2, self.width // 2
        self.channels = source.conv_1x1.out_channels
        patches = self.rows * self.columns
        self.conv_kxk = ConvNormAct(source.conv_kxk)
        self.conv_1x1 = centred_conv(source.conv_1x1, _eps(source) ** 0.5)
        self.transformer = nn.Sequential(*[TransformerBlock(b, 4, patches) for b in source.transformer])
        self.norm = NormalizeLastAxis()
        projection = folded_conv(source.conv_proj.conv, source.conv_proj.bn)
        self.conv_proj = blind(behind_norm(projection.weight, projection.bias, source.norm))
        self.conv_fusion = ConvNormAct(source.conv_fusion)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        y = self.conv_1x1(self.conv_kxk(x)).permute(0, 2, 3, 1)
        # [1, H, W, C] -> [nh, 2, nw, 2, C] -> [2, 2, nh, nw, C] -> [P, N, 1, C]
        y = y.reshape(self.rows, 2, self.columns, 2, self.channels).permute(1, 3, 0, 2, 4)
        y = y.reshape(4, self.rows * self.columns, 1, self.channels)
        y = silu(self.conv_proj(self.norm(self.transformer(y))))
        width = y.shape[-1]
        y = y.reshape(2, 2, self.rows, self.columns, width).permute(2, 0, 3, 1, 4)
        y = y.reshape(1, self.height, self.width, width).permute(0, 3, 1, 2)
        found: torch.Tensor = self.conv_fusion(torch.cat((x, y), dim=1))
        return found


def _eps(source: Any) -> float:
    """The eps of all norms of a block.

    Raises:
        ExportError: they differ, or are 0.
    """
    norms = [source.norm, *(n for b in source.transformer for n in (b.norm1, b.norm2))]
    found = sorted({float(n.eps) for n in norms})
    if len(found) > 1 or found[0] <= 0:
        raise ExportError(f"MobileVitBlock: the norms' eps are {found}; one value above 0 is supported")
    return found[0]


def _build(variant: Variant, classes: int) -> nn.Module:
    model: nn.Module = import_timm().create_model(variant.name, pretrained=False, num_classes=classes)
    return model


def _rewrite(module: nn.Module, shape: Shape) -> nn.Module:
    stages = rewrite_stages(module, "MobileVitBlock", MobileVitBlock, shape)
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
    "ByobNet",
    {"MobileVitBlock": MobileVitBlock},
)

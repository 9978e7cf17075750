"""MobileViTv2 (arXiv 2206.02680), timm's mobilevitv2_*: separable linear attention over unfolded patches.

Tokens are [P, N, C], P = 4 pixel positions of a 2x2 patch leading, N patches. GroupNorm over everything is written
as c * rsqrt(sum(c^2) + M eps) with c = x - mean(x): the sum of squares is one matrix product, so that an integer
file keeps it in the 32-bit accumulator; sqrt(M), gamma and beta go into the linears behind. In a float file the product
is a linear whose weights are computed and whose bias is M eps: a quarter of the file's time less than BATCH_MATMUL.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.models.shared.family import Family, Variant
from qhyvit.models.shared.modules import Backbone, ConvNormAct, behind_norm, folded_conv, linear, rewrite_stages, silu
from qhyvit.models.shared.shape import Shape
from qhyvit.models.shared.timm_models import import_timm


class NormalizeSample(nn.Module):
    """c * rsqrt(sum(c^2) + M eps), c = x - mean(x); [P, N, C]. The caller's linear multiplies by sqrt(M)."""

    eps: torch.Tensor

    def __init__(self, eps: float, elements: int) -> None:
        super().__init__()
        self.elements = elements
        self.register_buffer("eps", torch.full((1,), eps * elements))
        self.gain = elements**0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, N, C] -> [P, N, C]."""
        c = x - x.mean(dim=(0, 1, 2), keepdim=True)
        row = c.reshape(1, self.elements)
        # one FULLY_CONNECTED: [1, M] x [1, M] -> [1, 1]
        return c * torch.rsqrt(torch.einsum("ij,kj->ik", row, row) + self.eps)


class LinearTransformerBlock(nn.Module):
    """Separable self-attention and feed-forward on tokens."""

    def __init__(self, source: Any, positions: int, patches: int) -> None:
        super().__init__()
        channels = source.norm1.weight.shape[0]
        elements = positions * patches * channels
        self.positions = positions
        self.norm1, self.norm2 = (
            NormalizeSample(source.norm1.eps, elements),
            NormalizeSample(source.norm2.eps, elements),
        )
        weight, bias = source.attn.qkv_proj.weight, source.attn.qkv_proj.bias  # rows: 1 query, C keys, C values
        rows = (slice(0, 1), slice(1, 1 + channels), slice(1 + channels, None))
        parts = [behind_norm(weight[r], bias[r], source.norm1, self.norm1.gain) for r in rows]
        query, self.key, self.value = parts
        # without its bias: softmax does not see what is added to all scores of a position
        self.query = nn.Parameter(query.weight.detach())
        out = source.attn.out_proj
        self.out_proj = linear(out.weight.flatten(1), out.bias)
        self.fc1 = behind_norm(source.mlp.fc1.weight, source.mlp.fc1.bias, source.norm2, self.norm2.gain)
        self.fc2 = linear(source.mlp.fc2.weight.flatten(1), source.mlp.fc2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, N, C] -> [P, N, C]."""
        y = self.norm1(x)
        # [1, C] x [P, N, C] -> [P, 1, N]; softmax on the last axis, and left in the product
        scores = torch.softmax(torch.matmul(self.query.expand(self.positions, 1, -1), y.transpose(1, 2)), dim=-1)
        # scores sum to 1, so the mean of keys is the key of the mean: one row a position instead of N
        context = self.key(torch.bmm(scores, y))  # [P, 1, N] x [P, N, C] -> [P, 1, C]
        x = x + self.out_proj(F.relu(self.value(y)) * context)
        found: torch.Tensor = x + self.fc2(silu(self.fc1(self.norm2(x))))
        return found


class MobileVitV2Block(nn.Module):
    """Depthwise convolution, unfold, transformer, fold, projection."""

    def __init__(self, source: Any, shape: Shape) -> None:
        super().__init__()
        self.height, self.width = shape[:2]
        self.rows, self.columns = self.height // 2, self.width // 2
        self.channels = source.conv_1x1.out_channels
        patches = self.rows * self.columns
        self.conv_kxk = ConvNormAct(source.conv_kxk)
        self.conv_1x1 = source.conv_1x1
        self.transformer = nn.Sequential(*[LinearTransformerBlock(b, 4, patches) for b in source.transformer])
        self.norm = NormalizeSample(source.norm.eps, 4 * patches * self.channels)
        projection = folded_conv(source.conv_proj.conv, source.conv_proj.bn)
        self.conv_proj = behind_norm(projection.weight, projection.bias, source.norm, self.norm.gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        x = self.conv_1x1(self.conv_kxk(x)).permute(0, 2, 3, 1)
        # [1, H, W, C] -> [nh, 2, nw, 2, C] -> [2, 2, nh, nw, C] -> [P, N, C]
        x = x.reshape(self.rows, 2, self.columns, 2, self.channels).permute(1, 3, 0, 2, 4)
        x = x.reshape(4, self.rows * self.columns, self.channels)
        x = self.conv_proj(self.norm(self.transformer(x)))
        # [P, N, C'] -> [2, 2, nh, nw, C'] -> [nh, 2, nw, 2, C'] -> [1, C', H, W]
        x = x.reshape(2, 2, self.rows, self.columns, -1).permute(2, 0, 3, 1, 4)
        return x.reshape(1, self.height, self.width, -1).permute(0, 3, 1, 2)


def _build(variant: Variant, classes: int) -> nn.Module:
    model: nn.Module = import_timm().create_model(variant.name, pretrained=False, num_classes=classes)
    return model


def _rewrite(module: nn.Module, shape: Shape) -> nn.Module:
    stages = rewrite_stages(module, "MobileVitV2Block", MobileVitV2Block, shape)
    return Backbone(module, stages).eval()


def _variant(width: str) -> Variant:
    facts = {"resize": 288, "interpolation": "bicubic", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return Variant(f"mobilevitv2_{width}", 256, 3, facts)


FAMILY = Family(
    "mobilevitv2",
    "MobileViTv2: separable linear attention (timm)",
    {v.name: v for v in map(_variant, ("050", "075", "100", "125", "150", "175", "200"))},
    _build,
    _rewrite,
    "ByobNet",
    {"MobileVitV2Block": MobileVitV2Block},
)

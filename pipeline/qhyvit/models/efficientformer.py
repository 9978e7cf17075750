"""EfficientFormer (arXiv 2206.01191), timm's efficientformer_*: pooling mixers on maps, then self-attention on tokens.

A pooling mixer x + g (pool(x) - x) is a depthwise 3x3 convolution with taps g, times a map of 1 / (pixels inside the
image), plus a depthwise 1x1 convolution with 1 - g: XNNPACK has int8 kernels for all of these, but none for
AVERAGE_POOL_2D. The two depthwise terms stay apart: in one kernel, small taps would share a large centre's int8 scale.
The tokens' residual stream is read through LayerNorm alone, and centred as in MobileViT.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.models.shared.family import Family, Variant
from qhyvit.models.shared.modules import averaged_heads, behind_norm, centred, check_grid, folded_conv, without_offsets
from qhyvit.models.shared.shape import Shape
from qhyvit.models.shared.timm_models import import_timm

STRIDE = 32  # of the last stage


class NormalizeTokens(nn.Module):
    """x * rsqrt(mean(x^2) + eps) for each token of a centred stream; [T, C]."""

    eps: torch.Tensor

    def __init__(self, eps: float, tokens: int) -> None:
        super().__init__()
        # full shape: a scalar would cost a RESHAPE behind MEAN
        self.register_buffer("eps", torch.full((tokens, 1), eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, C] -> [T, C]."""
        return x * torch.rsqrt((x * x).mean(dim=1, keepdim=True) + self.eps)


class Pooling(nn.Module):
    """x + gamma (pool(x) - x), pool the mean of those of 3x3 pixels that lie inside the map: one depthwise convolution.

    The mean of the two pixels at an edge equals the mean of three, the third of them their mean. So the map gets a
    border of such means, rows first and then columns, and every mean is one of nine. Both borders of an axis come from
    one convolution that strides from the first pair to the last.
    """

    edge: torch.Tensor

    def __init__(self, gamma: torch.Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels = gamma.shape[0]
        self.down, self.across, self.channels = shape[0] - 2, shape[1] - 2, channels
        self.register_buffer("edge", torch.full((channels, 1, 1, 2), 0.5))
        self.mix = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.mix.weight.data = (gamma / 9)[:, None, None, None].repeat(1, 1, 3, 3)
        self.mix.weight.data[:, 0, 1, 1] += 1.0 - gamma

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        rows = F.conv2d(x, self.edge.transpose(2, 3), stride=(self.down, 1), groups=self.channels)
        top, bottom = torch.split(rows, 1, dim=2)
        x = torch.cat((top, x, bottom), dim=2)
        columns = F.conv2d(x, self.edge, stride=(1, self.across), groups=self.channels)
        left, right = torch.split(columns, 1, dim=3)
        mixed: torch.Tensor = self.mix(torch.cat((left, x, right), dim=3))
        return mixed


class PoolingBlock(nn.Module):
    """Pooling mixer and feed-forward on a map; layer scales inside."""

    def __init__(self, source: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.pooling = Pooling(source.ls1.gamma.detach(), shape)
        self.fc1 = folded_conv(source.mlp.fc1, source.mlp.norm1)
        self.fc2 = folded_conv(source.mlp.fc2, source.mlp.norm2, source.ls2.gamma.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, H, W]."""
        x = self.pooling(x)
        found: torch.Tensor = x + self.fc2(F.gelu(self.fc1(x)))
        return found


class BiasedAttention(nn.Module):
    """Self-attention with a bias for each pair of positions."""

    bias: torch.Tensor

    def __init__(self, source: Any, norm: Any, gain: torch.Tensor) -> None:
        super().__init__()
        self.heads, d = source.num_heads, source.key_dim
        # rows of each head: d query, d key, then the values
        weight = source.qkv.weight.detach().unflatten(0, (self.heads, -1))
        bias = source.qkv.bias.detach().unflatten(0, (self.heads, -1))
        rows = (slice(0, d), slice(d, 2 * d), slice(2 * d, None))
        scales = (source.scale, 1.0, 1.0)
        parts = [(weight[:, r].flatten(0, 1) * s, bias[:, r].flatten() * s) for r, s in zip(rows, scales, strict=True)]
        self.query, self.key, self.value = (behind_norm(w, b, norm) for w, b in parts)
        self.register_buffer("bias", source.attention_biases.detach()[:, source.attention_bias_idxs])
        offset = without_offsets(self.key, self.value)
        self.proj = centred(source.proj.weight * gain[:, None], (source.proj.bias + source.proj.weight @ offset) * gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C] -> [N, C]."""
        shape = (x.shape[0], self.heads, -1)
        # [N, h * d] -> [N, h, d] -> [h, N, d]
        query, key, value = (f(x).reshape(shape).permute(1, 0, 2) for f in (self.query, self.key, self.value))
        # einsum, not bmm of a transposed key: one BATCH_MATMUL that reads the key as it lies
        scores = torch.einsum("hnd,hmd->hnm", query, key) + self.bias
        mixed = torch.bmm(torch.softmax(scores, dim=-1), value)
        # [h, N, d] -> [N, h, d] -> [N, h * d]
        found: torch.Tensor = self.proj(mixed.permute(1, 0, 2).reshape(x.shape[0], -1))
        return found


class AttentionBlock(nn.Module):
    """Attention and feed-forward on a centred stream of tokens; layer scales inside."""

    def __init__(self, source: Any, tokens: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = NormalizeTokens(source.norm1.eps, tokens), NormalizeTokens(source.norm2.eps, tokens)
        self.attention = BiasedAttention(source.token_mixer, source.norm1, source.ls1.gamma.detach())
        gain = source.ls2.gamma.detach()
        self.fc1 = behind_norm(source.mlp.fc1.weight, source.mlp.fc1.bias, source.norm2)
        self.fc2 = centred(source.mlp.fc2.weight * gain[:, None], source.mlp.fc2.bias * gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C] -> [N, C]."""
        x = x + self.attention(self.norm1(x))
        found: torch.Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return found


class Flatten(nn.Module):
    """A map as tokens with mean 0 over the channels."""

    def __init__(self, *, is_centred: bool) -> None:
        super().__init__()
        self.is_centred = is_centred

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [N, C]."""
        x = x.permute(0, 2, 3, 1).flatten(0, 2)  # [1, H, W, C] -> [N, C]
        return x if self.is_centred else x - x.mean(dim=1, keepdim=True)


def _stage(source: Any, shape: tuple[int, int]) -> nn.Sequential:
    """Downsampling and blocks; ``shape``: height and width of the map behind the downsampling."""
    parts: list[nn.Module] = []
    if not isinstance(source.downsample, nn.Identity):
        parts.append(folded_conv(source.downsample.conv, source.downsample.norm))
    for i, block in enumerate(source.blocks):
        kind = type(block).__name__
        if kind == "MetaBlock2d":
            parts.append(PoolingBlock(block, shape))
        elif kind == "MetaBlock1d":
            parts.append(AttentionBlock(block, shape[0] * shape[1]))
        else:  # Flat: where only a convolution stands before it, that one's outputs are centred
            if i == 0:
                _centre(parts[-1])
            parts.append(Flatten(is_centred=i == 0))
    return nn.Sequential(*parts)


def _centre(conv: Any) -> None:
    """Take the channels' mean out of a convolution's outputs, in place."""
    conv.weight.data -= conv.weight.data.mean(dim=0, keepdim=True)
    conv.bias.data -= conv.bias.data.mean()


class EfficientFormer(nn.Module):
    """The whole model, from NHWC pixels to logits."""

    def __init__(self, source: Any, shape: Shape) -> None:
        super().__init__()
        stem = source.stem
        self.conv1, self.conv2 = folded_conv(stem.conv1, stem.norm1), folded_conv(stem.conv2, stem.norm2)
        # convolutions of stride 2 round up
        shapes = [(-(-shape[0] // stride), -(-shape[1] // stride)) for stride in (4, 8, 16, STRIDE)]
        self.stages = nn.Sequential(*[_stage(s, sides) for s, sides in zip(source.stages, shapes, strict=True)])
        self.norm = NormalizeTokens(source.norm.eps, shapes[-1][0] * shapes[-1][1])
        self.head = behind_norm(*averaged_heads(source), source.norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, W, C] -> [1, classes]."""
        x = x.permute(0, 3, 1, 2)  # [1, H, W, C] -> [1, C, H, W]
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        logits: torch.Tensor = self.head(self.norm(self.stages(x)).mean(dim=0, keepdim=True))  # [N, C] -> [1, C]
        return logits


def _build(variant: Variant, classes: int) -> nn.Module:
    model: nn.Module = import_timm().create_model(variant.name, pretrained=False, num_classes=classes)
    return model


def _rewrite(module: nn.Module, shape: Shape) -> nn.Module:
    for name, inner in module.named_modules():
        if hasattr(inner, "attention_biases"):
            table: Any = inner.attention_biases  # one bias for each distance: as many as there are tokens
            side = round(table.shape[1] ** 0.5)
            check_grid(shape, STRIDE, (side, side), name)
    return EfficientFormer(module, shape).eval()


def _variant(size: str) -> Variant:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    facts = {"resize": 235, "interpolation": "bicubic", "mean": mean, "std": std}
    return Variant(f"efficientformer_{size}", 224, 1, facts)


FAMILY = Family(
    "efficientformer",
    "EfficientFormer: pooling mixers, then self-attention on tokens (timm)",
    {v.name: v for v in map(_variant, ("l1", "l3", "l7"))},
    _build,
    _rewrite,
    "EfficientFormer",
    {"MetaBlock2d": PoolingBlock},
)

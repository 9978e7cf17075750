"""Mobile-Former (arXiv 2108.05895), mobile_former_{26m..508m}: a MobileNet, a few tokens, and bridges between them.

Features are [H * W, C] and tokens [T, Ct] wherever no depthwise convolution reads them, so that attention needs no
transpose of a map. Heads are kept apart by zeros instead of by an axis: a vector with zeros outside one head's
channels meets only those of the other operand.

Norms come last here, so tokens are kept normalised (``n``), and ``gamma n + beta`` goes into the weights of whatever
reads them. On the way to the next norm it is a linear too, which removes the mean over the channels as well; the
update is centred likewise, and LayerNorm becomes x * rsqrt(mean(x^2) + eps), the mean and eps one more linear.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.models.shared.family import Family, Variant
from qhyvit.models.shared.mobile_former_convs import (
    DownMobile,
    Lite,
    MobileFormerMobile,
    SpatialConv,
    pointwise,
    scaled,
    shuffled,
)
from qhyvit.models.shared.mobile_former_net import (
    BRIDGE_HEADS,
    CONFIGS,
    FORMER_HEADS,
    DownBlock,
    MobileFormer,
    MobileFormerBlock,
    make_model,
)
from qhyvit.models.shared.modules import behind_norm, centred, linear
from qhyvit.models.shared.shape import Shape


def head_mask(heads: int, channels: int) -> torch.Tensor:
    """[heads, channels], 1 where the channel is the head's."""
    return torch.eye(heads).repeat_interleave(channels // heads, dim=1)


def head_rows(source: nn.Linear, heads: int) -> nn.Linear:
    """The linear once for each head, with zeros outside the head's channels: [O, I] -> [heads * O, I]."""
    mask = head_mask(heads, source.out_features)
    weight = mask[:, :, None] * source.weight.detach()
    return linear(weight.flatten(0, 1), (mask * source.bias.detach()).flatten())


def head_columns(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Weights for an input of :func:`head_rows`: [O, I] -> [O, heads * I]."""
    return (weight.detach()[:, None] * head_mask(heads, weight.shape[1])).flatten(1)


class NormalizeByLinear(nn.Module):
    """x * rsqrt(mean(x^2) + eps) for each token of a centred stream."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        channels = norm.weight.shape[0]
        self.mean = linear(torch.full((1, channels), 1 / channels), torch.tensor([norm.eps]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, Ct] -> [T, Ct]."""
        return x * torch.rsqrt(self.mean(x * x))


class Carry(nn.Module):
    """Tokens on their way around a layer: centred gamma n + beta."""

    def __init__(self, before: nn.LayerNorm) -> None:
        super().__init__()
        self.linear = centred(torch.diag(before.weight.detach()), before.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[T, Ct] -> [T, Ct]."""
        found: torch.Tensor = self.linear(tokens)
        return found


class MobileToFormerEquivalent(nn.Module):
    """Tokens read the features."""

    def __init__(self, source: Any, before: nn.LayerNorm) -> None:
        super().__init__()
        self.channels = source.q.out_features
        scale = (self.channels // BRIDGE_HEADS) ** -0.5
        self.query = head_rows(scaled(behind_norm(source.q.weight, source.q.bias, before), scale), BRIDGE_HEADS)
        alpha = behind_norm(source.alpha[0].weight, source.alpha[0].bias + 3, before)
        self.alpha = head_rows(alpha, BRIDGE_HEADS)
        # 2 h_sigmoid(x) = relu6(x + 3) / 3
        self.proj = centred(head_columns(source.proj.weight / 3, BRIDGE_HEADS), source.proj.bias)
        self.carry = Carry(before)
        self.norm = NormalizeByLinear(source.layer_norm)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[H * W, C], [T, Ct] -> [T, Ct]."""
        query = self.query(tokens).reshape(-1, self.channels)  # [T, h * C] -> [T * h, C]
        scores = torch.softmax(query @ features.t(), dim=-1)
        mixed = (scores @ features).reshape(tokens.shape[0], -1)  # [T * h, C] -> [T, h * C]
        update = self.proj(mixed * F.relu6(self.alpha(tokens)))
        found: torch.Tensor = self.norm(self.carry(tokens) + update)
        return found


class FirstMobileToFormer(nn.Module):
    """The same for the embedded tokens: what does not depend on the image is a constant."""

    query: torch.Tensor
    alpha: torch.Tensor
    tokens: torch.Tensor

    def __init__(self, source: Any, tokens: torch.Tensor) -> None:
        super().__init__()
        channels = source.q.out_features
        mask = head_mask(BRIDGE_HEADS, channels)
        with torch.no_grad():
            query = source.q(tokens) * (channels // BRIDGE_HEADS) ** -0.5
            alpha = 2 * source.alpha(tokens)
        # [T, 1, C] x [h, C] -> [T * h, C]
        self.register_buffer("query", (query[:, None] * mask).flatten(0, 1))
        self.register_buffer("alpha", (alpha[:, None] * mask).flatten(0, 1))
        self.register_buffer("tokens", tokens - tokens.mean(dim=1, keepdim=True))
        self.proj = centred(head_columns(source.proj.weight, BRIDGE_HEADS), source.proj.bias)
        self.norm = NormalizeByLinear(source.layer_norm)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[H * W, C] -> [T, Ct]."""
        scores = torch.softmax(self.query @ features.t(), dim=-1)
        mixed = scores @ features * self.alpha
        # [T * h, C] -> [T, h * C]
        found: torch.Tensor = self.norm(self.tokens + self.proj(mixed.reshape(self.tokens.shape[0], -1)))
        return found


class FormerEquivalent(nn.Module):
    """Self-attention and feed-forward."""

    mask: torch.Tensor

    def __init__(self, source: Any, before: nn.LayerNorm) -> None:
        super().__init__()
        channels, between = source.q.out_features, source.layer_norm
        # keys are gamma n + beta: softmax does not see beta, and gamma may as well weigh the query
        weigh = before.weight.detach() * (channels // FORMER_HEADS) ** -0.5
        self.query = scaled(behind_norm(source.q.weight, source.q.bias, before), weigh)
        self.register_buffer("mask", head_mask(FORMER_HEADS, channels)[:, None])
        mixed = behind_norm(source.channel_mlp.weight, source.channel_mlp.bias, before)
        self.channel_mlp = centred(mixed.weight, mixed.bias)
        self.carry1, self.norm1 = Carry(before), NormalizeByLinear(between)
        self.fc1 = behind_norm(source.ffn[0].weight, source.ffn[0].bias, between)
        self.fc2 = centred(source.ffn[2].weight, source.ffn[2].bias)
        self.carry2, self.norm2 = Carry(between), NormalizeByLinear(source.ffn_norm)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[T, Ct] -> [T, Ct]."""
        heads = tokens * self.mask  # [T, Ct] x [h, 1, Ct] -> [h, T, Ct]
        scores = torch.softmax(self.query(tokens) @ heads.transpose(1, 2), dim=-1)
        mixed = (scores @ heads).sum(dim=0)  # [h, T, Ct] -> [T, Ct]
        tokens = self.norm1(self.carry1(tokens) + self.channel_mlp(mixed))
        found: torch.Tensor = self.norm2(self.carry2(tokens) + self.fc2(F.gelu(self.fc1(tokens))))
        return found


class FormerToMobileEquivalent(nn.Module):
    """Features read the tokens."""

    mask: torch.Tensor

    def __init__(self, source: Any, before: nn.LayerNorm) -> None:
        super().__init__()
        channels = source.k.out_features
        # a key's bias is the same for every token: softmax does not see it
        key = source.k.weight.detach() * before.weight.detach() * (channels // BRIDGE_HEADS) ** -0.5
        self.key = linear(key, None)
        self.value = behind_norm(source.proj.weight, source.proj.bias, before)
        self.register_buffer("mask", head_mask(BRIDGE_HEADS, channels)[:, None])

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[H * W, C], [T, Ct] -> [H * W, C]."""
        # [T, C] x [h, 1, C] -> [h, T, C] -> [h * T, C]: one product sums over the heads as well
        key, value = ((x * self.mask).flatten(0, 1) for x in (self.key(tokens), self.value(tokens)))
        scores = (features @ key.t()).reshape(-1, self.mask.shape[0], tokens.shape[0])  # [H * W, h, T]
        found: torch.Tensor = features + torch.softmax(scores, dim=-1).flatten(1) @ value
        return found


class HybridBlockEquivalent(nn.Module):
    """Tokens first, then the convolutions, then the way back."""

    def __init__(self, source: Any, local_global: nn.Module) -> None:
        super().__init__()
        after = source.global_block.ffn_norm
        self.local_global = local_global
        self.global_block = FormerEquivalent(source.global_block, source.local_global.layer_norm)
        kinds = {MobileFormerBlock: MobileFormerMobile, DownBlock: DownMobile}
        self.mobile = kinds[type(source)](source, after)
        self.global_local = FormerToMobileEquivalent(source.global_local, after)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, height: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """[H * W, C], [T, Ct], H to the same of the output."""
        tokens = self.global_block(self.local_global(x, tokens))
        x, height = self.mobile(x, tokens[:1], height)
        return self.global_local(x, tokens), tokens, height


class ClassifierEquivalent(nn.Module):
    """Pooled features and the first token, two layers; h_swish(x) = x relu6(x + 3) / 6, its 1/6 in the next layer."""

    def __init__(self, source: Any, before: nn.LayerNorm) -> None:
        super().__init__()
        mix, conv, norm, _ = source.conv
        self.conv = pointwise(conv, norm, shuffled([mix], conv.in_channels))
        fc, batch_norm, _ = source.fc
        gain = (batch_norm.weight / torch.sqrt(batch_norm.running_var + batch_norm.eps)).detach()
        bias = (fc.bias.detach() - batch_norm.running_mean) * gain + batch_norm.bias.detach()
        pooled, token = (fc.weight.detach() * gain[:, None]).split([conv.out_channels, before.weight.shape[0]], dim=1)
        token_part = behind_norm(token, bias, before)
        self.fc = linear(torch.cat((pooled / 6, token_part.weight), dim=1), token_part.bias)
        last = source.classifier[1]
        self.classifier = linear(last.weight / 6, last.bias)

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """[H * W, C], [1, Ct] -> [1, classes]."""
        pooled = F.relu6(self.conv(x)).mean(dim=0, keepdim=True)  # [H * W, C] -> [1, C]
        y = self.fc(torch.cat((pooled * F.relu6(pooled + 3), token), dim=1))
        logits: torch.Tensor = self.classifier(y * F.relu6(y + 3))
        return logits


class Equivalent(nn.Module):
    """The network from NHWC pixels to logits."""

    tokens: torch.Tensor

    def __init__(self, source: MobileFormer) -> None:
        super().__init__()
        self.stem = SpatialConv(source.stem[0], source.stem[1], relu6=True)
        self.lite = Lite(source.features[0])
        blocks: list[Any] = list(source.features)[1:]
        first = FirstMobileToFormer(blocks[0].local_global, source.tokens.weight.detach())
        made = [HybridBlockEquivalent(blocks[0], first)]
        for previous, block in pairwise(blocks):
            before = previous.global_block.ffn_norm
            made.append(HybridBlockEquivalent(block, MobileToFormerEquivalent(block.local_global, before)))
        self.features = nn.ModuleList(made)
        self.local_global = MobileToFormerEquivalent(source.local_global, blocks[-1].global_block.ffn_norm)
        self.classifier = ClassifierEquivalent(source.classifier, source.local_global.layer_norm)
        self.register_buffer("tokens", source.tokens.weight.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, W, C] -> [1, classes]."""
        x = self.lite(self.stem(x))
        height, x, tokens = x.shape[1], x.reshape(-1, x.shape[3]), self.tokens  # [1, H, W, C] -> [H * W, C]
        for block in self.features:
            x, tokens, height = block(x, tokens, height)
        logits: torch.Tensor = self.classifier(x, self.local_global(x, tokens[:1]))  # the head reads no other token
        return logits


def _build(variant: Variant, classes: int) -> nn.Module:
    return make_model(variant.name.removeprefix("mobile_former_"), classes)


def _rewrite(module: nn.Module, shape: Shape) -> nn.Module:
    assert isinstance(module, MobileFormer)
    with torch.no_grad():
        return Equivalent(module).eval()


def _variant(size: str) -> Variant:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    facts = {"resize": 256, "interpolation": "bilinear", "mean": mean, "std": std}
    return Variant(f"mobile_former_{size}", 224, 15, facts)


FAMILY = Family(
    "mobile_former",
    "Mobile-Former: convolutions and a few tokens side by side",
    {v.name: v for v in map(_variant, CONFIGS)},
    _build,
    _rewrite,
    "MobileFormer",
    {},
)

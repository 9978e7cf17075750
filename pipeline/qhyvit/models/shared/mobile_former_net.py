"""Mobile-Former (arXiv 2108.05895) in PyTorch: a MobileNet and a few tokens side by side, with bridges between them.

Written from the paper; the names of the parameters are those of the published checkpoints, so that these load.
Tokens are [B, T, Ct], features [B, C, H, W]. A head always owns a contiguous range of channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

BRIDGE_HEADS, FORMER_HEADS = 2, 4
DOWN_EXPANSION = 4  # of the second half of every downsampling block
HEAD_EXPANSION = 6


@dataclass(frozen=True)
class Config:
    """One variant.

    Args:
        stem: channels of the stem.
        tokens: number of tokens.
        token_dim: their channels.
        hidden: width of the classifier's hidden layer.
        blocks: one word a block, kind and expansion, output channels, stride where it is free: ``L`` depthwise and
            pointwise, ``D`` downsampling, ``M`` Mobile-Former.
        groups: of every 1x1 convolution; more than one brings channel shuffles.
    """

    stem: int
    tokens: int
    token_dim: int
    hidden: int
    blocks: str
    groups: int = 1


_SMALL = "L3-12/2 M3-12 D6-24 M3-24 D6-48 M4-48 M6-64 D6-96 M6-96"
CONFIGS = {
    "26m": Config(8, 3, 128, 1024, _SMALL, groups=4),
    "52m": Config(8, 3, 128, 1024, _SMALL),
    "96m": Config(12, 4, 128, 1280, "L2-12/1 D6-16 D6-32 M3-32 D6-64 M4-64 M6-88 D6-128 M6-128"),
    "151m": Config(
        12, 6, 192, 1280, "L2-12/1 D6-16 M3-16 D6-32 M3-32 D6-64 M4-64 M6-88 M6-88 D6-128 M6-128 M6-128"
    ),
    "214m": Config(
        12, 6, 192, 1600, "L2-12/1 D6-20 M3-20 D6-40 M4-40 D6-80 M4-80 M6-112 M6-112 D6-160 M6-160 M6-160"
    ),
    "294m": Config(
        16, 6, 192, 1920, "L2-16/1 D6-24 M4-24 D6-48 M4-48 D6-96 M4-96 M6-128 M6-128 D6-192 M6-192 M6-192"
    ),
    "508m": Config(
        24, 6, 192, 1920, "L2-24/1 D6-40 M3-40 D6-72 M3-72 D6-128 M4-128 M6-176 M6-176 D6-240 M6-240 M6-240"
    ),
}  # fmt: skip


class HSigmoid(nn.Module):
    """relu6(x + 3) / 6."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return F.relu6(x + 3) / 6


class ChannelShuffle(nn.Module):
    """Deals the channels of ``groups`` contiguous groups out in turn."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        # [B, g * n, H, W] -> [B, g, n, H, W] -> [B, n, g, H, W] -> [B, n * g, H, W]
        return torch.unflatten(x, 1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class DyReLU(nn.Module):
    """max(a1 x, a2 x) with a1 in [0, 2] and a2 in [-1, 1] for each channel, computed from the first token."""

    def __init__(self, channels: int, token_dim: int) -> None:
        super().__init__()
        hidden = token_dim // 4
        self.hyper = nn.Sequential(
            nn.Linear(token_dim, hidden), nn.ReLU(), nn.Linear(hidden, 2 * channels), HSigmoid()
        )  # fmt: skip

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W], [B, T, Ct] -> [B, C, H, W]."""
        a1, a2 = (2 * self.hyper(tokens[:, 0]) - 1)[:, :, None, None].chunk(2, dim=1)
        return torch.maximum((a1 + 1) * x, a2 * x)


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, heads: int) -> torch.Tensor:
    """Multi-head attention of [B, N, C] on [B, M, C]; gives [B, N, C]."""
    # [B, N, h * d] -> [B, N, h, d] -> [B, h, N, d]
    q, k, v = (torch.unflatten(x, 2, (heads, -1)).transpose(1, 2) for x in (query, keys, values))
    scores = torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5, dim=-1)
    return torch.matmul(scores, v).transpose(1, 2).flatten(2)


class MobileToFormer(nn.Module):
    """Tokens read the features, which are keys and values as they are; ``alpha`` weighs what was read."""

    def __init__(self, channels: int, token_dim: int) -> None:
        super().__init__()
        self.q = nn.Linear(token_dim, channels)
        self.alpha = nn.Sequential(nn.Linear(token_dim, channels), HSigmoid())
        self.proj = nn.Linear(channels, token_dim)
        self.layer_norm = nn.LayerNorm(token_dim)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W], [B, T, Ct] -> [B, T, Ct]."""
        pixels = features.flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, H * W, C]
        mixed = attend(self.q(tokens), pixels, pixels, BRIDGE_HEADS) * (2 * self.alpha(tokens))
        found: torch.Tensor = self.layer_norm(tokens + self.proj(mixed))
        return found


class Former(nn.Module):
    """Self-attention with the raw tokens as keys and values, and a feed-forward; norms come last."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.q = nn.Linear(token_dim, token_dim)
        self.channel_mlp = nn.Linear(token_dim, token_dim)
        self.layer_norm = nn.LayerNorm(token_dim)
        self.ffn = nn.Sequential(nn.Linear(token_dim, 2 * token_dim), nn.GELU(), nn.Linear(2 * token_dim, token_dim))
        self.ffn_norm = nn.LayerNorm(token_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T, Ct] -> [B, T, Ct]."""
        mixed = attend(self.q(tokens), tokens, tokens, FORMER_HEADS)
        tokens = self.layer_norm(tokens + self.channel_mlp(mixed))
        found: torch.Tensor = self.ffn_norm(tokens + self.ffn(tokens))
        return found


class FormerToMobile(nn.Module):
    """Features, which are the queries as they are, read the tokens."""

    def __init__(self, channels: int, token_dim: int) -> None:
        super().__init__()
        self.k = nn.Linear(token_dim, channels)
        self.proj = nn.Linear(token_dim, channels)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W], [B, T, Ct] -> [B, C, H, W]."""
        pixels = features.flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, H * W, C]
        read = attend(pixels, self.k(tokens), self.proj(tokens), BRIDGE_HEADS)
        return features + torch.unflatten(read.transpose(1, 2), 2, features.shape[2:])


def conv_bn(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution without bias, and batch norm."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


def shuffle(active: bool, groups: int) -> list[nn.Module]:
    """A channel shuffle where 1x1 convolutions are grouped."""
    return [ChannelShuffle(groups)] if active else []


class LiteBlock(nn.Module):
    """Depthwise with more outputs, pointwise; tokens pass by."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int, groups: int) -> None:
        super().__init__()
        wide = channels * expansion
        mix = shuffle(groups > 1, channels) or [nn.Identity()]  # keeps the numbers of the checkpoints' names
        depthwise = conv_bn(channels, wide, 3, stride, channels)
        self.conv = nn.Sequential(*depthwise, nn.ReLU6(), *mix, *conv_bn(wide, out, groups=groups))
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and tokens to features and tokens."""
        y = self.conv(x)
        return (x + y if self.shortcut else y), tokens


class HybridBlock(nn.Module):
    """The token side that downsampling and Mobile-Former blocks share: it comes first, the way back comes last."""

    def __init__(self, channels: int, out: int, token_dim: int) -> None:
        super().__init__()
        self.local_global = MobileToFormer(channels, token_dim)
        self.global_block = Former(token_dim)
        self.global_local = FormerToMobile(out, token_dim)

    def mobile(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The convolutions."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and tokens to features and tokens."""
        tokens = self.global_block(self.local_global(x, tokens))
        return self.global_local(self.mobile(x, tokens), tokens), tokens


class MobileFormerBlock(HybridBlock):
    """Expand, depthwise, project, with dynamic activations, beside the tokens."""

    def __init__(self, channels: int, out: int, expansion: int, groups: int, token_dim: int) -> None:
        super().__init__(channels, out, token_dim)
        wide = channels * expansion
        self.conv1 = nn.Sequential(*conv_bn(channels, wide, groups=groups), *shuffle(groups > 1, groups))
        self.hyper1 = DyReLU(wide, token_dim)
        self.conv2 = nn.Sequential(*conv_bn(wide, wide, 3, groups=wide))
        self.hyper2 = DyReLU(wide, token_dim)
        self.conv3 = nn.Sequential(*conv_bn(wide, out, groups=groups), *shuffle(groups > 1, groups))
        self.shortcut = channels == out

    def mobile(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', H, W]."""
        y = self.hyper1(self.conv1(x), tokens)
        z: torch.Tensor = self.conv3(self.hyper2(self.conv2(y), tokens))
        return x + z if self.shortcut else z


class DownBlock(HybridBlock):
    """Two depthwise-pointwise pairs, the first one with stride 2."""

    def __init__(self, channels: int, out: int, expansion: int, groups: int, token_dim: int) -> None:
        super().__init__(channels, out, token_dim)
        first, second = channels * expansion, out * DOWN_EXPANSION
        mixed = groups > 1
        self.conv1 = nn.Sequential(*conv_bn(channels, first, 3, 2, channels), *shuffle(mixed, channels))
        self.hyper1 = DyReLU(first, token_dim)
        self.conv2 = nn.Sequential(*conv_bn(first, out, groups=groups))
        self.conv3 = nn.Sequential(*conv_bn(out, second, 3, groups=out), *shuffle(mixed, out))
        self.hyper3 = DyReLU(second, token_dim)
        self.conv4 = nn.Sequential(*conv_bn(second, out, groups=groups))

    def mobile(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C', H / 2, W / 2]."""
        x = self.conv2(self.hyper1(self.conv1(x), tokens))
        found: torch.Tensor = x + self.conv4(self.hyper3(self.conv3(x), tokens))
        return found


class Classifier(nn.Module):
    """Pooled features and the first token, two layers."""

    def __init__(self, channels: int, config: Config, classes: int) -> None:
        super().__init__()
        wide = HEAD_EXPANSION * channels
        mix = shuffle(config.groups > 1, config.groups) or [nn.Identity()]
        self.conv = nn.Sequential(*mix, *conv_bn(channels, wide, groups=config.groups), nn.ReLU6())
        fc = nn.Linear(wide + config.token_dim, config.hidden)
        self.fc = nn.Sequential(fc, nn.BatchNorm1d(config.hidden), nn.Hardswish())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(config.hidden, classes))

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W], [B, T, Ct] -> [B, classes]."""
        pooled = F.hardswish(self.conv(x).mean(dim=(2, 3)))
        logits: torch.Tensor = self.classifier(self.fc(torch.cat((pooled, tokens[:, 0]), dim=1)))
        return logits


class MobileFormer(nn.Module):
    """The network."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.tokens, config.token_dim)
        self.stem = nn.Sequential(*conv_bn(3, config.stem, 3, 2), nn.ReLU6())
        channels, features = config.stem, []
        for word in config.blocks.split():
            block, channels = make_block(word, channels, config)
            features.append(block)
        self.features = nn.ModuleList(features)
        self.local_global = MobileToFormer(channels, config.token_dim)
        self.classifier = Classifier(channels, config, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, classes]."""
        x, tokens = self.stem(x), self.tokens.weight.expand(x.shape[0], -1, -1)
        for block in self.features:
            x, tokens = block(x, tokens)
        logits: torch.Tensor = self.classifier(x, self.local_global(x, tokens))
        return logits


def make_block(word: str, channels: int, config: Config) -> tuple[nn.Module, int]:
    """The block of one word of ``Config.blocks``, and its output channels."""
    head, _, stride = word.partition("/")
    kind, (expansion, out) = head[0], (int(number) for number in head[1:].split("-"))
    if kind == "L":
        return LiteBlock(channels, out, expansion, int(stride), config.groups), out
    cls = {"D": DownBlock, "M": MobileFormerBlock}[kind]
    return cls(channels, out, expansion, config.groups, config.token_dim), out


def make_model(size: str, classes: int) -> MobileFormer:
    """The variant of a key of :data:`CONFIGS`, randomly initialised."""
    return MobileFormer(CONFIGS[size], classes)

"""Mobile-Former's convolutions for the export: expansions, depthwise ones, and the DY-ReLUs that tokens steer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.models.shared.mobile_former_net import ChannelShuffle
from qhyvit.models.shared.modules import behind_norm, folded_conv, linear

FEW_CHANNELS = 8  # at which zeros in a dense convolution of stride 2 cost less than copies of its input


def scaled(source: Any, factor: float | torch.Tensor) -> Any:
    """A layer whose outputs are multiplied by ``factor``, a number or one for each channel; in place."""
    factor = torch.as_tensor(factor)
    source.weight.data = source.weight.data * factor.reshape(-1, *[1] * (source.weight.dim() - 1))
    source.bias.data = source.bias.data * factor
    return source


def shuffled(parts: Any, channels: int) -> torch.Tensor:
    """Which channel each one comes from, behind a sequence's shuffle, or in order where it has none."""
    order = torch.arange(channels)
    for part in parts:
        if isinstance(part, ChannelShuffle):
            order = part(order[None, :, None, None]).flatten()
    return order


def reordered(shuffle: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The shuffle to the same channels from outputs that come in ``order``."""
    return shuffle.argsort()[order].argsort()


def pointwise(conv: nn.Conv2d, norm: Any, order: torch.Tensor | None = None) -> nn.Linear:
    """A 1x1 convolution with its norm folded, as a dense linear; ``order``: a shuffle of its input."""
    folded, groups = folded_conv(conv, norm), conv.groups
    # [g * o, i, 1, 1] -> g blocks [o, i] -> [O, I]: zeros cost less than a grouped convolution and a transpose
    block_diag: Callable[..., torch.Tensor] = torch.block_diag  # torch leaves it untyped
    weight = block_diag(*folded.weight.detach().flatten(1).chunk(groups))
    if order is not None:
        weight = weight[:, order.argsort()]
    return linear(weight, folded.bias)


def expand(parts: Any) -> nn.Linear:
    """1x1 convolution, norm, and perhaps a shuffle."""
    made = pointwise(parts[0], parts[1])
    order = shuffled(parts, made.out_features)
    return linear(made.weight[order], made.bias[order])


def copied(x: torch.Tensor, times: int) -> torch.Tensor:
    """[1, H, W, C] -> [1, H, W, times * C]; few operands a concatenation, or kernels will not take it."""
    for few in (3, 2):
        while times % few == 0:
            x, times = torch.cat([x] * few, dim=3), times // few
    assert times == 1
    return x


def dense(conv: nn.Conv2d) -> nn.Conv2d:
    """A depthwise convolution as one that reads all channels, with zeros for those that are not an output's own."""
    geometry: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding}
    kernel: Any = conv.kernel_size
    new = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, **geometry)
    own = torch.eye(conv.in_channels).repeat_interleave(conv.out_channels // conv.in_channels, dim=0)
    new.weight.data = own[:, :, None, None] * conv.weight.detach()  # [O, I, 1, 1] x [O, 1, kh, kw]
    new.bias = conv.bias
    return new


class SpatialConv(nn.Module):
    """Convolution with its norm folded, mostly depthwise; perhaps with ReLU6.

    XNNPACK has no depthwise kernel that makes several outputs of each channel, and its general one takes ten times as
    long. Where such a one strides over few channels it is dense, with zeros: less work than to copy the larger map.
    Elsewhere it reads ``copies`` of its input, one after the other. ``order``: which channel of the original each
    output is.
    """

    def __init__(self, conv: Any, norm: Any, *, relu6: bool = False) -> None:
        super().__init__()
        self.conv, self.relu6 = folded_conv(conv, norm), relu6
        depthwise = conv.groups > 1
        self.copies = conv.out_channels // conv.in_channels if depthwise else 1
        if self.copies > 1 and conv.stride[0] > 1 and conv.in_channels <= FEW_CHANNELS:
            self.conv, self.copies = dense(self.conv), 1
        self.order = torch.arange(conv.out_channels)
        if self.copies > 1:
            self.order = self.order.reshape(-1, self.copies).t().flatten()  # c * m + j -> j * C + c
            self.conv.in_channels = self.conv.groups = conv.out_channels
            assert self.conv.bias is not None
            self.conv.weight.data, self.conv.bias.data = self.conv.weight[self.order], self.conv.bias[self.order]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, W, C] -> [1, H', W', C']."""
        x = self.conv(copied(x, self.copies).permute(0, 3, 1, 2))
        return (F.relu6(x) if self.relu6 else x).permute(0, 2, 3, 1)


class Hidden(nn.Module):
    """The hidden layers of a block's two DY-ReLUs in one: both read the first token.

    One int8 scale is for all units: each is divided by its ``reach``, three deviations from zero where the token is
    normal, and ReLU passes that on to the layers behind.
    """

    def __init__(self, sources: tuple[Any, Any], before: nn.LayerNorm) -> None:
        super().__init__()
        layers = [source.hyper[0] for source in sources]
        weight, bias = torch.cat([x.weight for x in layers]), torch.cat([x.bias for x in layers])
        fc = behind_norm(weight, bias, before)
        self.reach = (fc.bias.abs() + 3 * fc.weight.norm(dim=1)).detach().clamp_min(1e-6)
        self.fc = scaled(fc, 1 / self.reach)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        """[1, Ct] -> [1, 2 * hidden]."""
        return F.relu(self.fc(token))


class DyRelu(nn.Module):
    """max(a1 x, a2 x). The caller's layer gives x / 3: a1 x = u1 (x / 3), a2 x = (u2 - 3) (x / 3).

    ``number``: which half of :class:`Hidden` it reads.
    """

    def __init__(self, source: Any, number: int, hidden: Hidden, order: torch.Tensor) -> None:
        super().__init__()
        layer, back = source.hyper[2], order.argsort()  # the channels' places before the shuffle
        weights, biases = layer.weight.detach().chunk(2), (layer.bias.detach() + 3).chunk(2)
        wide = [torch.cat([w * (i == number) for i in range(2)], dim=1) * hidden.reach for w in weights]
        self.up, self.down = (linear(w[back], b[back]) for w, b in zip(wide, biases, strict=True))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[.., C], [1, 2 * hidden] -> [.., C]."""
        up, down = F.relu6(self.up(hidden)), F.relu6(self.down(hidden)) - 3
        return torch.maximum(x * up, x * down)


class MobileFormerMobile(nn.Module):
    """Expand, depthwise, project."""

    def __init__(self, source: Any, before: nn.LayerNorm) -> None:
        super().__init__()
        self.conv1 = scaled(expand(source.conv1), 1 / 3)
        in_order = torch.arange(self.conv1.out_features)
        self.hidden = Hidden((source.hyper1, source.hyper2), before)
        self.hyper1 = DyRelu(source.hyper1, 0, self.hidden, in_order)
        self.conv2 = SpatialConv(source.conv2[0], source.conv2[1])
        scaled(self.conv2.conv, 1 / 3)
        self.hyper2 = DyRelu(source.hyper2, 1, self.hidden, in_order)
        self.conv3 = expand(source.conv3)
        self.shortcut = source.shortcut

    def forward(self, x: torch.Tensor, token: torch.Tensor, height: int) -> tuple[torch.Tensor, int]:
        """[H * W, C], [1, Ct] -> [H * W, C'], and the height as it was."""
        y = self.conv1(x.reshape(1, height, -1, x.shape[1]))  # [H * W, C] -> [1, H, W, C], few channels here
        hidden = self.hidden(token)
        y = self.conv2(self.hyper1(y, hidden))
        y = self.conv3(self.hyper2(y, hidden)).reshape(x.shape[0], -1)  # and back, few again
        return (x + y if self.shortcut else y), height


class DownMobile(nn.Module):
    """Depthwise with stride 2, pointwise; depthwise, pointwise, shortcut."""

    def __init__(self, source: Any, before: nn.LayerNorm) -> None:
        super().__init__()
        self.conv1 = SpatialConv(source.conv1[0], source.conv1[1])
        order1 = reordered(shuffled(source.conv1, source.conv1[0].out_channels), self.conv1.order)
        self.hidden = Hidden((source.hyper1, source.hyper3), before)
        self.hyper1 = DyRelu(source.hyper1, 0, self.hidden, order1)
        self.conv2 = pointwise(source.conv2[0], source.conv2[1], order1)
        self.conv3 = SpatialConv(source.conv3[0], source.conv3[1])
        order3 = reordered(shuffled(source.conv3, source.conv3[0].out_channels), self.conv3.order)
        self.hyper3 = DyRelu(source.hyper3, 1, self.hidden, order3)
        self.conv4 = pointwise(source.conv4[0], source.conv4[1], order3)
        for depthwise in (self.conv1, self.conv3):
            scaled(depthwise.conv, 1 / 3)

    def forward(self, x: torch.Tensor, token: torch.Tensor, height: int) -> tuple[torch.Tensor, int]:
        """[H * W, C], [1, Ct] -> [H * W / 4, C'], and the new height."""
        x = self.conv1(x.reshape(1, height, -1, x.shape[1]))  # [H * W, C] -> [1, H, W, C]
        hidden = self.hidden(token)
        x = self.conv2(self.hyper1(x, hidden))
        x = x + self.conv4(self.hyper3(self.conv3(x), hidden))
        return x.reshape(-1, x.shape[3]), x.shape[1]  # [1, H, W, C] -> [H * W, C]


class Lite(nn.Module):
    """Depthwise, pointwise, shortcut."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        depthwise, norm, _, mix, conv, last = source.conv
        self.conv1 = SpatialConv(depthwise, norm, relu6=True)
        order = reordered(shuffled([mix], conv.in_channels), self.conv1.order)
        self.conv2 = pointwise(conv, last, order)
        self.shortcut = source.shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, W, C] -> [1, H', W', C']."""
        y: torch.Tensor = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y

"""A small variant of each family with the ten classes of Imagenette: what ``benchmarks.train`` trains.

Factories as ``qhyvit build --model-py`` takes them; their weights lie in ``benchmarks/weights``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

CLASSES = 10
IMAGENET = {"interpolation": "bicubic", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _taking(module: nn.Module, size: int) -> nn.Module:
    """The module with what it says of its input: all of a square image, ``size`` pixels."""
    facts: Mapping[str, Any] = {**IMAGENET, "input_size": size, "resize": size}
    module.preprocess = facts  # type: ignore[assignment]
    return module


def _timm(name: str, **options: Any) -> nn.Module:
    from qhyvit.models.shared.timm_models import import_timm

    made: nn.Module = import_timm().create_model(name, pretrained=False, num_classes=CLASSES, **options)
    return made


def mobilevit_imagenette() -> nn.Module:
    """MobileViT-xxs at 128 pixels."""
    return _taking(_timm("mobilevit_xxs"), 128)


def mobilevitv2_imagenette() -> nn.Module:
    """MobileViTv2-0.5 at 128 pixels."""
    return _taking(_timm("mobilevitv2_050"), 128)


def efficientformer_imagenette() -> nn.Module:
    """EfficientFormer-L1's blocks at 128 pixels, narrower and fewer, with attention made for 4 x 4 tokens."""
    from qhyvit.models.shared.timm_models import import_timm

    widths, size = (24, 48, 96, 192), 128
    made = _timm("efficientformer_l1", depths=(2, 2, 4, 2), embed_dims=widths)
    attention = import_timm().models.efficientformer.Attention
    for block in made.modules():
        if isinstance(getattr(block, "token_mixer", None), attention):
            block.token_mixer = attention(widths[-1], resolution=size // 32)
    return _taking(made, size)


def efficientformerv2_imagenette() -> nn.Module:
    """EfficientFormerV2-S0 at 128 pixels."""
    return _taking(_timm("efficientformerv2_s0", img_size=128), 128)


def mobile_former_imagenette() -> nn.Module:
    """Mobile-Former-26M at 128 pixels."""
    from qhyvit.models import find_variant

    family, variant = find_variant("mobile_former_26m")
    return _taking(family.build(variant, CLASSES), 128)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f
    for f in (
        mobilevit_imagenette, mobilevitv2_imagenette, efficientformer_imagenette, efficientformerv2_imagenette,
        mobile_former_imagenette,
    )
}  # fmt: skip


def edgeface_xs() -> nn.Module:
    """EdgeFace-XS, a face embedding (arXiv 2307.01838): EdgeNeXt-x-small with 512 outputs at 112 pixels."""
    from qhyvit.models.shared.timm_models import import_timm

    made: nn.Module = import_timm().create_model("edgenext_x_small", pretrained=False, num_classes=512)
    half = (0.5, 0.5, 0.5)
    facts = {"input_size": 112, "resize": 112, "interpolation": "bilinear", "mean": half, "std": half}
    made.preprocess = facts  # type: ignore[assignment]
    return made


def _mobilevitv2_075(classes: int = 1000) -> Any:
    """MobileViTv2-0.75 at 256 pixels; its preprocessing is the zoo's."""
    from qhyvit.models.shared.timm_models import import_timm

    made: Any = import_timm().create_model("mobilevitv2_075", pretrained=False, num_classes=classes)
    made.preprocess = {
        "input_size": 256, "resize": 288, "interpolation": "bicubic", "mean": (0.0,) * 3, "std": (1.0,) * 3
    }
    return made


class _Headed(nn.Module):
    """A classifier whose logits are mixed by a matrix [outputs, classes]; without one its pooled features."""

    def __init__(self, net: Any, mixing: torch.Tensor | None) -> None:
        super().__init__()
        self.net, self.preprocess = net, net.preprocess
        self.register_buffer("mixing", mixing, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 3, H, W] -> [1, outputs]."""
        features = self.net.forward_head(self.net.forward_features(x), pre_logits=True)
        if self.mixing is None:
            return features
        head = self.net.head.fc
        return nn.functional.linear(features, self.mixing @ head.weight, self.mixing @ head.bias)

    def load_state_dict(self, state: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """The classifier's own weights."""
        return self.net.load_state_dict(state, *args, **options)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """See :meth:`load_state_dict`."""
        return self.net.state_dict(*args, **options)


ANIMALS = 398  # the first classes of ImageNet are animals
LABELS = 20  # of each multilabel head


def _against_rest(groups: Sequence[range]) -> torch.Tensor:
    """Rows [groups, 1000]: mean logit of a group's classes less that of all others."""
    rows = torch.full((len(groups), 1000), 0.0)
    for row, group in zip(rows, groups, strict=True):
        row += -1.0 / (1000 - len(group))
        row[group.start : group.stop] = 1.0 / len(group)
    return rows


def mobilevitv2_075_features() -> nn.Module:
    """MobileViTv2-0.75 without its classifier: an embedding of 384 values."""
    return _Headed(_mobilevitv2_075(), None)


def mobilevitv2_075_one_logit() -> nn.Module:
    """Animal or not, by one logit."""
    return _Headed(_mobilevitv2_075(), _against_rest([range(ANIMALS)]))


def mobilevitv2_075_two_logits() -> nn.Module:
    """Animal or not, by two logits whose difference is that of :func:`mobilevitv2_075_one_logit`."""
    half = _against_rest([range(ANIMALS)]) / 2
    return _Headed(_mobilevitv2_075(), torch.cat([-half, half]))


def mobilevitv2_075_labels() -> nn.Module:
    """Twenty labels: classes 0 to 49, 50 to 99, ..."""
    return _Headed(_mobilevitv2_075(), _against_rest([range(50 * i, 50 * i + 50) for i in range(LABELS)]))


def mobilevitv2_075_attributes() -> nn.Module:
    """Twenty attributes (animal, dog, vehicle ...) by a trained head; ``benchmarks.attributes`` makes the weights."""
    made: nn.Module = _mobilevitv2_075(LABELS)
    return made

"""A small variant of each family with the ten classes of Imagenette: what ``benchmarks.train`` trains.

Factories as ``qhyvit build --model-py`` takes them; their weights lie in ``benchmarks/weights``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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

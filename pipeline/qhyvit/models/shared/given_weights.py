"""Which weights a model gets: a file's, those that are published, random ones; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from qhyvit.errors import InputError, UsageError
from qhyvit.files import is_model_file
from qhyvit.models import find_variant
from qhyvit.models.importers import importer_of
from qhyvit.models.shared.own import is_own
from qhyvit.models.shared.pretrained import (
    PRETRAINED,
    check_classes,
    check_pretrained,
    check_published,
    create,
    published_name,
)
from qhyvit.models.shared.pretrained import is_published as is_published
from qhyvit.models.shared.shards import weights_digest as weights_digest
from qhyvit.models.shared.timm_models import import_timm
from qhyvit.models.shared.weights import load_into, randomize
from qhyvit_device.manifest import RANDOM_WEIGHTS

TIMM = "timm/"
ONE_OF = "give one of --weights FILE, --pretrained and --random-weights"
Weights = Path | Literal["pretrained"] | None  # a file, what is published (PRETRAINED), or none


def choice(weights: Path | None, *, pretrained: bool) -> Weights:
    """What ``--weights`` and ``--pretrained`` together ask for.

    Raises:
        UsageError: both.
    """
    if pretrained and weights is not None:
        raise UsageError(ONE_OF)
    return PRETRAINED if pretrained else weights


def check_weights(model: str | nn.Module, weights: Weights, *, random_weights: bool) -> None:
    """Refuse a name without weights unless random ones are asked for: nobody means to ship these.

    Raises:
        UsageError: no such name; no weights, or none that are published; random ones beside others; any for a file,
            which has its own.
        InputError: there is no such file or folder.
    """
    if isinstance(model, str) and is_model_file(model):
        _check_file(Path(model), weights, random_weights=random_weights)
        return
    if isinstance(model, nn.Module) or is_own(model):
        if random_weights or weights == PRETRAINED:
            way = "--random-weights" if random_weights else "--pretrained"
            raise UsageError(f"{way} is for names; a factory's module keeps its own weights")
        return
    if weights is not None and random_weights:
        raise UsageError(ONE_OF)
    if is_published(model):
        check_published(model)
        return
    if model.startswith(TIMM):
        _check_known_to_timm(model.removeprefix(TIMM))
    else:
        find_variant(model)
    if weights == PRETRAINED:
        check_pretrained(model.removeprefix(TIMM))
    if weights is None and not random_weights:
        raise UsageError(
            f"{model} needs --weights FILE; --pretrained takes those that timm publishes, --random-weights draws some "
            "for a trial"
        )


def _check_file(path: Path, weights: Weights, *, random_weights: bool) -> None:
    if weights is not None or random_weights:
        raise UsageError(f"{path.name} has its weights inside: leave out --weights, --pretrained and --random-weights")
    if not path.is_file():
        raise InputError(f"model file {path} does not exist")
    importer_of(path).check_installed()


def _check_known_to_timm(name: str) -> None:
    timm = import_timm()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise UsageError(f"timm has no model {name!r}; near: {near}")


def filled(module: nn.Module, weights: Weights, model: str, classes: int, seed: int) -> str:
    """Give a module its weights, those of a file or random ones by ``seed``; the words for what it has now.

    Raises:
        InputError, WeightsError: see :func:`qhyvit.models.shared.weights.load_into`.
    """
    if weights is None:
        randomize(module, seed)
        return RANDOM_WEIGHTS
    if weights == PRETRAINED:
        return f"{PRETRAINED} {published_name(module, model)}"
    return load_into(module, weights, model, classes)


def published(model: str, classes: int | None) -> Any:
    """timm's network with the weights that are published.

    Raises:
        InputError, UsageError: see :func:`qhyvit.models.shared.pretrained.create` and ``check_classes`` there.
    """
    module = create(model, pretrained=True)
    check_classes(module, model, classes)
    return module

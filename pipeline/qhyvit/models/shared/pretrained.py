"""Networks with the weights that timm or a hub publishes, by timm's own loader, which keeps what it fetched."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch import nn

from qhyvit.errors import InputError, UsageError
from qhyvit.files import LOCAL_DIR
from qhyvit.models.shared.timm_models import import_timm

HUB = "hf-hub:"
PLACES = (HUB, LOCAL_DIR)  # of networks whose architecture stands in a config.json beside the weights
PRETRAINED: Literal["pretrained"] = "pretrained"  # in the place of a weights file
SITE = "https://huggingface.co"
INDOORS = "HF_HUB_OFFLINE"  # huggingface_hub's own variable
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch's own
NO_SUCH = ("RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError", "HFValidationError")


def is_published(model: str) -> bool:
    """Whether a name says where its weights are: on a hub, or in a folder that was fetched from one."""
    return model.startswith(PLACES)


def check_published(model: str) -> None:
    """Refuse a name of :data:`PLACES` that leads nowhere; a hub is not asked.

    Raises:
        UsageError: nothing behind the colon; InputError: the folder has no ``config.json``.
    """
    place, _, name = model.partition(":")
    if not name:
        raise UsageError(f"{model} needs {'a folder' if place + ':' == LOCAL_DIR else 'OWNER/NAME'} behind the colon")
    if model.startswith(LOCAL_DIR) and not (Path(name) / "config.json").is_file():
        raise InputError(f"{name} has no config.json: {LOCAL_DIR} takes a folder as `hf download` makes it")


def check_pretrained(model: str) -> None:
    """Refuse a name of which timm has no weights.

    Raises:
        UsageError: it has none.
    """
    timm = import_timm()
    found = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    if found is None or not found.has_weights:
        raise UsageError(f"timm has no weights of {model}: give --weights FILE, or --random-weights for a trial")


def create(model: str, *, pretrained: bool, **options: Any) -> Any:
    """timm's network of a name of its own, or of :data:`PLACES`; in eval mode.

    Args:
        pretrained: with the weights that are published, of as many classes as they have.
        options: of ``timm.create_model``.

    Raises:
        InputError: what is published cannot be fetched or read; with what to fetch and where to put it.
    """
    timm = import_timm()
    if not pretrained and not is_published(model):
        return timm.create_model(model, pretrained=False, **options).eval()
    with _quiet_and_safe():
        try:
            return timm.create_model(model, pretrained=pretrained, **options).eval()
        except Exception as error:  # timm, the hub's client and torch raise their own kinds
            raise InputError(_reason(model, error)) from error


def published_name(module: nn.Module, model: str) -> str:
    """What a network's weights are called where they are published."""
    about = getattr(module, "pretrained_cfg", {})
    return model if is_published(model) else str(about.get("hf_hub_id") or about.get("url") or model)


def check_classes(module: nn.Module, model: str, classes: int | None) -> None:
    """Refuse a count of classes that published weights do not have: timm would draw the last layer.

    Raises:
        UsageError: another count.
    """
    own = getattr(module, "num_classes", classes)
    if classes not in (None, own):
        raise UsageError(f"the published weights of {model} have {own} classes; for {classes} give --weights FILE")


@contextlib.contextmanager
def _quiet_and_safe() -> Iterator[None]:
    """No lines about every try, and no code out of pickles: older versions of timm do not always ask torch for that."""
    client, before = logging.getLogger("huggingface_hub"), os.environ.get(WEIGHTS_ONLY)
    level = client.level
    client.setLevel(logging.ERROR)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        client.setLevel(level)
        del os.environ[WEIGHTS_ONLY]
        if before is not None:
            os.environ[WEIGHTS_ONLY] = before


def _reason(model: str, error: Exception) -> str:
    """Why the weights are not there, and what to do, in one line."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if "package not installed" in said:
        return f"{model}: huggingface_hub is not installed; run: pip install huggingface_hub"
    if kinds & {*NO_SUCH}:
        return f"{model}: {SITE} has no such model, or not for you (`hf auth login`): {said}"
    if "OSError" not in kinds or model.startswith(LOCAL_DIR):
        return f"{model} is no network that timm can load: {said}"
    why = f"{INDOORS} is set and it is not in the cache" if _offline() else f"{SITE} cannot be reached"
    if model.startswith(HUB):
        fetch = f"hf download {model.removeprefix(HUB)} --local-dir FOLDER"
        return f"{model}: {why}; run `{fetch}` elsewhere, and name {LOCAL_DIR}FOLDER here"
    about = import_timm().get_pretrained_cfg(model)
    url = f"{SITE}/{about.hf_hub_id}/resolve/main/model.safetensors" if about.hf_hub_id else about.url
    return f"weights of {model}: {why}; fetch {url} elsewhere and give it as --weights FILE"


def _offline() -> bool:
    return os.environ.get(INDOORS, "").lower() in ("1", "true", "yes", "on")

"""Weights from files, and random ones that hide no op."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from qhyvit.errors import InputError, WeightsError

CLASSIFIERS = ("head.fc.weight", "classifier.weight", "classifier.classifier.1.weight", "head.weight", "fc.weight")
PARALLEL = "module."  # what data-parallel training puts before every name


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """State dict of a ``.safetensors`` file, or of a torch file without running code from it.

    Raises:
        InputError: missing, truncated, or no state dict.
    """
    if not path.is_file():
        raise InputError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(str(path))
        # training scripts store their options beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format raises its own kinds on damaged files
        # torch goes on to advise what would run code from the file
        reason = str(error).splitlines()[0].partition(". In PyTorch")[0] if str(error) else type(error).__name__
        raise InputError(f"weights file {path} cannot be read, it is truncated or no weights file: {reason}") from error
    state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"weights file {path} holds no state dict")
    if state and all(key.startswith(PARALLEL) for key in state):
        return {key.removeprefix(PARALLEL): value for key, value in state.items()}
    return state


def _classifier_rows(state: dict[str, torch.Tensor]) -> int | None:
    key = next((k for k in CLASSIFIERS if k in state), None)
    return None if key is None else int(state[key].shape[0])


def load_into(module: nn.Module, path: Path, model: str, classes: int) -> None:
    """Load a weights file strictly; float16 becomes float32.

    Raises:
        InputError: see :func:`load_state`.
        WeightsError: keys or shapes of another model, or another class count.
    """
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_state(path).items()}
    own = module.state_dict()
    optional = {k for k in own if k.endswith("num_batches_tracked")}
    missing = [k for k in own if k not in state and k not in optional]
    extra = [k for k in state if k not in own]
    shapes = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    rows = _classifier_rows(state)
    if not missing and not extra and shapes and rows not in (None, classes):
        raise WeightsError(f"weights {path.name} have {rows} classes, not {classes}; use --classes {rows}")
    if missing or extra or shapes:
        kinds = (("keys missing", missing), ("unknown keys", extra), ("shapes that differ", shapes))
        parts = [f"{len(keys)} {what} (first {keys[0]})" for what, keys in kinds if keys]
        raise WeightsError(f"weights {path.name} do not belong to {model}: {', '.join(parts)}")
    module.load_state_dict(state, strict=False)


def randomize(module: nn.Module, seed: int) -> None:
    """Random values for every 1-D parameter and batch-norm statistic too.

    Fresh timm models start norms at gamma 0 or 1 and biases at 0: the converter then drops whole branches, and
    tests of the export would test less than the model.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.data = 1.0 + 0.2 * noise.abs()
        elif name.endswith("running_mean"):
            value.data = 0.1 * noise
        elif value.dim() == 1 and name.endswith("weight"):
            value.data = 1.0 + 0.2 * noise
        elif name.endswith("gamma"):  # a layer scale: a sum of 35 branches must not saturate softmax
            value.data = 0.1 + 0.05 * noise
        elif value.dim() <= 1:
            value.data = 0.1 * noise
        else:
            fan_in = value[0].numel()
            value.data = noise * (1.5 / max(fan_in, 1)) ** 0.5


def settle(module: nn.Module, input_size: int, seed: int) -> None:
    """Statistics of every batch norm from random pictures, layer by layer, so that values keep their size.

    A deep network of random weights otherwise grows until float32 itself does not compute it. The pictures, [8, 3, H,
    W], differ in what they hold and in their contrast. A variance is at least 1 % of the mean square.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.track_running_stats]
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((8, 3, 8, 8), generator=generator) * torch.linspace(0.5, 2.0, 8)[:, None, None, None]
    pictures = nn.functional.interpolate(coarse, (input_size, input_size), mode="bicubic")
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module(pictures)
        for norm, momentum in zip(norms, momenta, strict=True):
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None
            assert variance is not None
            variance.clamp_(min=1e-6).add_(0.01 * mean**2)
            norm.momentum = momentum
    module.eval()

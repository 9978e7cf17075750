"""What a module gives: logits [1, classes], finite, the same for the same image; anything else is said in a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from qhyvit.errors import ExportError
from qhyvit.models.shared.reason import reason
from qhyvit.models.shared.shape import Shape, channels_first

SAME = 1e-4  # of the largest output, between two runs on one image
SUM = 1e-4  # from 1, of probabilities


def count_classes(name: str, module: nn.Module, shape: Shape) -> int:
    """Outputs of a classifier.

    Raises:
        ExportError: it does not run on its input, gives something else than logits, or has layers of volumes.
    """
    with _called(module) as called:
        try:
            with torch.no_grad():
                logits = module(torch.zeros(channels_first(shape)))
        except SystemExit as error:
            code = error.code
            raise ExportError(f"{name} ended the program when it ran (exit code {code})") from error
        except Exception as error:  # a user's module may raise anything
            first = next(((path, m) for path, m in called if isinstance(m, _ConvNd | nn.Linear)), None)
            raise ExportError(_why_not(name, shape, first, error)) from error
    volumes = [(path, m) for path, m in called if _is_of_volumes(m)]
    if volumes:
        path, layer = volumes[0]
        raise ExportError(
            f"{name} has a {type(layer).__name__} at {path}: TFLite has no integer form of layers of volumes"
        )
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 1 or not logits.is_floating_point():
        raise ExportError(f"{name} gives {_described(logits)}; a classifier gives logits [1, classes], one tensor")
    return int(logits.shape[1])


def check_head(name: str, classes: int) -> None:
    """Refuse heads for which a softmax says nothing.

    Raises:
        ExportError: one output.
    """
    if classes == 1:
        raise ExportError(
            f"{name} gives one output: the softmax of one number is always 1, nothing can be searched or shown by it; "
            "give two logits, torch.cat((torch.zeros_like(z), z), 1), whose softmax is sigmoid(z)"
        )


def check_values(name: str, module: nn.Module, shape: Shape) -> None:
    """Check that a module's parameters and outputs are finite, and that they depend on the image and on nothing else.

    Raises:
        ExportError: they do not, with the cause.
    """
    _check_finite(name, module)
    images = _images(shape)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        before = {key: value.clone() for key, value in module.named_buffers()}
        first, second = module(images[0]), module(images[0])
        changed = [k for k, v in module.named_buffers() if k not in before or not torch.equal(before[k], v)]
        outputs = torch.cat([second, *[module(image) for image in images[1:]]])
    if not bool(outputs.isfinite().all()):
        raise ExportError(f"{name} gives outputs that are not finite (NaN or infinite) for ordinary images")
    if bool((first - second).abs().max() > SAME * first.abs().max()):
        raise ExportError(
            f"{name} gives other outputs when it sees the same image again: {_why_other(module, changed)}"
        )
    if bool((outputs == outputs[:1]).all()):
        raise ExportError(f"{name} gives the same outputs for every image; load trained weights, or look at its head")


def _check_finite(name: str, module: nn.Module) -> None:
    bad = {key: ~value.isfinite() for key, value in module.named_parameters()}
    # a buffer may be a mask of minus infinity
    bad |= {key: value.isnan() | (value == torch.inf) for key, value in module.named_buffers()}
    for key, places in bad.items():
        if bool(places.any()):
            raise ExportError(f"{name}: {key} has {int(places.sum())} values that are not finite (NaN or infinite)")


def gives_probabilities(module: nn.Module, shape: Shape) -> bool:
    """Whether the outputs are at least 0 and sum to 1, as behind a softmax."""
    with torch.no_grad():
        outputs = torch.cat([module(image) for image in _images(shape)])
    return bool((outputs >= 0).all()) and bool(((outputs.sum(dim=1) - 1).abs() < SUM).all())


def _images(shape: Shape) -> list[torch.Tensor]:
    """Noise, faint noise, and a ramp, normalised: [1, C, H, W] each."""
    noise = torch.rand(channels_first(shape), generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(-2, 2, shape[1]).expand(channels_first(shape))
    return [noise, 0.1 * noise.flip(3), ramp.clone()]


@contextlib.contextmanager
def _called(module: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Collects the path of each module inside whose forward runs, in order, with it."""
    found: list[tuple[str, nn.Module]] = []
    handles = [
        inner.register_forward_pre_hook(lambda m, _, path=path: found.append((path, m)))
        for path, inner in module.named_modules()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _is_of_volumes(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.") and type(module).__name__.endswith("3d")


def _why_not(name: str, shape: Shape, first: tuple[str, Any] | None, error: Exception) -> str:
    """One line about a run that failed; the first layer with weights tells when it is made for other channels."""
    if first is not None and isinstance(first[1], _ConvNd) and first[1].in_channels != shape[2]:
        path, count = first[0], first[1].in_channels
        channels = f"{count} channel{'s' if count > 1 else ''}"
        return f"{name} takes {channels}: its first convolution, {path}, does; input_size says {shape[2]}"
    return f"{name} does not run on {list(channels_first(shape))}: {reason(error)}"


def _described(found: Any) -> str:
    """A module's output in a few words."""
    if isinstance(found, torch.Tensor):
        return f"{list(found.shape)}" + ("" if found.is_floating_point() else f" of {found.dtype}")
    parts = list(found.values()) if isinstance(found, dict) else found
    if isinstance(parts, list | tuple):
        shapes = [str(list(p.shape)) if isinstance(p, torch.Tensor) else type(p).__name__ for p in parts]
        return f"a {type(found).__name__} of {', '.join(shapes) or 'nothing'}"
    return f"a {type(found).__name__}"


def _why_other(module: nn.Module, changed: list[str]) -> str:
    """What makes two runs differ."""
    if changed:
        return f"its forward changes the buffer {changed[0]}, and a file keeps nothing from one image to the next"
    training = [path for path, m in module.named_modules() if m.training]
    if training:
        return f"{training[0] or 'it'} stays in training mode after eval()"
    return "its forward draws random numbers (F.dropout needs training=self.training) or keeps something"

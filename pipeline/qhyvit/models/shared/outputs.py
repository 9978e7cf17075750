"""What a module gives: tensors [1, ...], finite, the same for the same image; anything else is said in a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from qhyvit.errors import ExportError
from qhyvit.models.shared.modules import Called, ChannelsLast, FromChannelsFirst, Reversed
from qhyvit.models.shared.reason import reason
from qhyvit.models.shared.shape import Shape, channels_first

SAME = 1e-4  # of the largest output, between two runs on one image
SUM = 1e-4  # from 1, of probabilities


def output_shapes(name: str, module: nn.Module, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Shape of each output, the batch of 1 included, by name; see :func:`tensors_of`.

    Raises:
        ExportError: it does not run on its input, gives something else than tensors [1, ...] of floats, or has layers
            of volumes.
    """
    with _called(module) as called:
        try:
            with torch.no_grad():
                found = module(torch.zeros(channels_first(shape)))
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
    outputs = tensors_of(found)
    fits = bool(outputs) and all(t.is_floating_point() and len(t) == 1 and t.dim() <= 4 for t in outputs.values())
    if not fits:
        raise ExportError(
            f"{name} gives {_described(found)}; every output has to be a tensor of floats [1, ...], of rank 4 at most"
        )
    return {key: tuple(t.shape) for key, t in outputs.items()}


def tensors_of(found: Any) -> dict[str, torch.Tensor]:
    """The tensors of what a module gives, by name, in its order.

    A tensor is called "output", a lone number (which becomes [1, 1]) "value", those of a list or tuple output_0,
    output_1, ..., those of a dictionary (also the output objects of transformers) by their keys. Anything else than
    tensors (None, a cache) is passed over where there are tensors; nested lists are gone into.
    """
    if isinstance(found, torch.Tensor):
        return {"value": found.reshape(1, 1)} if found.dim() < 2 and found.numel() == 1 else {"output": found}
    parts: Any = ()
    if isinstance(found, Mapping):
        parts = [(str(key), value) for key, value in found.items()]
    elif isinstance(found, list | tuple):
        parts = [(f"output_{i}", value) for i, value in enumerate(found)]
    inside = {}
    for key, value in parts:
        for below, tensor in tensors_of(value).items():
            inside[key if below == "output" else f"{key}.{below}"] = tensor
    return inside


class GivesOutputs(nn.Module):
    """The tensors of what a module gives, as a tuple, in the form of a task."""

    def __init__(self, net: nn.Module, *, channels_last: bool) -> None:
        super().__init__()
        self.net, self.channels_last = net, channels_last

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The net's input -> [1, ...] each; maps [1, C, H, W] as [1, H, W, C] where channels are wanted last."""
        found = tensors_of(self.net(x)).values()
        return tuple(t.permute(0, 2, 3, 1) if self.channels_last and t.dim() == 4 else t for t in found)


# around somebody's network: no part of names inside
OURS = (Called, ChannelsLast, FromChannelsFirst, Reversed, GivesOutputs)


def rows_of(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Outputs [B, ...] of a module, one after the other, [B, N]."""
    return torch.cat([t.flatten(1) for t in outputs], dim=1)


def check_values(name: str, module: nn.Module, shape: Shape) -> None:
    """Check that a module's parameters and outputs are finite, and that they depend on the image and on nothing else.

    Raises:
        ExportError: they do not, with the cause.
    """
    _check_finite(name, module)
    images = _images(shape)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        before = {key: value.clone() for key, value in module.named_buffers()}
        first, second = _rows(module, images[0]), _rows(module, images[0])
        changed = [k for k, v in module.named_buffers() if k not in before or not torch.equal(before[k], v)]
        outputs = torch.cat([second, *[_rows(module, image) for image in images[1:]]])
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
    """Whether the outputs of a classifier are at least 0 and sum to 1, as behind a softmax."""
    with torch.no_grad():
        outputs = torch.cat([_rows(module, image) for image in _images(shape)])
    return bool((outputs >= 0).all()) and bool(((outputs.sum(dim=1) - 1).abs() < SUM).all())


def _rows(module: nn.Module, image: torch.Tensor) -> torch.Tensor:
    return rows_of([*tensors_of(module(image)).values()])


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

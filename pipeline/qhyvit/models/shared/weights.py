"""Weights from files, and random ones that hide no op."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from qhyvit.errors import WeightsError
from qhyvit.models.shared.shape import Shape
from qhyvit.models.shared.state_dicts import State, read_sets

CLASSIFIERS = ("head.fc.weight", "classifier.weight", "classifier.classifier.1.weight", "head.weight", "fc.weight")
STATISTICS = ("running_mean", "running_var")  # of batch norms
AVERAGED = ("ema", "swa", "averaged")  # of prefixes: taken before the weights that they are the mean of
COMPILED, PARALLEL = "_orig_mod.", "module."  # what torch.compile and data-parallel training put into names


def load_into(module: nn.Module, path: Path, model: str, classes: int) -> str:
    """Load a weights file strictly, as float32; the words for what was loaded.

    Of several sets in a file (averaged ones first: ``state_dict_ema``, ..., ``state_dict``, ``model``, ...) that is
    taken whose names first fit the module's. A prefix of all names is left out where that makes them match, and so are
    torch.compile's and data-parallel training's within a name.

    Raises:
        InputError: see :func:`qhyvit.models.shared.state_dicts.read_sets`.
        WeightsError: names or shapes of another model, another class count, values that are not finite or no floats.
    """
    own, sets = module.state_dict(), read_sets(path)
    fitting = {name: found for name, state in sets.items() if (found := _renamed(state, own)) is not None}
    if not fitting:
        first = _plain(next(iter(sets.values())))
        raise WeightsError(f"weights {path.name} do not belong to {model}: {_differences(first, own)}")
    name, (state, prefix, left) = next(iter(fitting.items()))
    shapes = [k for k, v in state.items() if own[k].shape != v.shape]
    rows = _classifier_rows(state)
    if shapes and rows not in (None, classes):
        raise WeightsError(f"weights {path.name} have {rows} classes, not {classes}; use --classes {rows}")
    if shapes:
        raise WeightsError(f"weights {path.name} do not belong to {model}: {_differences(state, own)}")
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    _check_values(state, module, path)
    module.load_state_dict(state, strict=False)
    others = f", not {', '.join(k for k in sets if k != name)}" if len(sets) > 1 else ""
    words = [f"{name}{others}"] if name else []
    words += [f"{prefix}* alone, without {left} other entries"] if left else []
    return f"{path.name} ({'; '.join(words)})" if words else path.name


def _optional(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _plain(state: State) -> State:
    """Names without what training wraps around all of them."""
    for prefix in (COMPILED, PARALLEL, COMPILED):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _renamed(state: State, own: State) -> tuple[State, str, int] | None:
    """The entries by the module's own names, the prefix that they had, and how many others there are.

    None where some of its names are missing.

    Others are passed over only where a prefix tells them apart from the module's.
    """
    needed = [name for name in own if not _optional(name)]
    for parts in ((), (COMPILED,), (COMPILED, PARALLEL)):
        names = {_without(name, parts): value for name, value in state.items()}
        if len(names) < len(state):
            continue
        longest = max(needed, key=len, default="")
        prefixes = [n.removesuffix(longest) for n in names if n == longest or n.endswith(f".{longest}")]
        for prefix in sorted(prefixes, key=_rank):
            found = {n.removeprefix(prefix): v for n, v in names.items() if n.startswith(prefix)}
            if all(name in found for name in needed) and all(name in own for name in found):
                return found, prefix, len(names) - len(found)
    return None


def _rank(prefix: str) -> tuple[bool, bool, int]:
    """The prefix that is taken first: of an average; of a teacher, which may be another network, last."""
    words = prefix.replace("_", ".").split(".")
    return "teacher" in words, not any(word in words for word in AVERAGED), len(prefix)


def _without(name: str, parts: tuple[str, ...]) -> str:
    for part in parts:
        name = f".{name}".replace(f".{part}", ".").removeprefix(".")
    return name


def _differences(state: State, own: State) -> str:
    missing = [k for k in own if k not in state and not _optional(k)]
    extra = [k for k in state if k not in own]
    shapes = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    kinds = (("keys missing", missing), ("unknown keys", extra), ("shapes that differ", shapes))
    return ", ".join(f"{len(keys)} {what} (first {keys[0]})" for what, keys in kinds if keys)


def _classifier_rows(state: State) -> int | None:
    key = next((k for k in CLASSIFIERS if k in state), None)
    return None if key is None or not state[key].dim() else int(state[key].shape[0])


def _check_values(state: State, module: nn.Module, path: Path) -> None:
    """Refuse what is no weight of a float network; a buffer may hold infinities, as masks do.

    Raises:
        WeightsError: with the tensor's name.
    """
    parameters, own = {name for name, _ in module.named_parameters()}, module.state_dict()
    for name, value in state.items():
        if value.is_complex() or (own[name].is_floating_point() and not value.is_floating_point()):
            kind = str(value.dtype).removeprefix("torch.")
            raise WeightsError(f"weights {path.name}: {name} holds {kind}, the model has floats; save float weights")
        if value.isnan().any() or (name in parameters and value.isinf().any()):
            raise WeightsError(f"weights {path.name}: {name} holds NaN or infinite values (in float32)")


def randomize(module: nn.Module, seed: int) -> None:
    """Random values for every 1-D parameter and batch-norm statistic too; other buffers are constants of the network.

    Fresh timm models start norms at gamma 0 or 1 and biases at 0: the converter then drops whole branches, and
    tests of the export would test less than the model.
    """
    generator = torch.Generator().manual_seed(seed)
    statistics = [(name, value) for name, value in module.named_buffers() if name.endswith(STATISTICS)]
    for name, value in [*module.named_parameters(), *statistics]:
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


def settle(module: nn.Module, shape: Shape, seed: int) -> None:
    """Statistics of every batch norm from random pictures, layer by layer, so that values keep their size.

    A deep network of random weights otherwise grows until float32 itself does not compute it. The pictures, [8, C, H,
    W], differ in light, contrast and what they hold, and are nearly gray, as photographs are. A variance is the mean
    square: divided by less, the little that is left of a picture behind many random layers would be blown up, and
    rounding errors with it.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.track_running_stats]
    generator = torch.Generator().manual_seed(seed)
    kinds = (1, 8, 8), (shape[2], 8, 8), (1, 1, 1)
    gray, color, light = (torch.randn(8, *kind, generator=generator) for kind in kinds)
    coarse = light + (gray + 0.3 * color) * torch.linspace(0.5, 2.0, 8)[:, None, None, None]
    pictures = nn.functional.interpolate(coarse, shape[:2], mode="bicubic")
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
            variance.clamp_(min=1e-6).add_(mean**2)
            norm.momentum = momentum
    module.eval()

"""Equivalents of known sub-modules, put in their places inside somebody's network; the rest stays as it is.

A sub-module is known by its class, and its equivalent is taken only where it computes the same in float64 on what the
network feeds it: a subclass, another implementation under the same name or an unusual option may not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from qhyvit.errors import ExportError
from qhyvit.models import all_families
from qhyvit.models.shared.family import Family, is_a
from qhyvit.models.shared.mobile_former_net import MobileFormer
from qhyvit.models.shared.modules import ChannelsLast, FromChannelsFirst
from qhyvit.models.shared.outputs import OURS, rows_of, tensors_of
from qhyvit.models.shared.reason import first_line
from qhyvit.models.shared.shape import Shape, channels_first
from qhyvit.models.shared.timm_models import import_timm
from qhyvit.progress import Log, silent

Make = Callable[[Any, Shape], nn.Module]
DIFFERENCE = 1e-6  # of an equivalent in float64, of the largest output; an eps forgotten in a norm is more
MERGED_DIFFERENCE = 1e-3  # of merged branches in float32
SHELF = all_families.__module__  # the package that equivalents are written in


def with_equivalents(module: nn.Module, shape: Shape, log: Log = silent) -> nn.Module:
    """A copy that takes [1, H, W, C], with an equivalent for each known sub-module that has one.

    Args:
        module: in eval mode, takes [1, C, H, W]; it is left as it is.
        shape: height, width and channels of its input.
        log: is told of each known sub-module that has to stay, and why.
    """
    root = ChannelsLast(copy.deepcopy(module))
    fed = _inputs(root.net, shape)
    _replace(root, "", fed, log)
    if isinstance(root.net, FromChannelsFirst):  # the whole network is a family's: it takes [1, H, W, C] itself
        whole: nn.Module = root.net.net.eval()
        return whole
    return ChannelsLast(_merged(root.net, shape, log)).eval()


def as_it_is(module: nn.Module, shape: Shape, log: Log = silent) -> nn.Module:
    """A copy that takes [1, H, W, C], with no more than its branches merged."""
    return ChannelsLast(_merged(copy.deepcopy(module), shape, log)).eval()


def equivalents_in(module: nn.Module) -> dict[str, str]:
    """Class of each equivalent in a module of :func:`with_equivalents`, by its path; "" is the whole."""
    found: dict[str, str] = {}

    def walk(m: nn.Module, path: str) -> None:
        if isinstance(m, OURS):
            walk(m.net, path)
        elif type(m).__module__.startswith(f"{SHELF}.") and type(m).__module__ != MobileFormer.__module__:
            found[path] = type(m).__name__
        else:
            for name, child in m.named_children():
                walk(child, f"{path}.{name}" if path else name)

    walk(module, "")
    return found


def _makers(module: nn.Module) -> list[tuple[str, Make]]:
    """What may make an equivalent of this very module, the larger first, each with the name of its kind."""
    found: list[tuple[str, Make]] = []
    for family in all_families().values():
        if family.is_network(module):
            found.append((family.name, partial(_whole, family)))
        found += [(family.name, make) for kind, make in family.blocks.items() if is_a(module, kind)]
    return found


def _whole(family: Family, module: nn.Module, shape: Shape) -> nn.Module:
    return FromChannelsFirst(family.rewrite(module, shape))


def _inputs(net: nn.Module, shape: Shape) -> dict[nn.Module, list[tuple[Any, ...]]]:
    """What each module that may have an equivalent is fed, call by call."""
    fed: dict[nn.Module, list[tuple[Any, ...]]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        fed.setdefault(module, []).append((*args, *kwargs.values()))

    known = [m for m in net.modules() if _makers(m)]
    handles = [m.register_forward_pre_hook(note, with_kwargs=True) for m in known]
    with torch.no_grad():
        net(_image(shape))
    for handle in handles:
        handle.remove()
    return fed


def _image(shape: Shape) -> torch.Tensor:
    return torch.rand(channels_first(shape), generator=torch.Generator().manual_seed(0))


def _replace(parent: nn.Module, path: str, fed: dict[nn.Module, list[tuple[Any, ...]]], log: Log) -> None:
    for name, child in parent.named_children():
        below = f"{path}.{name}" if path else name
        new = _equivalent(child, below.removeprefix("net.") if path else "the network", fed, log)
        if new is None:
            _replace(child, below, fed, log)
        else:
            parent._modules[name] = new


def _equivalent(module: nn.Module, path: str, fed: dict[nn.Module, list[tuple[Any, ...]]], log: Log) -> Any:
    """An equivalent that was tried, or None."""
    if module not in fed:  # is not known, or its forward never runs: what runs are its parts
        return None
    for label, make in _makers(module):
        try:
            return _tried(module, make, fed[module])
        except Exception as error:  # a user's module may be anything below the name that we know
            log(f"{path} ({type(module).__name__}) stays as it is, not in the form of {label}: {first_line(error)}")
    return None


def _tried(module: nn.Module, make: Make, calls: list[tuple[Any, ...]]) -> nn.Module:
    """Make an equivalent, and compare it in float64 on what the module is fed and on noise as loud.

    Raises:
        ExportError: it computes something else, or the module is used in a way that no equivalent knows.
    """
    shapes = {tuple(x.shape) if isinstance(x, torch.Tensor) else () for call in calls for x in call}
    found = next(iter(shapes), ())
    if len(shapes) != 1 or len(found) != 4 or any(len(call) != 1 for call in calls):
        raise ExportError(f"it is fed {', '.join(str(list(s)) for s in sorted(shapes))}, not one map of one size")
    if any(m._forward_hooks or m._forward_pre_hooks for m in module.modules()):
        raise ExportError("it has forward hooks")
    _, channels, height, width = found
    shape = height, width, channels
    with _double(), torch.no_grad():
        exact = copy.deepcopy(module).double()
        made, x = make(exact, shape).eval(), calls[0][0].double()
        noise = torch.randn(found, generator=torch.Generator().manual_seed(1)) * x.std() + x.mean()
        differences = [_difference(made(v), exact(v)) for v in (x, noise)]
    if not max(differences) < DIFFERENCE:
        raise ExportError(f"its outputs would differ by {max(differences):.1e} of the largest")
    return make(module, shape).eval()


@contextmanager
def _double() -> Iterator[None]:
    """New tensors are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the largest output; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _merged(net: nn.Module, shape: Shape, log: Log) -> nn.Module:
    """The module with branches merged that timm can merge, where it computes the same then."""
    import_timm()
    from timm.utils.model import reparameterize_model

    x = _image(shape)
    try:
        with torch.no_grad():
            merged: nn.Module = reparameterize_model(net).eval()
            difference = _difference(*(rows_of([*tensors_of(m(x)).values()]) for m in (merged, net)))
        if not difference < MERGED_DIFFERENCE:
            raise ExportError(f"the outputs would differ by {difference:.1e} of the largest")
    except Exception as error:  # a method called ``fuse`` may be anybody's
        log(f"branches stay as they are, not merged: {first_line(error)}")
        return net
    return merged

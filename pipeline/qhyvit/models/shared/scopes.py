"""Which module of the user's network each tensor of a converted file came from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from qhyvit.models.shared.outputs import OURS
from qhyvit.tflite import flatbuffer


def scope_chains(module: nn.Module) -> dict[str, str]:
    """litert-torch's scope chain of every module, ``pkg.Root/pkg.Class_child/...`` -> module path ``child...``."""

    def qualified(m: nn.Module) -> str:
        return f"{type(m).__module__}.{type(m).__qualname__}"

    chains = {}

    def walk(m: nn.Module, chain: str, path: str) -> None:
        for name, child in m.named_children():
            below = f"{path}.{name}" if path else name
            if isinstance(m, OURS):  # are ours: no part of a path
                below = path
            if isinstance(child, nn.ModuleList):  # is never called itself: no part of a chain
                walk(child, chain, below)
                continue
            chains[f"{chain}/{qualified(child)}_{name}"] = below
            walk(child, f"{chain}/{qualified(child)}_{name}", below)

    walk(module, qualified(module), "")
    return chains


def module_of(tensor_name: str, chains: Mapping[str, str]) -> str:
    """Module path that a tensor of the file came from, "" where its name does not tell.

    A name lists scope chains, separated by ``;``; long ones are cut at the front, so the chain must end with what
    is left, and only one chain may. A module whose forward is not called (``net.backbone.forward_features(x)``) is
    missing from the chains of those within.
    """
    for part in tensor_name.split(";"):
        if part in chains:
            return chains[part]
        ending = {path for chain, path in chains.items() if "/" in part and chain.endswith(part)}
        ending = ending or {path for chain, path in chains.items() if "/" in part and _leaves_out(part, chain)}
        if len(ending) == 1:
            return ending.pop()
    return ""


def _leaves_out(part: str, chain: str) -> bool:
    """Whether ``part`` is ``chain`` without some modules before the last."""
    whole = iter(chain.split("/"))
    links = part.split("/")
    return all(link in whole for link in links) and next(whole, None) is None


def modules_of(data: bytes, module: nn.Module) -> dict[str, str]:
    """Path of the module that each tensor of a file came from, by the tensor's name, where the name tells."""
    chains = scope_chains(module)
    subgraph = flatbuffer.load_model(data).subgraphs[0]
    names = [flatbuffer.text(subgraph.tensors[t].name) for o in subgraph.operators for t in o.outputs]
    found = {name: module_of(name, chains) for name in names}
    return {name: path for name, path in found.items() if path}

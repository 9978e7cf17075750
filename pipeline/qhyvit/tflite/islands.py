"""Profiles of a file: which nodes compute in float. ``integer`` has none; ``cpu`` those whose int8 kernels lose.

SOFTMAX and RSQRT have no int8 kernel in XNNPACK and coarse ones in TFLite (softmax's output step is 1/256, whatever
its range); in float they run on few elements between a DEQUANTIZE and a QUANTIZE. In the ``integer`` profile a softmax
may write int16, with a step of 1/65536, before a QUANTIZE: then its int8 codes have a scale of their own too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from qhyvit.errors import UsageError
from qhyvit.graph.ir import Graph, Node

PROFILES = ("integer", "cpu")
FLOAT_OPS = ("SOFTMAX", "RSQRT")
LEADS = ("ADD",)  # the eps before a reciprocal root
# What int16 costs over int8, milliseconds an element on one core: the builtin kernels, and two QUANTIZE
WIDE_MS = {"SOFTMAX": 7.5e-6}
# Equal attention to so many positions has weights of 1/512, which int8 softmax rounds to zero, all of them
LONG_SOFTMAX = 512


def check_profile(profile: str) -> None:
    """Refuse what is no profile.

    Raises:
        UsageError: no such profile.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; there are {', '.join(PROFILES)}")


def with_profile(graph: Graph, profile: str) -> Graph:
    """The graph with ``floats`` set as the profile wants.

    Raises:
        UsageError: no such profile.
    """
    check_profile(profile)
    floats = {t for node in graph.nodes if profile == "cpu" and _pays(graph, node) for t in node.outputs}
    return replace(graph, floats=frozenset(floats))


def widened(graph: Graph, names: Iterable[str]) -> Graph:
    """The graph with the nodes that write the tensors ``names`` computed in int16."""
    ids = {graph.by_name[name].id for name in names}
    return replace(graph, floats=graph.floats | ids, wide=graph.wide | ids)


def long_softmaxes(graph: Graph) -> list[str]:
    """Names of the softmax outputs that int8 softmax may round to nothing: every method needs int16 there."""
    outputs = [graph.tensors[n.outputs[0]] for n in graph.nodes if n.op == "SOFTMAX"]
    return [t.name for t in outputs if t.shape[-1] >= LONG_SOFTMAX]


def wide_cost_ms(graph: Graph, tensor: int) -> float | None:
    """What computing ``tensor`` in int16 costs; None if it can't, or runs outside int8 already."""
    node = graph.producer(tensor)
    if node is None or node.op not in WIDE_MS or graph.is_float(node):
        return None
    return WIDE_MS[node.op] * math.prod(graph.tensors[tensor].shape)


def _pays(graph: Graph, node: Node) -> bool:
    if node.op in FLOAT_OPS:
        return True
    users = graph.users(node.outputs[0])
    return node.op in LEADS and bool(users) and all(u.op == "RSQRT" for u in users)

"""Profiles of a file: which nodes compute in float. ``integer`` has none; ``cpu`` those whose int8 kernels lose.

SOFTMAX and RSQRT have no int8 kernel in XNNPACK and coarse ones in TFLite (softmax's output step is 1/256, whatever
its range); in float they run on few elements between a DEQUANTIZE and a QUANTIZE.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.errors import UsageError
from qhyvit.graph.ir import Graph, Node

PROFILES = ("integer", "cpu")
FLOAT_OPS = ("SOFTMAX", "RSQRT")
LEADS = ("ADD",)  # the eps before a reciprocal root


def with_profile(graph: Graph, profile: str) -> Graph:
    """The graph with ``floats`` set as the profile wants.

    Raises:
        UsageError: no such profile.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; there are {', '.join(PROFILES)}")
    floats = {t for node in graph.nodes if profile == "cpu" and _pays(graph, node) for t in node.outputs}
    return replace(graph, floats=frozenset(floats))


def _pays(graph: Graph, node: Node) -> bool:
    if node.op in FLOAT_OPS:
        return True
    users = graph.users(node.outputs[0])
    return node.op in LEADS and bool(users) and all(u.op == "RSQRT" for u in users)

"""Profiles of a file: which nodes compute in float. ``integer`` has none; ``cpu`` those that are faster so.

SOFTMAX and RSQRT have no int8 kernel in XNNPACK and coarse ones in TFLite (softmax's output step is 1/256, whatever
its range); in float they run on few elements between a DEQUANTIZE and a QUANTIZE. In the ``integer`` profile a softmax
may write int16, with a step of 1/65536, before a QUANTIZE: then its int8 codes have a scale of their own too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from qhyvit.errors import UsageError
from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile, default_profile
from qhyvit.latency.work import INT8, INT16, Work, work_of
from qhyvit.ops import spec
from qhyvit.plan import PROFILES
from qhyvit.tflite.placement import Worth, is_long_softmax, place


def check_profile(profile: str) -> None:
    """Refuse what is no profile.

    Raises:
        UsageError: no such profile.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; there are {', '.join(PROFILES)}")


def with_profile(
    graph: Graph, profile: str, latency: LatencyProfile | None = None, worth: Worth | None = None
) -> Graph:
    """The graph with ``floats`` set as the profile wants: in ``integer`` they are int16, and none without a ``worth``.

    Args:
        latency: times of the kernels; None: the default.
        worth: what accuracy is worth in milliseconds; None: nothing.

    Raises:
        UsageError: no such profile.
    """
    check_profile(profile)
    latency = latency or default_profile()
    if profile == "cpu":
        return replace(graph, floats=place(graph, latency, worth), wide=frozenset())
    if worth is None:
        return replace(graph, floats=frozenset(), wide=frozenset())
    return replace(graph, floats=graph.wide | place(graph, latency, worth, int16=True))


def with_floats(graph: Graph, names: Iterable[str]) -> Graph:
    """The graph with the nodes that write the tensors ``names`` computed in float, and no others."""
    return replace(graph, floats=frozenset(graph.by_name[name].id for name in names), wide=frozenset())


def with_gates(graph: Graph, names: Iterable[str]) -> Graph:
    """The graph with the nodes that write the tensors ``names`` marked as gates, and no others."""
    return replace(graph, gates=frozenset(graph.by_name[name].id for name in names))


def may_be_float(graph: Graph, tensor: int) -> bool:
    """Whether the node that writes ``tensor`` has no weights, which are always int8."""
    node = graph.producer(tensor)
    return node is not None and spec(node.op).weight_input < 0


def widened(graph: Graph, names: Iterable[str]) -> Graph:
    """The graph with the nodes that write the tensors ``names`` computed in int16."""
    ids = {graph.by_name[name].id for name in names}
    return replace(graph, floats=graph.floats | ids, wide=graph.wide | ids)


def long_softmaxes(graph: Graph) -> list[str]:
    """Names of the softmax outputs that int8 softmax may round to nothing: every method needs int16 there."""
    return [graph.tensors[n.outputs[0]].name for n in graph.nodes if is_long_softmax(graph, n)]


def wide_cost_ms(graph: Graph, tensor: int, latency: LatencyProfile) -> float | None:
    """What computing ``tensor`` in int16 costs; None if it can't, is not known, or runs outside int8 already."""
    node = graph.producer(tensor)
    if node is None or spec(node.op).wide is None or graph.is_float(node):
        return None
    narrow, wide = (latency.ms(work_of(graph, node, INT8, writes)) for writes in (INT8, INT16))
    back = latency.ms(Work(f"QUANTIZE {INT16}>{INT8}", work_of(graph, node, INT8, INT16).elements))
    return None if narrow is None or wide is None or back is None else max(wide + back - narrow, 0.0)

"""A graph as text: one line a node, stable, for reading and for golden tests."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from typing import Any

from qhyvit.graph.ir import Graph
from qhyvit_device.terminal import shown


def _attrs(attrs: Any) -> str:
    if not is_dataclass(attrs) or isinstance(attrs, type):
        return ""
    defaults = {f.name: f.default for f in fields(attrs)}
    set_ones = {k: v for k, v in asdict(attrs).items() if v != defaults[k]}
    return " {" + ", ".join(f"{k}={v}" for k, v in set_ones.items()) + "}" if set_ones else ""


def dump(graph: Graph) -> str:
    """Inputs, nodes in execution order with names and shapes, outputs."""
    tensors = graph.tensors

    def show(t: int) -> str:
        if t < 0:
            return "-"
        tensor = tensors[t]
        mark = "const " if tensor.is_constant else ""
        return f"{mark}{shown(tensor.name)}{list(tensor.shape)}"

    lines = [f"input {show(t)}" for t in graph.inputs]
    for index, node in enumerate(graph.nodes):
        outs, ins = ", ".join(show(t) for t in node.outputs), ", ".join(show(t) for t in node.inputs)
        lines.append(f"{index:4d} {node.op}{_attrs(node.attrs)} ({ins}) -> {outs}")
    lines += [f"output {show(t)}" for t in graph.outputs]
    return "\n".join(lines) + "\n"

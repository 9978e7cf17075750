"""What a module does with an image, as a graph of torch's functions in which everything else is a constant.

Modules that converters made hold shapes in tensors. ``torch.export`` takes these for data that may change, and refuses
to make a shape of them; here they are numbers, because they do not depend on the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qhyvit.errors import ExportError

NODE = "qhyvit_node"  # attribute of a tensor that depends on the image: its node in the graph
JOINS = ("cat", "concat", "stack")  # take lists of tensors; numbers in other lists are sizes, axes and places
SIZED = ("expand", "permute", "repeat", "reshape", "tile", "view")  # take sizes and axes one by one as well
# of tensors: what they give is no tensor, and depends on the values
VALUES = ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero")


def recorded(module: nn.Module, image: torch.Tensor) -> fx.GraphModule:
    """A module in eval mode as what it does with ``image``; its outputs as it gives them.

    Raises:
        ExportError: a shape or a branch depends on the image's values.
    """
    recorder = _Recorder()
    with torch.no_grad():
        image = image.clone()
        recorder.marked(image, recorder.graph.placeholder("image"))
        with recorder:
            found = module(image)
        recorder.graph.output(fx.node.map_aggregate(found, recorder.node_of))
    return fx.GraphModule(recorder.root, recorder.graph).eval()


class _Recorder(TorchFunctionMode):
    """Notes each function of torch that is called with something that depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.graph, self.root = fx.Graph(), nn.Module()
        self.names: dict[int, str] = {}  # of constants, by their identity; the root keeps them

    def marked(self, tensor: torch.Tensor, node: fx.Node) -> None:
        setattr(tensor, NODE, node)

    def node_of(self, value: Any) -> Any:
        """What stands in the graph for an argument."""
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, torch.Tensor):
            return value
        node = getattr(value, NODE, None)
        return self._constant(value) if node is None else node

    def _constant(self, value: torch.Tensor) -> fx.Node:
        name = self.names.get(id(value))
        if name is None:
            name = self.names[id(value)] = f"constant_{len(self.names)}"
            self.root.register_buffer(name, value)
        return self.graph.get_attr(name)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        given = dict(kwargs or {})
        found = func(*args, **given)
        leaves = pytree.tree_leaves((args, given))
        if not any(isinstance(leaf, torch.Tensor) and hasattr(leaf, NODE) for leaf in leaves):
            return found
        name = getattr(func, "__name__", "")
        if name in VALUES:
            raise ExportError("it has a shape or a branch that depends on the image's values (control flow)")
        results = found if isinstance(found, list | tuple) else [found]
        if not results or not all(isinstance(t, torch.Tensor) for t in results):
            return found  # a shape, a type: the same for every image
        self._note(func, name, args, given, found)
        return found

    def _numbers(self, name: str, given: Any) -> Any:
        """Whole numbers that a function takes one by one, or in lists, in the place of tensors that hold them."""

        def number(value: Any) -> Any:
            fixed = isinstance(value, torch.Tensor) and not hasattr(value, NODE)
            return value.item() if fixed and not value.dim() and not value.is_floating_point() else value

        if name in SIZED:
            return pytree.tree_map(number, given)
        if name in JOINS or not isinstance(given, list | tuple):
            return given
        return type(given)(pytree.tree_map(number, v) if isinstance(v, list | tuple) else v for v in given)

    def _note(self, func: Any, name: str, args: tuple[Any, ...], given: dict[str, Any], found: Any) -> None:
        args, given = self._numbers(name, args), {key: self._numbers(name, v) for key, v in given.items()}
        call = fx.node.map_aggregate((args, given), self.node_of)
        if name == "__get__":  # of a property such as T
            node = self.graph.call_function(getattr, (call[0][0], func.__self__.__name__))
        else:
            node = self.graph.call_function(func, *call)
        if isinstance(found, torch.Tensor):
            self.marked(found, node)
            return
        for index, tensor in enumerate(found):
            self.marked(tensor, self.graph.call_function(_part, (node, index)))


def _part(found: Any, index: int) -> torch.Tensor:
    tensor: torch.Tensor = found[index]
    return tensor

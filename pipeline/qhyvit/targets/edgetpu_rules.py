"""Google's Edge TPU (Coral) by the published rules of its compiler, which is no Python package and was not run.

Source: https://coral.ai/docs/edgetpu/models-intro/#supported-operations, for compiler 16 and runtime 14. Its rows from
ADD to RESIZE_BILINEAR were read in a copy by Axis (developer.axis.com, ARTPEC-7, supported ops), the others in a
shorter one of 2019. That TRANSPOSE and TRANSPOSE_CONV came later, issues 193 and 684 of google-coral/edgetpu say. The
rows of :data:`UNREAD` were in no copy: those ops count as not taken.

Zero points: Coral's pages ask for none. Of the Edge TPU in Google's Tensor chips a user reports that its compiler
rejects activations with another zero point than 0 (issue 2497 of google-ai-edge/LiteRT-LM). 0 is within the rules of
both.

No GELU, RELU_0_TO_1 or LOG of int8: compiler 16 is of 2021 and refuses a whole file for one op that TensorFlow Lite got
later (issue 384 of google-coral/edgetpu has the message).
"""

from __future__ import annotations

from math import prod

import numpy as np

from qhyvit.graph.ir import INT8, Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.ops.shared.spec import FusedActivation
from qhyvit.targets.shared.rules import Rule, Rules, anything
from qhyvit.targets.shared.target import PLAIN, Target

INNERMOST, LONGEST_SOFTMAX, DEPTH_UNIT = 3, 16_000, 4
UNREAD = ("RSQRT", "SQUARED_DIFFERENCE", "SUM")


def _every(graph: Graph, node: Node) -> str:
    """8 bits, constant parameters, and no more than three dimensions, which are the innermost."""
    position = spec(node.op).weight_input
    if position >= 0 and not graph.tensors[node.inputs[position]].is_constant:
        return "parameters are not constant"
    tensors = [graph.tensors[t] for t in (*node.inputs, *node.outputs) if t >= 0 and not graph.tensors[t].is_constant]
    if any(t.dtype != INT8 for t in tensors):
        return "not in 8 bits"
    if any(size > 1 for t in tensors for size in t.shape[:-INNERMOST]):
        return "more than three dimensions, or not the innermost"
    return ""


def _row(shape: tuple[int, ...]) -> bool:
    return prod(shape[:-1]) == 1


def _unfused(graph: Graph, node: Node) -> str:
    return "" if node.attrs.fused_activation_function == FusedActivation.NONE else "a fused activation"


def _concatenation(graph: Graph, node: Node) -> str:
    """A constant operand has to be the zeros of a padding."""
    constants = [graph.tensors[t] for t in node.inputs if graph.tensors[t].is_constant]
    zeros = [t.quantization is not None and bool(np.all(t.data == t.quantization.zero_point)) for t in constants]
    if constants and (len(node.inputs) != 2 or not all(zeros)):
        return "a constant operand that is no padding by zeros"
    return _unfused(graph, node)


def _convolution(graph: Graph, node: Node) -> str:
    return "" if node.attrs.dilation_h_factor == node.attrs.dilation_w_factor else "two dilations"


def _fully_connected(graph: Graph, node: Node) -> str:
    if node.attrs.weights_format:
        return "weights in another format"
    return "" if _row(graph.tensors[node.outputs[0]].shape) else "the output has more than one dimension"


def _reduced(graph: Graph, node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape that a reduction reads, and its axes."""
    shape = graph.tensors[node.inputs[0]].shape
    return shape, axes_of(graph.constant(node.inputs[1]), len(shape))


def _mean(graph: Graph, node: Node) -> str:
    shape, axes = _reduced(graph, node)
    if len(shape) - 1 in axes and shape[-1] % DEPTH_UNIT:
        return f"over channels, whose number is no multiple of {DEPTH_UNIT}"
    return _no_batch(graph, node)


def _no_batch(graph: Graph, node: Node) -> str:
    """The batch is what lies in front of the three innermost dimensions, which are y, x and z."""
    shape, axes = _reduced(graph, node)
    return "over the batch dimension" if any(a < len(shape) - INNERMOST for a in axes) else ""


def _prelu(graph: Graph, node: Node) -> str:
    return "" if _row(graph.tensors[node.inputs[1]].shape) else "slopes have more than one dimension"


def _softmax(graph: Graph, node: Node) -> str:
    shape = graph.tensors[node.inputs[0]].shape
    if not _row(shape):
        return "more than one row"
    return "" if shape[-1] <= LONGEST_SOFTMAX else f"more than {LONGEST_SOFTMAX:,} elements"


def _strided_slice(graph: Graph, node: Node) -> str:
    steps, attrs = graph.constant(node.inputs[3]), node.attrs
    return "strides other than 1, or a mask" if np.any(steps != 1) or attrs.ellipsis_mask or attrs.new_axis_mask else ""


def _unread(graph: Graph, node: Node) -> str:
    return "its row of the rules was not found"


OPS: dict[str, Rule] = {
    "AVERAGE_POOL_2D": _unfused, "MAX_POOL_2D": _unfused, "CONCATENATION": _concatenation,
    "CONV_2D": _convolution, "DEPTHWISE_CONV_2D": _convolution, "FULLY_CONNECTED": _fully_connected,
    "MEAN": _mean, "REDUCE_MAX": _no_batch, "REDUCE_MIN": _no_batch, "PRELU": _prelu, "SOFTMAX": _softmax,
    "STRIDED_SLICE": _strided_slice,
    **dict.fromkeys(("ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "QUANTIZE",
                     "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE",
                     "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE", "SUB", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
                     "PACK", "PAD"), anything),  # of several images neither has three dimensions any more
    **dict.fromkeys(UNREAD, _unread),
}  # fmt: skip

TARGET = Target(
    "edgetpu-rules",
    "Google's Edge TPU (Coral), by published rules alone",
    "the interpreter here; the published rules of its compiler, which was not run",
    sizes=PLAIN,
    floats=False,
    int16=False,
    islands=False,
    int4=False,
    symmetric=True,
    tables=frozenset({"GELU", "RELU_0_TO_1"}),
    lacks=frozenset({"LOG"}),
    rules=Rules("the Edge TPU compiler", "https://coral.ai/docs/edgetpu/models-intro/", _every, OPS),
)

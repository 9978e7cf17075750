"""What one op is: attributes, shape rule, differentiable forward, quantization contract, cost and delegate facts.

Everything that the rest of the project needs to know about an op stands in its one file, as data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from qhyvit.errors import GraphError
from qhyvit.graph.ir import Quantization

if TYPE_CHECKING:
    import numpy as np
    import torch

    from qhyvit.ops.shared.layer_view import LayerView

Shape: TypeAlias = tuple[int, ...]
Forward: TypeAlias = "Callable[[Sequence[Any], Any], torch.Tensor | tuple[torch.Tensor, ...]]"
ShapeRule: TypeAlias = Callable[[Sequence[Shape], Any, Sequence[Any]], Shape | tuple[Shape, ...]]
Codes: TypeAlias = "np.ndarray | None"


class Kernel(StrEnum):
    """Whose arithmetic an op has.

    LiteRT with XNNPACK on one of two processors, LiteRT's reference kernels alone, or those of TensorFlow Lite Micro,
    which are the same but for a few.
    """

    X86 = "xnnpack-x86"
    ARM64 = "xnnpack-arm64"
    REFERENCE = "reference"
    TFLM = "tflm"

    @property
    def is_reference(self) -> bool:
        """Whether it is one of the two that know no XNNPACK."""
        return self in (Kernel.REFERENCE, Kernel.TFLM)


@dataclass(frozen=True)
class Quants:
    """Quantizations of what an op reads and writes; None where a tensor has none (shapes, axes, float)."""

    reads: tuple[Quantization | None, ...]
    writes: tuple[Quantization, ...]


Integer: TypeAlias = "Callable[[Sequence[Codes], Quants, Any, Kernel], Sequence[np.ndarray]]"


# --- the four kinds of output contract (as in PyTorch's PT2E quantizer) ---


@dataclass(frozen=True)
class Free:
    """The output has its own range."""


@dataclass(frozen=True)
class Tied:
    """The output and all the inputs listed share scale and zero point (RESHAPE, PAD, CONCATENATION, ...).

    Args:
        inputs: positions; None means every input with a scale.
        rounds: the kernel computes new values on the shared grid (AVERAGE_POOL_2D, RESIZE_BILINEAR) instead of
            moving codes.
    """

    inputs: tuple[int, ...] | None = (0,)
    rounds: bool = False


@dataclass(frozen=True)
class Fixed:
    """The kernel prescribes the output's scale and zero point (int8)."""

    scale: float
    zero_point: int


OutputContract = Free | Tied | Fixed
FREE = Free()


class Copies(StrEnum):
    """What of the values that it reads an op writes, computing none: each once, each at least once, or some."""

    ONCE = "once"
    REPEATED = "repeated"
    SOME = "some"


class Nonnegative(StrEnum):
    """Where no result is below 0: always, if all operands are not, or if one is not."""

    ALWAYS = "always"
    OF_ALL = "of all"
    OF_ANY = "of any"


@dataclass(frozen=True)
class NoAttrs:
    """Attributes of an op that has none."""


class FusedActivation:
    """Names of fused activations, as in the TFLite schema."""

    NONE = "NONE"
    RELU = "RELU"
    RELU6 = "RELU6"
    RELU_N1_TO_1 = "RELU_N1_TO_1"


@dataclass(frozen=True)
class OpSpec:
    """One TFLite op.

    Args:
        name: TFLite builtin name, e.g. ``CONV_2D``.
        options: name of the flatbuffer options class (``Conv2DOptions``) or "" if the op has none.
        attrs: frozen dataclass with the attributes; field names are those of the options class in snake_case.
        infer_shape: (file shapes of the inputs, attrs, integer constants as numpy arrays or None each) -> file
            shape of the output; a tuple of shapes where the op has several outputs (SPLIT, UNPACK).
        forward: (inputs, attrs) -> output; a tuple of tensors where the op has several. Differentiable, no
            in-place writes. Every float operand carries ONE EXTRA LEADING DIMENSION B, the images of a batch (1
            for constants): [B, *file shape]; so file shapes with tokens first, or batch 1 inside a RESHAPE, run
            at any batch size. Weight and bias inputs have their file shape; integer constants (shapes, axes,
            paddings) come as numpy arrays; absent ones as None. No fused activation inside: the executor applies
            ``attrs.fused_activation_function`` through :func:`activate`. Works in float32 and float64, on any
            device.
        data_input: index of the input that the weights multiply.
        weight_input: index of the constant weight input, -1 if the op has none.
        weight_axis: axis of the weight's output channels.
        bias_input: index of the bias input (scale s_in * s_w, int32), -1 if none.
        layer: the weight as matrices [groups, out, in] and what they multiply; None if the op has no weights.
        out: the output's contract.
        wide: grid of the int16 output that the int8 kernel can give instead of ``out``, None if it can't.
        symmetric_inputs: inputs that need zero point 0 for XNNPACK (BATCH_MATMUL: the right operand).
        input_zero_point: zero point that an input must have for the kernel to be right (RSQRT: -128), or None.
        delegate: "" if XNNPACK takes the op in int8 (exceptions stand in the op's docstring), else the reason why
            not.
        after_2_14: TFLite 2.14.0, the oldest release that was tried, lacks the int8 kernel.
        macs: (input shapes, output shape) -> multiply-accumulates, for reports; None counts output elements.
        integer: (codes of the inputs, their quantizations and the outputs', attrs, kernel) -> codes of the outputs,
            as :mod:`qhyvit.ops.shared.integer` says; None where no integer kernel is right.
        lacking: kernels that do not have the op: a file with it does not load there.
        floor: what many results are exactly, and none is below (ELU: -1); it has to stay on the grid.
        largest: of an op that grows without bound as its operand goes to 0, its result for one step of the operand's
            scale, which is given: beyond, int8 takes the operand for 0.
        factors: positions of the two inputs whose products the kernel sums up in an integer; None: it does not.
        copies: which values of its operands it writes without computing any; None: it computes. What has ONCE or
            REPEATED reads one activation, its first input.
        nonnegative: where no result is below 0, whatever the attributes; None: that does not show. Results that are
            :class:`Tied` are not where their operands are not.
        homogeneous: elementwise, and f(r x) = r f(x) of one operand, f(r x, r y) = r f(x, y) of two, for every r > 0.
        pairwise: elementwise with two operands that broadcast; XNNPACK calls its kernel for each run without a repeat.
        table: elementwise with one operand; between a DEQUANTIZE and a QUANTIZE XNNPACK looks int8 codes up in a
            table of 256 and computes no float.
        local: without weights, and each result depends on neighbouring positions of a map (pools, resizes).
        version: of the op code, where a pass brings an op that the export did not have.
        xnnpack: beginnings of the names of XNNPACK's operators that compute it, as profiles by op tell them.
    """

    name: str
    forward: Forward
    infer_shape: ShapeRule
    options: str = ""
    attrs: type = NoAttrs
    data_input: int = 0
    weight_input: int = -1
    weight_axis: int = 0
    bias_input: int = -1
    layer: LayerView | None = None
    out: OutputContract = FREE
    wide: Fixed | None = None
    symmetric_inputs: tuple[int, ...] = ()
    input_zero_point: int | None = None
    delegate: str = ""
    after_2_14: bool = False
    macs: Callable[[Sequence[Shape], Shape], int] | None = None
    integer: Integer | None = None
    lacking: tuple[Kernel, ...] = ()
    floor: float | None = None
    largest: Callable[[float], float] | None = None
    factors: tuple[int, int] | None = None
    copies: Copies | None = None
    nonnegative: Nonnegative | None = None
    homogeneous: bool = False
    pairwise: bool = False
    table: bool = False
    local: bool = False
    version: int = 1
    xnnpack: tuple[str, ...] = ()


def activate(y: torch.Tensor, fused: str) -> torch.Tensor:
    """Apply a fused activation by its schema name.

    Raises:
        GraphError: an activation that we do not know.
    """
    if fused == FusedActivation.NONE:
        return y
    bounds = {
        FusedActivation.RELU: (0.0, None),
        FusedActivation.RELU6: (0.0, 6.0),
        FusedActivation.RELU_N1_TO_1: (-1.0, 1.0),
    }
    if fused not in bounds:
        raise GraphError(f"unknown fused activation {fused!r}; known: {', '.join(bounds)}")
    low, high = bounds[fused]
    return y.clamp(low, high)

"""Single ops on integer grids of every size: their codes by ``OpSpec.integer``, to compare with those of a kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _cases import CASES, act, case, const, ints
from _single_op import Activation, Case, Grid, Quantized, build, dequantized, quantize
from numpy.typing import NDArray

from qhyvit.ops.shared.spec import Fixed, FusedActivation, Kernel, Quantization, Quants, Tied

IMAGES = 4
FULL = {8: (-128, 127), 16: (-(2**15), 2**15 - 1), 32: (-(2**31), 2**31 - 1)}
TOPS = {FusedActivation.RELU6: 6.0, FusedActivation.RELU_N1_TO_1: 1.0, "RELU_0_TO_1": 1.0}
GROWTH = {"MUL": 2.0, "BATCH_MATMUL": 2.0, "SQUARED_DIFFERENCE": 2.0, "RSQRT": -0.5, "SQRT": 0.5, "LOG": 0.0,
          "SOFTMAX": 0.0}  # fmt: skip
ALL_PAIRS = [case(op, act(256, 1), act(1, 256))
             for op in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")]  # fmt: skip
LONG = [case("HARD_SWISH", act(1, 11, 3, 9))]  # more than whole vectors
LONG += [case("PRELU", act(1, 256, 256), const(1, 1, 256))]
LONG += [case(op, act(1, 56, 56, 2), ints(1, 2), keep_dims=keep) for op in ("MEAN", "SUM") for keep in (True, False)]
LONG += [case("SOFTMAX", act(3, n), beta=1.0) for n in (256, 3136)]
LONG += [case("AVERAGE_POOL_2D", act(1, 14, 14, 8), padding="VALID", stride_h=14, stride_w=14, filter_height=14,
              filter_width=14)]  # fmt: skip
LONG += [case("FULLY_CONNECTED", act(4, 1536), const(5, 1536), const(5))]


def _finite(case: Case) -> bool:
    return all(np.isfinite(o).all() for o in case.operands if isinstance(o, np.ndarray))


EXPORTED = [c for c in CASES if c.spec.integer and _finite(c)]
CODED = [*EXPORTED, *ALL_PAIRS, *LONG]


@dataclass(frozen=True)
class Trial:
    """One case on one choice of grids with operands to feed: codes [B, *shape], or float values, None for constants."""

    case: Case
    grids: Quantized
    fed: Sequence[NDArray[Any] | None]

    def file(self) -> bytes:
        """The ``.tflite``."""
        return build(self.case, self.grids)

    def codes(self, kernel: Kernel) -> list[NDArray[np.int64]]:
        """What our arithmetic gives, [B, *shape] each."""
        op, given = self.case.spec, []
        for i, (operand, grid, fed) in enumerate(zip(self.case.operands, self.grids.operands, self.fed, strict=True)):
            if fed is not None:
                given.append(fed if grid is None else fed.astype(np.int64))
            elif grid is None or operand is None:
                given.append(operand)
            else:
                low, high = FULL[32 if i == op.bias_input else grid.bits]
                constant = grid.codes(operand, low + (i == op.weight_input), high)
                given.append(constant if i in (op.weight_input, op.bias_input) else constant[None])
        reads = tuple(_quantization(g, bias=i == op.bias_input) for i, g in enumerate(self.grids.operands))
        writes = tuple(_quantization(g) for g in self.grids.outputs)
        assert op.integer is not None
        return list(op.integer(given, Quants(reads, writes), self.case.attrs, kernel))

    def rounded(self) -> list[NDArray[np.int64]]:
        """Codes of the exact results, to the nearest."""
        given = [x if g is None else y for x, g, y in zip(
            self.fed, self.grids.operands, dequantized(self.case, self.fed, self.grids), strict=True)]  # fmt: skip
        results = self.case.forward(given)
        return [g.codes(y.double().numpy(), *FULL[g.bits]) for g, y in zip(self.grids.outputs, results, strict=True)]


def _quantization(grid: Grid | None, *, bias: bool = False) -> Quantization | None:
    if grid is None:
        return None
    axis = grid.axis if grid.scale.size > 1 else None
    return Quantization(tuple(map(float, grid.scale)), int(grid.zero_point[0]), axis, 32 if bias else grid.bits)


def grid(scale: float, zero_point: int = 0, bits: int = 8) -> Grid:
    """A grid whose scale is a float32."""
    return Grid(np.array([scale], np.float32).astype(np.float64), np.array([zero_point]), bits=bits)


def _scaled(grid: Grid, factor: float, zero_point: int | None = None) -> Grid:
    zeros = grid.zero_point if zero_point is None else np.full_like(grid.zero_point, zero_point)
    return replace(grid, scale=(grid.scale * factor).astype(np.float32).astype(np.float64), zero_point=zeros)


def _power_of_two(grid: Grid) -> Grid:
    return replace(grid, scale=2.0 ** np.rint(np.log2(grid.scale)))


def odd_grids(case: Case, grids: Quantized, rng: np.random.Generator, *, ties: bool) -> Quantized:
    """Other scales and zero points, as far as the op's contract leaves them free.

    ``ties``: scales are powers of two, and the ends of a fused activation lie between two steps.
    """
    op = case.spec
    together, apart = 10 ** rng.uniform(-3, 2), 10 ** rng.uniform(-0.4, 0.4)
    shared = set()
    if isinstance(op.out, Tied):
        shared = {i for i, g in enumerate(grids.operands) if g and (op.out.inputs is None or i in op.out.inputs)}
    common = int(rng.integers(-128, 128))
    operands: list[Grid | None] = []
    for i, found in enumerate(grids.operands):
        if found is not None and i not in (op.weight_input, op.bias_input):
            free = i not in op.symmetric_inputs and op.input_zero_point is None
            own = common if i in shared else int(rng.integers(-128, 128))
            factor = together if i in shared else together * 10 ** rng.uniform(-0.3, 0.3)
            found = _scaled(found, factor, own if free else None)
        operands.append(_power_of_two(found) if ties and found is not None else found)
    if op.bias_input >= 0 and case.operands[op.bias_input] is not None:
        data, weight = operands[op.data_input], operands[op.weight_input]
        assert data is not None
        assert weight is not None
        operands[op.bias_input] = Grid(data.scale * weight.scale, np.zeros(weight.scale.size, np.int64))
    out = grids.outputs[0]
    if shared:
        out = operands[min(shared)]  # type: ignore[assignment]
    elif not isinstance(op.out, Fixed):
        out = _scaled(out, together ** GROWTH.get(case.op, 1.0) * apart, int(rng.integers(-128, 128)))
        top = TOPS.get(case.options.get("fused_activation_function", case.op))
        if ties:
            out = replace(out, scale=grid(top / (int(rng.integers(3, 90)) + 0.5)).scale) if top else _power_of_two(out)
    return Quantized(tuple(operands), (out,) * len(grids.outputs))


def every_code(case: Case, grids: Quantized, count: int, rng: np.random.Generator) -> list[NDArray[Any] | None]:
    """Codes for ``count`` images in which each occurs equally often; none below the zero point for SQRT."""
    fed: list[NDArray[Any] | None] = []
    for i, (operand, g) in enumerate(zip(case.operands, grids.operands, strict=True)):
        if not isinstance(operand, Activation) or g is None:
            fed.append(None)
            continue
        low, high = FULL[g.bits]
        low += i in case.spec.symmetric_inputs and g.bits == 8  # -128 overflows on some processors
        shape = (count, *operand.shape)
        spread = np.resize(rng.permutation(np.arange(low, high + 1)), np.prod(shape))
        codes = rng.permutation(spread).reshape(shape)
        codes = np.maximum(codes, g.zero_point[0]) if case.op == "SQRT" else codes
        fed.append(codes.astype(g.dtype))
    return fed


def trials(case: Case, grids: int) -> Iterator[Trial]:
    """The case on the grid of its own values and on others, every second one with ties."""
    rng = np.random.default_rng(len(str(case)))
    images = case.images(IMAGES)
    natural = quantize(case, images)
    yield Trial(case, natural, [None if x is None or g is None else g.codes(x).astype(np.int8)
                                for x, g in zip(images, natural.operands, strict=True)])  # fmt: skip
    sizes = [int(np.prod(o.shape)) for o in case.operands if isinstance(o, Activation)]
    count = max(1 if max(sizes) >= 256 else IMAGES, -(-256 // min(sizes)) if min(sizes) > 1 else 1)
    for number in range(grids):
        chosen = odd_grids(case, natural, rng, ties=bool(number % 2))
        yield Trial(case, chosen, every_code(case, chosen, count, rng))


PRODUCTS = {"BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL", "SQUARED_DIFFERENCE",
            "TRANSPOSE_CONV"}  # fmt: skip
PARTS = (1, 2, 3, 5, 6, 7, 9, 11, 12, 24, 48)


def may_tie(case: Case) -> bool:
    """Whether the result has a scale of its own; ties of ELU and GELU are those of the C library's functions."""
    return not isinstance(case.spec.out, Tied | Fixed) and case.op not in ("ELU", "GELU")


def near_trials(case: Case, count: int) -> Iterator[Trial]:
    """Results near ties on scales that are no powers of two: how a kernel rounds its factors decides on their side.

    What one step of the operands makes is (j + 1/2) / k steps of the result, but for the rounding of the scales.
    """
    rng = np.random.default_rng(len(str(case)) + 7)
    natural = quantize(case, case.images(IMAGES))
    sizes = [int(np.prod(o.shape)) for o in case.operands if isinstance(o, Activation)]
    images = max(1 if max(sizes) >= 256 else IMAGES, -(-256 // min(sizes)) if min(sizes) > 1 else 1)
    for _ in range(count):
        grids = odd_grids(case, natural, rng, ties=False)
        scales, out = [g.scale.flat[0] for g in grids.operands if g], grids.outputs[0]
        unit = scales[0] * (scales[-1 if case.op == "SQUARED_DIFFERENCE" else 1] if case.op in PRODUCTS else 1.0)
        unit /= sizes[0] / np.prod(case.inferred()[0]) if case.op == "MEAN" else 1.0
        ratio = unit / out.scale.flat[0]
        k = max(int(rng.choice(PARTS)), round(0.5 / ratio))
        halves = max(round(ratio * k - 0.5), 0) + 0.5
        grids = Quantized(grids.operands, (replace(out, scale=grid(unit * k / halves).scale),) * len(grids.outputs))
        yield Trial(case, grids, every_code(case, grids, images, rng))


# int16 operands and results, and what joins them to int8 and float
SHORT = [*((case(op, act(8, 16), act(8, 16)), 16, 16) for op in ("ADD", "SUB", "MUL")),
         *((case(op, act(4, 8, 16), act(4, 1, 16)), 16, 16) for op in ("ADD", "SUB", "MUL")),
         (case("SUB", act(8, 16), act(16), fused_activation_function="RELU"), 16, 16),
         (case("BATCH_MATMUL", act(4, 8, 16), act(4, 16, 5)), 16, 16),
         (case("BATCH_MATMUL", act(4, 8, 16), act(4, 5, 16), adj_y=True), 16, 16),
         (case("RSQRT", act(64, 16)), 16, 16), (case("SUM", act(4, 8, 16), ints(2), keep_dims=True), 16, 16),
         (case("MEAN", act(4, 8, 16), ints(1, 2)), 16, 16), (case("MEAN", act(4, 7, 16), ints(1)), 16, 16),
         (case("RESHAPE", act(8, 16), ints(4, 32)), 16, 16), (case("TRANSPOSE", act(4, 8, 16), ints(0, 2, 1)), 16, 16),
         (case("SOFTMAX", act(64, 49), beta=1.0), 8, 16), (case("SOFTMAX", act(16, 400), beta=0.5), 8, 16),
         *((case("QUANTIZE", act(4, 8, 16)), read, write) for read in (8, 16, 0) for write in (8, 16))]  # fmt: skip
# what XNNPACK refuses where scales are far apart, and the ends of what it takes
FAR = [*(case(op, act(16, 1), act(1, 256)) for op in ("ADD", "SUB", "MUL")), case("QUANTIZE", act(4, 256)),
       *(case("LEAKY_RELU", act(4, 256), alpha=alpha) for alpha in (0.125, -0.3, 1.5))]  # fmt: skip
MATRICES = [case("FULLY_CONNECTED", act(4, 6), const(5, 6), None), case("FULLY_CONNECTED", act(4, 6), act(5, 6), None),
            case("FULLY_CONNECTED", act(4, 6), act(5, 6), None, fused_activation_function="RELU6"),
            case("BATCH_MATMUL", act(3, 4, 5), act(3, 5, 6)),
            case("BATCH_MATMUL", act(4, 5), act(6, 5), adj_y=True)]  # fmt: skip
EDGES = [2.0**n for n in (-16, -10, -8, 7, 8)]


def short_trials(case: Case, read: int, write: int, count: int) -> Iterator[Trial]:
    """int16 cases, ``read`` and ``write`` the bits of their types, 0: float; every second one with ties."""
    rng = np.random.default_rng(len(str(case)) + 100 * read + write)
    for number in range(count):
        ties, op = bool(number % 2), case.spec
        scales = [10 ** rng.uniform(-4, 1) for _ in case.operands]
        scales = [2.0 ** np.rint(np.log2(s)) if ties else s for s in scales]
        zero = int(rng.integers(-128, 128)) if read == 8 else 0
        operands = [grid(s, zero, read) if isinstance(o, Activation) and read else None
                    for o, s in zip(case.operands, scales, strict=True)]  # fmt: skip
        fed = every_code(case, Quantized(tuple(operands), ()), 2, rng)
        if case.op == "RSQRT":
            fed = [None if x is None else np.abs(x.astype(np.int64)).clip(0, 2**15 - 1).astype(np.int16) for x in fed]
        zero = int(rng.integers(-128, 128)) if write == 8 else 0
        if not read:
            fed = [rng.uniform(-150, 150, (2, *case.operands[0].shape)).astype(np.float32) * np.float32(scales[0])]
            fed[0][:, 0] = np.rint(fed[0][:, 0] / np.float32(scales[0] / 2)) * np.float32(scales[0] / 2)
            out = grid(scales[0], zero, write)
        elif isinstance(op.out, Tied):
            out = operands[0]
        elif case.op == "SOFTMAX":
            out = grid(op.wide.scale, op.wide.zero_point, 16)
        elif case.op == "QUANTIZE":
            out = grid(scales[0] * 2.0 ** rng.uniform(-1, 1) * 2.0 ** (read - write), zero, write)
            out = _power_of_two(out) if ties else out
        else:
            values = [None if x is None else np.asarray(x * s) for x, s in zip(fed, scales, strict=True)]
            largest = float(case.forward(values)[0].abs().max()) / 2**15
            out = grid(2.0 ** np.rint(np.log2(largest)) if ties else largest * rng.uniform(0.8, 4), 0, 16)
        yield Trial(case, Quantized(tuple(operands), (out,)), fed)


def matrix_trials(case: Case, count: int) -> Iterator[Trial]:
    """A weight, or right operand, with one scale; that of a BATCH_MATMUL has any zero point."""
    rng = np.random.default_rng(len(str(case)))
    for number in range(count):
        ties, s = bool(number % 2), 10 ** rng.uniform(-3, 0)
        s = 2.0 ** np.rint(np.log2(s)) if ties else s
        right = grid(1 / 128, int(rng.integers(-128, 128)) if case.op == "BATCH_MATMUL" else 0)
        out = grid(s / 4 if ties else 0.1 * s * rng.uniform(0.5, 2), int(rng.integers(-128, 128)))
        grids = Quantized((grid(s, int(rng.integers(-128, 128))), right, None)[: len(case.operands)], (out,))
        fed = every_code(case, grids, 16, rng)
        yield Trial(case, grids, [None if x is None else np.maximum(x, -127) if i else x for i, x in enumerate(fed)])


def far_trials(case: Case, count: int) -> Iterator[Trial]:
    """Ratios of an operand's scale to the output's from 2^-18 to 2^12, all of ``EDGES`` among them.

    Those of ADD, SUB and MUL stay below 2^8: from there on one step of the operand is more than all of the output's.
    """
    rng = np.random.default_rng(len(str(case)))
    ratios = [*EDGES, *2.0 ** rng.uniform(-18, 12, count)]
    for ratio in [r for r in ratios if r < 2**8 or len(case.operands) == 1]:
        out = grid(2.0 ** int(rng.integers(-6, 3)), int(rng.integers(-128, 128)))
        first = grid(out.scale.item() * ratio, int(rng.integers(-128, 128)))
        # a product's ratio is that of both; of the operands of a sum the second one lies within XNNPACK's limits
        second = grid(1.0 if case.op == "MUL" else out.scale.item() * 1.7, int(rng.integers(-128, 128)))
        grids = Quantized((first, second)[: len(case.operands)], (out,))
        yield Trial(case, grids, every_code(case, grids, 1, rng))


def compare(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> int:
    """How many codes part."""
    return sum(int((np.asarray(f, np.int64) != e.reshape(f.shape)).sum()) for f, e in zip(found, expected, strict=True))

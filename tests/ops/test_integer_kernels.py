"""``OpSpec.integer`` against LiteRT, code by code: no code may part, on grids of every size, at ties as elsewhere."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest
import torch
from _cases import CASES, act, case, ints
from _kernels import (
    CODED,
    FAR,
    MATRICES,
    SHORT,
    Trial,
    compare,
    far_trials,
    grid,
    matrix_trials,
    may_tie,
    near_trials,
    short_trials,
    trials,
)
from _single_op import Case, Quantized, build, interpreter, run
from ai_edge_litert.interpreter import OpResolverType

from qhyvit.errors import GraphError
from qhyvit.ops import all_ops, spec
from qhyvit.ops.shared.fixed_point import of_float32
from qhyvit.ops.shared.spec import Kernel, Quantization, Quants

KINDS = {Kernel.X86: OpResolverType.BUILTIN, Kernel.REFERENCE: OpResolverType.BUILTIN_REF}
KERNELS = pytest.mark.parametrize("kernel", KINDS)
GRIDS = 10
TESTED = [(c, k) for c in CODED for k in KINDS if k not in c.spec.lacking]
# of 512 positions and more it may end the process, see below
TESTED = [(c, k) for c, k in TESTED if (c.op, k) != ("SOFTMAX", Kernel.REFERENCE) or c.inferred()[0][-1] < 512]
# ops whose codes are not always the rounded result, on these grids at least
INEXACT = {"ABS", "ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "HARD_SWISH",
           "LEAKY_RELU", "MEAN", "MUL", "PRELU", "RESIZE_BILINEAR", "SQRT", "SQUARED_DIFFERENCE", "SUB",
           "SUM"}  # fmt: skip


def parted(found: Iterable[Trial], kernel: Kernel) -> tuple[int, int]:
    """How many codes part from ours, and from the exact results rounded."""
    ours = rounded = 0
    for trial in found:
        codes = run(interpreter(trial.file(), KINDS[kernel]), trial.fed)
        ours += compare(codes, trial.codes(kernel))
        rounded += compare(codes, trial.rounded())
    return ours, rounded


@pytest.mark.parametrize(("case", "kernel"), TESTED, ids=str)
def test_every_code_is_the_kernels(case: Case, kernel: Kernel) -> None:
    assert parted(trials(case, GRIDS), kernel)[0] == 0


@pytest.mark.parametrize(("case", "kernel"), [(c, k) for c, k in TESTED if may_tie(c)], ids=str)
def test_every_code_near_a_tie_is_the_kernels(case: Case, kernel: Kernel) -> None:
    assert parted(near_trials(case, GRIDS), kernel)[0] == 0


@KERNELS
@pytest.mark.parametrize(("case", "read", "write"), SHORT, ids=str)
def test_every_code_of_int16_and_of_what_leads_there_is_the_kernels(
    case: Case, read: int, write: int, kernel: Kernel
) -> None:
    found = short_trials(case, read, write, GRIDS)
    if case.op == "SUM" and kernel is Kernel.REFERENCE:
        with pytest.raises(GraphError, match="reference kernel leaves half"):
            parted(found, kernel)
        return
    assert parted(found, kernel)[0] == 0


@KERNELS
@pytest.mark.parametrize("case", FAR, ids=str)
def test_where_xnnpack_refuses_the_scales_codes_are_the_builtin_kernels(case: Case, kernel: Kernel) -> None:
    assert parted(far_trials(case, 30), kernel)[0] == 0


@KERNELS
@pytest.mark.parametrize("op", sorted(INEXACT))
def test_rounding_alone_would_not_do(op: str, kernel: Kernel) -> None:
    assert sum(parted(trials(c, GRIDS), kernel)[1] for c in CODED if c.op == op)


def test_every_op_with_integer_arithmetic_is_tested() -> None:
    named = {op.name for op in all_ops().values() if op.integer is not None}
    assert {c.op for c in CODED} | {c.op for c, _, _ in SHORT} == named


# --- ties that only float32 sees ---


def _gelu(y: float) -> float:
    """Where 0 < GELU(x) = y."""
    low, high = 0.0, y + 2.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * middle * math.erfc(-middle / math.sqrt(2)) < y else (low, middle)
    return low


# inverse, lowest and highest result in steps, scale and zero point of the result, share of ties that may part
TIES = {"LOGISTIC": (lambda y: math.log(y / (1 - y)), 1, 255, grid(1 / 256, -128), 0.02),
        "TANH": (math.atanh, -126, 126, grid(1 / 128), 0.25), "ELU": (math.log1p, -15, -1, grid(1 / 16, 20), 0.03),
        "LOG": (math.exp, -40, 40, grid(1 / 16), 0.0), "GELU": (_gelu, 0, 100, grid(1 / 16), 0.06)}  # fmt: skip


@pytest.mark.parametrize(("op", "kernel"), [(op, k) for op in TIES for k in KINDS if k not in spec(op).lacking])
def test_results_within_float32_of_a_tie(op: str, kernel: Kernel) -> None:
    inverse, low, high, out, share = TIES[op]
    rng, ours, ties = np.random.default_rng(1), 0, 0
    for _ in range(150):
        steps, code = int(rng.integers(low, high)) + 0.5, int(rng.integers(1, 120))
        x = inverse(steps * out.scale.item())
        read = grid(max(abs(x) / code, 1e-4))
        fed = np.arange(-128, 128, dtype=np.int8)[None, None]
        trial = Trial(case(op, act(1, 256)), Quantized((read,), (out,)), [fed])
        ours += parted([trial], kernel)[0]
        ties += 2 if op in ("LOGISTIC", "TANH") else 1  # at -x as well
    assert ours <= share * ties


# --- what kernels lack, or do wrong ---


@pytest.mark.parametrize("op", [op for op in all_ops().values() if op.lacking], ids=lambda op: op.name)
def test_a_file_does_not_load_where_the_op_is_lacking(op) -> None:
    trial = next(trials(next(c for c in CASES if c.op == op.name), 0))
    for kernel in op.lacking:
        with pytest.raises(ValueError, match=f"'{op.name}'"):
            interpreter(trial.file(), KINDS[kernel])


def test_the_reference_sum_takes_codes_for_unsigned() -> None:
    """When this fails, a new runtime has mended it."""
    trial = next(trials(case("SUM", act(4, 8), ints(1)), 0))
    codes = run(interpreter(trial.file(), OpResolverType.BUILTIN_REF), trial.fed)
    assert compare(codes, trial.rounded()) > codes[0].size / 2


@pytest.mark.parametrize(("positions", "ends"), [(511, False), (512, True)])
def test_the_reference_softmax_ends_the_process_where_the_sum_is_512(tmp_path, positions: int, ends: bool) -> None:
    script = (
        "import sys, numpy; from ai_edge_litert.interpreter import Interpreter, OpResolverType as K\n"
        "i = Interpreter(sys.argv[1], experimental_op_resolver_type=K.BUILTIN_REF); i.allocate_tensors()\n"
        "d = i.get_input_details()[0]; i.set_tensor(d['index'], numpy.zeros(d['shape'], numpy.int8)); i.invoke()"
    )
    flat = Quantized((grid(0.01),), (grid(1 / 256, -128),))  # all operands alike: each exponential is 1
    (tmp_path / "x.tflite").write_bytes(build(case("SOFTMAX", act(1, positions)), flat))
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "x.tflite"], capture_output=True, check=False)
    assert (done.returncode != 0) == ends


# --- arm64's own SOFTMAX, without an emulator ---

# input scale, input codes, what the kernel gave on an emulated Cortex-A72, what it gives on x86-64
ARM64 = [
    (0.14954645931720734,
     [-74, -61, -65, -62, -80, -101, -62, -57, -69, -77, -63, -58, -67, -62, -67, -63],
     [-124, -103, -114, -107, -127, -128, -107, -83, -121, -126, -110, -89, -118, -107, -118, -110],
     [-124, -103, -114, -107, -127, -128, -107, -83, -121, -126, -110, -90, -118, -107, -118, -110]),
    (0.04217032715678215,
     [-16, -24, -19, -5, -27, -13, -28, -26, -23, -26, -19, -27, -28, 32, -46, -15],
     [-115, -119, -116, -107, -120, -113, -120, -119, -118, -119, -116, -120, -120, -29, -124, -114],
     [-115, -119, -117, -107, -120, -113, -120, -119, -118, -119, -117, -120, -120, -29, -124, -114]),
    (0.06572730839252472,
     [-109, -112, -118, -128, -112, -107, -91, -51, -109, -128, -119, -43, -108, -119, -119, -90],
     [-126, -126, -127, -127, -126, -126, -122, -43, -126, -127, -127, 15, -126, -127, -127, -121],
     [-126, -126, -127, -127, -126, -126, -122, -44, -126, -127, -127, 15, -126, -127, -127, -121]),
]  # fmt: skip


@pytest.mark.parametrize(("s_in", "codes", "on_arm64", "on_x86"), ARM64)
def test_arm64_has_a_softmax_of_its_own(s_in: float, codes: list[int], on_arm64: list[int], on_x86: list[int]) -> None:
    trial = Trial(case("SOFTMAX", act(16), beta=1.0), Quantized((grid(s_in),), (grid(1 / 256, -128),)),
                  [np.array([codes], np.int8)])  # fmt: skip
    assert trial.codes(Kernel.ARM64)[0].ravel().tolist() == on_arm64
    assert trial.codes(Kernel.X86)[0].ravel().tolist() == on_x86


# --- sums of products are exact ---

WEIGHTED = [c for c in CASES if c.spec.weight_input >= 0 and c.op != "FULLY_CONNECTED"]


@pytest.mark.parametrize("case", WEIGHTED, ids=str)
def test_sums_tap_by_tap_are_the_convolution(case: Case) -> None:
    """On the extreme codes, with a factor that shows the sum's last bit in the code."""
    op, rng = case.spec, np.random.default_rng(0)
    data, weight = case.operands[op.data_input], case.operands[op.weight_input]
    given = [o if isinstance(o, np.ndarray) and o.dtype == np.int32 else None for o in case.operands]
    given[op.data_input] = rng.choice([-128, 127], (2, *data.shape))
    given[op.weight_input] = rng.choice([-127, 127], weight.shape)
    real = [None if x is None else x if x.dtype == np.int32 else torch.from_numpy(x).double() for x in given]
    expected = op.forward(real, op.attrs(**{**case.options, "fused_activation_function": "NONE"})).numpy()
    quants = [Quantization((1.0,)) if i in (op.data_input, op.weight_input) else None for i in range(len(given))]
    attrs = op.attrs(**{**case.options, "fused_activation_function": "NONE"})
    (found,) = op.integer(given, Quants(tuple(quants), (Quantization((1.0,), bits=32),)), attrs, Kernel.REFERENCE)
    assert np.array_equal(found, expected.astype(np.int64))


@pytest.mark.parametrize("terms", [518, 519, 4000])
def test_sums_too_large_for_float32_are_exact(terms: int) -> None:
    """255 * 127 * 518 is the last one below 2^24."""
    rng = np.random.default_rng(terms)
    x, w = np.full((1, 3, terms), -128), rng.choice([-127, 127], (40, terms))
    w[0] = 127
    reads = Quantization((1.0,), 127), Quantization((1.0,))
    quants = Quants(reads, (Quantization((1.0,), bits=32),))
    op = spec("FULLY_CONNECTED")
    (found,) = op.integer([x, w], quants, op.attrs(keep_num_dims=True), Kernel.REFERENCE)
    assert np.array_equal(found[0], (x[0] - 127) @ w.T)


LONG = 2000  # terms that no float32 sums up
FEW_OUTPUTS = [  # (op, shape of the data, shape of the weight): the sums are long, and the other axes short
    ("FULLY_CONNECTED", (1, LONG), (1, LONG)),
    ("CONV_2D", (1, 1, 1, LONG), (1, 1, 1, LONG)),
    ("CONV_2D", (1, LONG, 1, 1), (1, LONG, 1, 1)),
    ("CONV_2D", (1, 1, LONG, 1), (1, 1, LONG, 1)),
    ("DEPTHWISE_CONV_2D", (1, LONG, 1, 1), (1, LONG, 1, 1)),
    ("DEPTHWISE_CONV_2D", (1, 1, LONG, 1), (1, 1, LONG, 1)),
    ("TRANSPOSE_CONV", (1, 1, 1, LONG), (1, 1, 1, LONG)),
]


@pytest.mark.parametrize(("name", "shape", "weights"), FEW_OUTPUTS)
def test_sums_along_any_axis_of_the_weight_are_exact(
    name: str, shape: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    """255 * 127 is odd, so that float32 would lose the last bit of a sum beyond 2^24."""
    op, out = spec(name), np.array([1, 1, 1, 1])
    given = {op.data_input: np.full((1, *shape), -128), op.weight_input: np.full(weights, 127)}
    given[op.data_input].flat[-1] = -127
    reads = {op.data_input: Quantization((1.0,), 127), op.weight_input: Quantization((1.0,))}
    positions = range(max(given) + 1)
    attrs = op.attrs(keep_num_dims=True) if name == "FULLY_CONNECTED" else op.attrs(padding="VALID")
    quants = Quants(tuple(reads.get(i) for i in positions), (Quantization((1.0,), bits=32),))
    (found,) = op.integer([given.get(i, out) for i in positions], quants, attrs, Kernel.REFERENCE)
    assert found.ravel().tolist() == [127 * (-255 * (LONG - 1) - 254)]


@pytest.mark.parametrize("kernel", Kernel)
@pytest.mark.parametrize("factor", [0.011, 0.0031, 0.0007])
def test_computed_weights_are_summed_up_on_every_processor(kernel: Kernel, factor: float) -> None:
    """Within a code of the real result, whichever builtin kernel it is and however that rounds."""
    rng, op = np.random.default_rng(3), spec("FULLY_CONNECTED")
    x, w, bias = rng.integers(-128, 128, (1, 5, 8)), rng.integers(-127, 128, (1, 4, 8)), rng.integers(-900, 900, 4)
    quants = Quants((Quantization((0.5,), 3), Quantization((0.25,)), Quantization((0.125,), bits=32)),
                    (Quantization((0.125 / factor,), -7),))  # fmt: skip
    (found,) = op.integer([x, w, bias], quants, op.attrs(keep_num_dims=True), kernel)
    exact = ((x[0] - 3) @ w[0].T + bias) * factor - 7
    assert np.abs(found[0] - np.clip(exact, -128, 127)).max() <= 1
    assert len(set(found.ravel().tolist())) > 3


@pytest.mark.parametrize("exponent", range(-20, 8))
def test_steps_times_a_float32_are_rounded_half_up(exponent: int) -> None:
    rng = np.random.default_rng(exponent + 100)
    steps = rng.integers(-(255**2), 255**2 + 1, 50)
    for factor in (*np.ldexp(rng.uniform(1.0, 2.0, 20), exponent).astype(np.float32), np.float32(2.0**exponent)):
        exact = [Fraction(int(x)) * Fraction(float(factor)) for x in steps]
        assert of_float32(steps, factor).tolist() == [math.floor(x + Fraction(1, 2)) for x in exact]


@KERNELS
@pytest.mark.parametrize("case", MATRICES, ids=str)
def test_matrices_with_one_scale_of_any_zero_point(case: Case, kernel: Kernel) -> None:
    """XNNPACK takes no computed weight, and of BATCH_MATMUL no right operand with a zero point."""
    assert parted(matrix_trials(case, GRIDS), kernel)[0] == 0

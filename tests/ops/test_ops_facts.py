"""The facts that each op states, against schema, quantizer and the int8 kernels."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import qhyvit.ops
import torch
from _cases import CASES
from _single_op import Case, build, camel, delegated, interpreter, quantize, run
from ai_edge_litert import schema_py_generated as schema
from qhyvit.errors import GraphError
from qhyvit.ops import all_ops, spec
from qhyvit.ops._spec import OpSpec, activate
from qhyvit.ops.fully_connected import FullyConnectedAttrs
from qhyvit.ops.gather import GatherAttrs
from qhyvit.ops.strided_slice import StridedSliceAttrs

# Options that do not change what a float or a fully integer model computes.
IGNORED = {"potScaleInt16", "asymmetricQuantizeInputs", "quantizedBiasType", "quantSpec"}
# QUANTIZE and DEQUANTIZE join float and codes; a test of their own below.
JOINTS = {"QUANTIZE", "DEQUANTIZE"}
OPS = pytest.mark.parametrize("op", all_ops().values(), ids=lambda op: op.name)


def test_every_op_has_a_case() -> None:
    files = {p.stem.upper() for p in Path(qhyvit.ops.__file__).parent.glob("*.py") if not p.stem.startswith("_")}
    assert files == set(all_ops())
    assert files - {case.op for case in CASES} == JOINTS


@OPS
def test_name_and_options_are_those_of_the_schema(op: OpSpec) -> None:
    assert hasattr(schema.BuiltinOperator, op.name)
    if not op.options:
        assert not fields(op.attrs)
        return
    assert hasattr(schema.BuiltinOptions, op.options)
    known = set(vars(getattr(schema, f"{op.options}T")()))
    named = {camel(f.name) for f in fields(op.attrs)}
    assert named <= known
    assert known - named <= IGNORED, "an option that changes the result is neither read nor refused"


@OPS
def test_quantizer_takes_what_the_fact_says(op: OpSpec) -> None:
    from ai_edge_quantizer import default_policy

    eight = set()
    for name, configs in default_policy.DEFAULT_CONFIG_CHECK_POLICY.items():
        if any(c.activation_tensor_config and c.activation_tensor_config.num_bits == 8 for c in configs):
            eight.add(name.value)
    assert op.quantizer == (op.name in eight | JOINTS)
    assert op.quantizer <= op.int8_kernel


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        (lambda: FullyConnectedAttrs(weights_format=1), "weights format 1"),
        (lambda: StridedSliceAttrs(ellipsis_mask=2), "ellipsis_mask"),
        (lambda: StridedSliceAttrs(new_axis_mask=1), "new_axis_mask"),
        (lambda: GatherAttrs(batch_dims=1), "batch_dims 1"),
        (lambda: spec("RESIZE_BILINEAR").attrs(align_corners=True, half_pixel_centers=True), "exclude each other"),
    ],
)
def test_unsupported_options_are_refused(attrs, message) -> None:
    with pytest.raises(GraphError, match=message):
        attrs()


def test_unknown_fused_activation_is_refused() -> None:
    with pytest.raises(GraphError, match="SIGN_BIT"):
        activate(torch.zeros(1), "SIGN_BIT")


@pytest.mark.parametrize("name", sorted(JOINTS))
def test_joints_pass_real_values_on_and_refuse_codes(name: str) -> None:
    op, x = spec(name), torch.randn(2, 1, 3)
    assert torch.equal(op.forward([x], op.attrs()), x)
    with pytest.raises(GraphError, match="integer codes"):
        op.forward([np.zeros(3, np.int8)], op.attrs())


FINITE = [
    c for c in CASES
    if c.spec.int8_kernel and all(o is None or not isinstance(o, np.ndarray) or np.isfinite(o).all() for o in c.operands)
]  # fmt: skip


@pytest.mark.parametrize("case", FINITE, ids=str)
@pytest.mark.parametrize("delegate", [True, False], ids=["xnnpack", "builtin"])
def test_int8_codes_are_those_of_the_simulation(case: Case, delegate: bool) -> None:
    images = case.images(4)
    grids = quantize(case, images)
    codes = [None if x is None else g.codes(x).astype(np.int8) for x, g in zip(images, grids.operands, strict=True)]
    made = interpreter(build(case, grids), delegate)
    found = run(made, codes)
    print("DELEGATED", case.op, delegated(made))

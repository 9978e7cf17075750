"""QuantPlan keeps every bit through JSON and refuses what it does not know."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhyvit.errors import InputError, PlanError
from qhyvit.plan import Choice, FoldNote, Granularity, QuantPlan, Scheme, TensorQuant

scales = st.floats(2.0**-23, 1e4, width=32)


@given(st.lists(scales, min_size=1, max_size=5))
def test_float32_scales_survive_json_exactly(values):
    quant = TensorQuant(tuple(values), (0,) * len(values), axis=0, choice=Choice(Granularity.CHANNEL, Scheme.SYMMETRIC))
    plan = QuantPlan({"w": quant}, "minmax", folds=(FoldNote("f", "p", 0.5),), image_hashes=("a",))
    back = QuantPlan.from_json(plan.to_json())
    assert back == plan
    assert [np.float32(s) for s in back.tensors["w"].scale] == [np.float32(s) for s in values]


@given(st.lists(st.floats(1e-30, 1e4), min_size=1, max_size=5))
def test_a_plan_holds_scales_as_a_file_does(values):
    found = TensorQuant(tuple(values), (0,) * len(values), axis=0).scale
    assert found == tuple(float(np.float32(v)) for v in values)


def test_one_line_a_tensor():
    plan = QuantPlan({f"t{i}": TensorQuant((1.0,), (0,)) for i in range(3)}, "minmax")
    assert sum(line.startswith('"t') and '"scale"' in line for line in plan.to_json().splitlines()) == 3


def test_unknown_keys_and_versions_are_refused():
    raw = json.loads(QuantPlan({}, "minmax").to_json())
    with pytest.raises(InputError, match="not a quantization plan"):
        QuantPlan.from_json(json.dumps({**raw, "surprise": 1}))
    with pytest.raises(InputError, match="schema_version"):
        QuantPlan.from_json(json.dumps({**raw, "schema_version": 99}))
    with pytest.raises(InputError):
        QuantPlan.from_json("half a pl")


@pytest.mark.parametrize("bad", [((0.0,), (0,)), ((1.0,), (200,)), ((1.0, 2.0), (0, 0))])
def test_impossible_quantizations_are_refused(bad):
    with pytest.raises(PlanError):
        TensorQuant(*bad)


@pytest.mark.parametrize(("name", "value"), [
    ("options", 7), ("wide", ".."), ("profile", "none"), ("seed", "0"), ("int16", {"x": "y"}), ("bridge", {"x": 3}),
    ("seconds", None), ("seconds", 10**400), ("image_hashes", [3]), ("tensors", {"x": {}}),
])  # fmt: skip
def test_values_of_another_type_are_no_plan(name, value):
    raw = {**json.loads(QuantPlan({}, "minmax").to_json()), name: value}
    with pytest.raises(InputError, match="not a quantization plan"):
        QuantPlan.from_json(json.dumps(raw))

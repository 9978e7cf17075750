"""Whole models through litert-torch at their own size: small, equal to the reference, and ours tensor by tensor."""

import numpy as np
import pytest
import torch

from qhyvit.methods.shared.bridge_blocks import bridges
from qhyvit.models import all_families, find_variant
from qhyvit.models.shared.export import export
from qhyvit.models.shared.float_error import FLOAT_TOLERANCE
from qhyvit.models.shared.source import open_source
from qhyvit.ops import spec
from qhyvit.passes import prepared
from qhyvit.sim.run import Executor
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.probe import every_tensor, make_interpreter
from tests._norms import Forms, forms

pytestmark = pytest.mark.slow
VARIANTS = [v for f in all_families().values() for v in f.variants]
MOST_OPS = {
    "mobilevit": 390, "mobilevitv2": 423, "mobile_former": 887,  # any variant; 80 of them turn operands
    "efficientformer_l1": 234, "efficientformer_l3": 431, "efficientformer_l7": 657,  # 7 a pooling mixer
    "efficientformerv2_s0": 219, "efficientformerv2_s1": 261, "efficientformerv2_s2": 401, "efficientformerv2_l": 541,
}  # fmt: skip
# of the file itself
MOST_EXPORTED = {"mobilevit": 329, "mobilevitv2": 329, "efficientformerv2_s0": 219, "mobile_former_52m": 599}
# entries to the global part, and exits from it; docs/method.md sets them beside the paper's counts
BRIDGES = {
    "mobilevit": (3, 3), "mobilevitv2": (3, 3), "efficientformer": (1, 0), "efficientformerv2_s0": (15, 5),
    "mobile_former_26m": (9, 7), "mobile_former_52m": (9, 7), "mobile_former_294m": (12, 10),
}  # fmt: skip


def real_pixels(size):
    """Two images: real ones where they are, else generated."""
    import os
    import subprocess
    import tempfile
    from pathlib import Path

    from PIL import Image

    from benchmarks.demo.images import draw_image

    shared = os.environ.get("QHYVIT_SHARED")
    if not shared:
        pictures = [draw_image(i, np.random.default_rng(i), size) for i in range(2)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(shared) / "data" / "imagenet_val_650.tar"
            subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
            paths = sorted(Path(folder).rglob("*.JPEG"))[:2] or sorted(Path(folder).rglob("*.jp*g"))[:2]
            pictures = [Image.open(p).convert("RGB").resize((size, size)) for p in paths]
    return np.stack([np.asarray(p, np.float32) / 255 for p in pictures])


@pytest.mark.parametrize("name", VARIANTS)
def test_exports_small_and_equal(name):
    family, variant = find_variant(name)
    made = export(open_source(name, seed=1, random_weights=True))
    exported = read(made.tflite)
    assert len(exported.nodes) <= MOST_EXPORTED.get(name, MOST_EXPORTED.get(family.name, len(exported.nodes)))
    graph = prepared(exported)
    assert made.facts["float_error"] < FLOAT_TOLERANCE
    assert len(graph.nodes) <= MOST_OPS.get(name, MOST_OPS.get(family.name, len(graph.nodes)))
    assert all(spec(n.op).integer for n in graph.nodes)
    assert forms(graph).long == 0
    sides = [b.entry for b in bridges(graph)]
    expected = BRIDGES.get(name, BRIDGES.get(family.name))
    assert expected is None or (sum(sides), len(sides) - sum(sides)) == expected

    executor = Executor(graph)
    interpreter = make_interpreter(serialize(graph), all_tensors=True)
    images = real_pixels(variant.input_size)
    for image, found in zip(images, every_tensor(interpreter, [x[None] for x in images]), strict=True):
        assert np.array_equal(found[graph.tensors[graph.inputs[0]].name], image[None])
        values = {t.id: torch.from_numpy(found[t.name])[None] for t in graph.activations()}
        for node in graph.nodes:
            compare_node(executor, node, values)


def test_norms_of_a_network_that_others_wrote_take_the_mean_off_first():
    """EdgeNeXt: 20 LayerNorms, some of what is turned and read elsewhere too; 6 lengths of queries and keys beside."""
    exported = read(export(open_source("timm/edgenext_xx_small", size=128, seed=1, random_weights=True)).tflite)
    assert forms(exported) == Forms(short=0, long=20)
    assert forms(prepared(exported)) == Forms(short=26, long=0)


def compare_node(executor, node, values):
    """One op on the interpreter's own operands: in whole networks with random norms rounding grows to 1e-3."""
    operands = [executor.operand(node, i, values) for i in range(len(node.inputs))]
    with torch.no_grad():
        outputs = executor.apply(node, operands)
    # a sum of terms that cancel is as exact as the terms are: measure it by them
    terms = [values[t] for t in node.inputs if t in values] if node.op in ("MEAN", "ADD", "SUB", "SUM") else []
    for t, y in zip(node.outputs, outputs, strict=True):
        largest = max(float(x.abs().max()) for x in [values[t], *terms])
        assert float((values[t] - y).abs().max()) < 1e-4 * largest + 1e-7, executor.graph.tensors[t].name

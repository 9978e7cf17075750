"""Whole models through litert-torch at their own size: small, equal to the reference, and ours tensor by tensor."""

import numpy as np
import pytest
import torch

from qhyvit.models import all_families, find_variant
from qhyvit.models._export import FLOAT_TOLERANCE, export
from qhyvit.ops import spec
from qhyvit.rewrites import rewrite
from qhyvit.sim.run import Executor
from qhyvit.tflite.read import read
from qhyvit.tflite.write import write_float
from qhyvit.verify.probe import every_tensor, make_interpreter

pytestmark = pytest.mark.slow
VARIANTS = [v for f in all_families().values() for v in f.variants]
MOST_OPS = {"mobilevit": 412, "mobilevitv2": 392, "mobile_former": 783}


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
    made = export(family, variant, None, None, None, seed=1)
    graph = rewrite(read(made.tflite, made.facts["modules"]))
    assert made.facts["float_error"] < FLOAT_TOLERANCE
    assert len(graph.nodes) <= MOST_OPS[family.name]
    assert all(spec(n.op).int8_kernel for n in graph.nodes)

    images = real_pixels(variant.input_size)
    interpreter = make_interpreter(write_float(graph), all_tensors=True)
    ids = [t.id for t in graph.activations()]
    with torch.no_grad():
        found = Executor(graph).run(torch.from_numpy(images), None, ids)
    for i, values in enumerate(every_tensor(interpreter, [x[None] for x in images])):
        for t in ids:
            name_, producer = graph.tensors[t].name, graph.producer(t)
            # a mean of values that cancel is as exact as the values are: measure it by them
            scale_of = [t, *(s for s in producer.inputs if s in found)] if producer and producer.op == "MEAN" else [t]
            largest = max(float(found[s].abs().max()) for s in scale_of)
            assert np.abs(values[name_] - found[t][i].numpy()).max() < 1e-4 * largest + 1e-7, name_

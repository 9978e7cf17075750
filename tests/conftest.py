"""Small models and images that the tests share; whole exports happen once a session."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile, default_profile

# what programs that the tests start would have of the environment here, and not of a user's
for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)

SIZE = 128  # pixels: leaves 2x2 patches even in the last stage (one patch would make softmax trivial)


@dataclass(frozen=True)
class Small:
    """One exported small model: its file, facts, rewritten graph and the reference torch module."""

    tflite: bytes
    facts: dict[str, Any]
    graph: Graph


def export_small(place: Path, name: str, weights: Path | None = None) -> Small:
    """The network as one process exported it; others that run tests at the same time find the file in ``place``."""
    from qhyvit.models.shared.export import export
    from qhyvit.models.shared.source import open_source
    from qhyvit.passes import prepared
    from qhyvit.tflite.read import read

    file, facts = place / f"{name}.tflite", place / f"{name}.json"
    with FileLock(place / f"{name}.lock"):
        if not facts.exists():
            made = export(open_source(name, weights, 10, SIZE, seed=3, random_weights=weights is None))
            file.write_bytes(made.tflite)
            facts.write_text(json.dumps(made.facts))
    return Small(file.read_bytes(), json.loads(facts.read_text()), prepared(read(file.read_bytes())))


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that all processes of one run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def small_v1(exports: Path) -> Small:
    """Trained weights: logits that mean something."""
    from benchmarks.demo.train import WEIGHTS

    return export_small(exports, "mobilevit_xxs", WEIGHTS)


@pytest.fixture(scope="session")
def small_v2(exports: Path) -> Small:
    return export_small(exports, "mobilevitv2_050")


@pytest.fixture(scope="session", params=["small_v1", "small_v2"])
def small(request: pytest.FixtureRequest) -> Small:
    found: Small = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """[12, SIZE, SIZE, 3] uint8, generated images."""
    from benchmarks.demo.images import SHAPES, draw_image

    rngs = [np.random.default_rng((7, i)) for i in range(12)]
    return np.stack([np.asarray(draw_image(i % len(SHAPES), rng, SIZE)) for i, rng in enumerate(rngs)])


@pytest.fixture(scope="session")
def inputs(pictures: np.ndarray) -> torch.Tensor:
    """The same as float in 0..1."""
    return torch.from_numpy(pictures.astype(np.float32) / 255)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and weights; skips without them."""
    folder = os.environ.get("QHYVIT_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("QHYVIT_SHARED does not name a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def arm() -> Path:
    """Folder with qemu, root, and the unpacked wheels in site; made once."""
    from benchmarks import _arm64

    folder = _arm64.folder()
    _arm64.prepare(folder)
    return folder


@pytest.fixture(scope="session")
def enlarged() -> LatencyProfile:
    """The default for tensors a thousand times larger: those of the small models are less than a border costs."""
    default = default_profile()
    kernels = {
        name: replace(k, ns_per_element=1e3 * k.ns_per_element, ns_per_mac=1e3 * k.ns_per_mac)
        for name, k in default.kernels.items()
    }
    return replace(default, kernels=kernels)

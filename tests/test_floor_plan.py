"""Imports run one way down the floors of docs/design.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"errors", "_torchvision", "progress"},
    {"registry", "options"},
    {"affine", "plan", "graph", "files", "measure"},
    {"ops", "store", "work", "data"},
    {"latency"},
    {"tflite", "sim"},
    {"lowering"},
    {"passes", "observers", "folds"},
    {"methods", "models", "verify"},
    {"bundle", "_console", "wheelhouse", "config"},
    {"stages", "evaluation", "boards", "image"},
    {"inspect", "api", "sweep", "report"},
    {"cli"},
    {"__main__"},
]
DEVICE = [
    {"errors"}, {"files", "flat", "statistics", "board", "terminal"}, {"pictures"}, {"preprocess"},
    {"manifest", "trust", "sources"}, {"runner"}, {"trial", "live"}, {"info", "profile", "update"}, {"bench"},
    {"report"}, {"cli"}, {"__main__"},
]  # fmt: skip
# sim reads ops and plan; tflite writes what it reads: neither needs the other, verify and methods join them
FLOOR = {name: i for i, floor in enumerate(FLOORS) for name in floor}
DEVICE_FLOOR = {name: i for i, floor in enumerate(DEVICE) for name in floor}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def parts(package: str, folder: str) -> list[tuple[str, Path]]:
    base = ROOT / folder / package
    return [(p.relative_to(base).parts[0].removesuffix(".py"), p) for p in sorted(base.rglob("*.py"))]


@pytest.mark.parametrize(("own", "path"), parts("qhyvit", "pipeline"))
def test_host_modules_import_lower_floors_only(own, path):
    if own == "__init__":
        return
    for name in imports(path):
        if name.startswith("qhyvit."):
            target = name.split(".")[1]
            if target in FLOOR and target != own:
                assert FLOOR[target] < FLOOR[own], f"{path.name} imports {name}"


@pytest.mark.parametrize(("own", "path"), parts("qhyvit_device", "device"))
def test_device_modules_import_lower_floors_and_never_the_host(own, path):
    for name in imports(path):
        assert not name.startswith(("qhyvit.", "torch", "timm", "benchmarks")), f"{path.name} imports {name}"
        if name.startswith("qhyvit_device.") and own != "__init__":
            target = name.split(".")[1]
            if target in DEVICE_FLOOR and target != own:
                assert DEVICE_FLOOR[target] < DEVICE_FLOOR[own], f"{path.name} imports {name}"

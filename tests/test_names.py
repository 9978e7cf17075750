"""Names of the project's own modules and classes: a shared module is no private one, and a class's name is its own."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = [path for folder in ("pipeline", "device") for path in (ROOT / folder).rglob("*.py")]


def test_no_module_is_private():
    """Other modules import every one of them; what a shelf's files share lies in its folder ``shared``."""
    assert [p for p in MODULES if p.name.startswith("_") and not p.name.startswith("__")] == []


def test_no_two_classes_have_one_name():
    found = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(path.relative_to(ROOT).as_posix())
    assert len(found) > 100
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}

"""The shape of the project's own code: names that are used once, files and functions that one sees whole."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = {ROOT / "pipeline": "qhyvit", ROOT / "device": "qhyvit_device"}
MODULES = [path for folder in STAGES for path in folder.rglob("*.py")]
MOST_LINES, MOST_OF_A_FUNCTION, MOST_IMPORTED = 400, 50, 15


def name(path):
    return path.relative_to(ROOT).as_posix()


def is_module(dotted):
    place = dotted.replace(".", "/")
    return any((folder / f"{place}.py").is_file() or (folder / place).is_dir() for folder in STAGES)


def imported(tree):
    """The modules of ours that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in STAGES.values():
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if is_module(each) else node.module for each in inside}
    return found


def test_no_module_is_private():
    """Other modules import every one of them; what a shelf's files share lies in its folder ``shared``."""
    assert [name(p) for p in MODULES if p.name.startswith("_") and not p.name.startswith("__")] == []


def test_no_two_classes_have_one_name():
    found = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(name(path))
    assert len(found) > 100
    assert {each: paths for each, paths in found.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_seen_whole(path):
    text = path.read_text()
    tree = ast.parse(text)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno - f.lineno >= MOST_OF_A_FUNCTION}
    assert len(text.splitlines()) <= MOST_LINES
    assert long == {}
    assert len(imported(tree)) <= MOST_IMPORTED

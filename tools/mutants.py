"""Mutants of the project's source: one small change each, made by cosmic-ray's operators, drawn with a seed."""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ARITHMETIC = ({"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}, {"RShift", "LShift", "BitOr", "BitAnd", "BitXor"})
ORDER_OF_STRINGS = re.compile(r"[<>]=? [\"']")
PARAMETERS = {"parameters", "lambdef"}
SAME = {"Is_Eq", "Eq_Is", "IsNot_NotEq", "NotEq_IsNot"}  # of None and of enumerations the two mean the same


@dataclass(frozen=True)
class Place:
    """Where operators can change a file, and which: (name, how many changes of its kind come before this one)."""

    path: Path
    line: int
    column: int
    operators: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Mutant:
    """One changed file: its whole new source, and what was changed where."""

    path: Path
    line: int
    function: str
    operator: str
    source: str


def _sensible(name: str) -> bool:
    """Whether an operator of cosmic-ray's makes mutants that a compiler or a type would not find at once."""
    kind, _, change = name.removeprefix("core/").partition("_")
    if kind == "ReplaceBinaryOperator":
        return any(set(change.split("_")) <= group for group in ARITHMETIC)
    return change not in SAME and not get_operator(name).arguments()


def places(path: Path) -> list[Place]:
    """All places of a file, in its order."""
    nodes = list(ast_nodes(get_ast(path.read_text())))
    stars = {n.start_pos for n in nodes if getattr(n.parent, "type", "") in PARAMETERS}  # a bare * is no product
    found: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name in filter(_sensible, operator_names()):
        operator = get_operator(name)()
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            if start in stars:
                continue
            found.setdefault(start, []).append((name, occurrence))
    return [Place(path, line, column, tuple(ways)) for (line, column), ways in sorted(found.items())]


class _WithoutTypes(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def meaning(source: str) -> str | None:
    """The syntax tree without annotations, which nothing evaluates; None of what does not compile."""
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # "is" with a literal
            compile(source, "mutant", "exec")
    except SyntaxError:
        return None
    return ast.dump(_WithoutTypes().visit(ast.parse(source)))


def functions(source: str) -> dict[int, str]:
    """Of every line inside a function, the function's name with those that it lies in; not of its first line."""
    found: dict[int, str] = {}

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef):
                found.update(dict.fromkeys(range(child.body[0].lineno, child.body[-1].end_lineno + 1), inner))
            walk(child, inner)

    walk(ast.parse(source), "")
    return found


def made(place: Place, rng: random.Random) -> Mutant | None:
    """One mutant of a place, by an operator drawn from those that change what the file means; None without any."""
    source = place.path.read_text()
    for name, occurrence in rng.sample(place.operators, len(place.operators)):
        changed = mutate_code(source, get_operator(name)(), occurrence)
        if changed is None or ORDER_OF_STRINGS.search(changed.splitlines()[place.line - 1]):
            continue
        if meaning(changed) not in (None, meaning(source)):
            return Mutant(place.path, place.line, functions(source).get(place.line, ""), name[5:], changed)
    return None


def drawn(folder: Path, seed: int) -> Iterator[Mutant]:
    """Mutants of a folder's files in random order, each place once, so that a longer draw begins as a shorter one."""
    rng = random.Random(f"{folder.name} {seed}")
    everywhere = [place for path in sorted(folder.glob("**/*.py")) for place in places(path)]
    rng.shuffle(everywhere)
    for place in everywhere:
        if (mutant := made(place, rng)) is not None:
            yield mutant

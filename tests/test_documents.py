"""The documents: every relative link, anchor and picture is there. `make docs` holds the built site to the same."""

import ast
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docker").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """Without code, which may hold what looks like a link or a heading."""
    return re.sub(r"`[^`\n]*`", lambda m: "`" * len(m[0]), FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """GitHub's anchors of a page's headings: lower case, hyphens for spaces, no other punctuation."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        base = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = sum(a == base or re.fullmatch(re.escape(base) + r"-\d+", a) is not None for a in found)
        found.add(f"{base}-{number}" if number else base)
    return found


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere in the repository."""
    lost = []
    for link in LINK.findall(prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        inside = target.resolve().is_relative_to(ROOT)
        if not inside or not target.is_file() or (anchor and anchor not in anchors(target.read_text())):
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    """The test itself can fail: a lost page, a lost anchor, a way out of the repository."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    good = "# One `two`, three\n[x](a.md#one-two-three) `[no](link.md)`\n```\n[no](link.md)\n```\n"
    (tmp_path / "a.md").write_text(good)
    assert broken(tmp_path / "a.md") == []
    (tmp_path / "b.md").write_text("[x](c.md) [y](a.md#one) [z](../out.md) ![p](p.png) [w](https://example.org)\n")
    assert broken(tmp_path / "b.md") == ["c.md", "a.md#one", "../out.md", "p.png"]


def test_the_site_shows_every_page():
    """mkdocs.yml names each of them; `make docs` refuses what it names and is not there."""
    named = set(re.findall(r"^ .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == {name_of(p) for p in PAGES}


PLACE = re.compile(r"(?<![\w/.])([\w/]+\.py):([A-Za-z_][\w.]*\w)")
MADE_UP = {"net.py", "FILE.py"}  # stand for the reader's own file
SOURCES = [ROOT / "pipeline" / "qhyvit", ROOT / "device" / "qhyvit_device", ROOT]


@cache
def names(path: Path) -> set[str]:
    """What a module defines: functions, classes, constants, and ``Class.method``."""

    def defined(body: list[ast.stmt], before: str) -> set[str]:
        found: set[str] = set()
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found |= {before + node.name}
            if isinstance(node, ast.ClassDef):
                found |= defined(node.body, f"{before}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found |= {before + t.id for t in targets if isinstance(t, ast.Name)}
        return found

    return defined(ast.parse(path.read_text()).body, "")


def lost_places(text: str) -> list[str]:
    """References ``file.py:name`` of a text that no source has."""
    lost = []
    for file, name in PLACE.findall(text):
        paths = [base / file for base in SOURCES if (base / file).is_file()]
        if file not in MADE_UP and not any(name in names(path) for path in paths):
            lost.append(f"{file}:{name}")
    return lost


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_functions_that_a_page_names_are_there(page):
    assert lost_places(page.read_text()) == []


def test_a_lost_function_is_found():
    text = "`affine.py:fit`, affine.py:fitt, `store.py:Store.none`. methods/nowhere.py:kl net.py:make"
    assert lost_places(text) == ["affine.py:fitt", "store.py:Store.none", "methods/nowhere.py:kl"]


def test_the_method_names_its_functions():
    assert len(PLACE.findall((ROOT / "docs" / "method.md").read_text())) >= 40

"""The documents: every relative link, anchor and picture is there. `make docs` holds the built site to the same."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").glob("*.md")])
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


def test_every_task_has_a_page():
    """And the overview links it."""
    from qhyvit.tasks import all_tasks

    assert {p.stem for p in (ROOT / "docs" / "tasks").glob("*.md")} == set(all_tasks())
    overview = (ROOT / "docs" / "tasks.md").read_text()
    assert [name for name in all_tasks() if f"](tasks/{name}.md)" not in overview] == []


DECISIONS = [p for p in PAGES if p.parent.name == "decisions" and p.name != "README.md"]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_has_its_form_and_is_in_the_index(page):
    """A date in the name, then what was asked, what was measured, what was decided."""
    assert re.match(r"\d{4}-\d{2}-\d{2}-[a-z0-9-]+\.md$", page.name)
    form = ["Question", "Measurement", "Decision"]
    assert [h for h in re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) if h in form] == form
    assert f"]({page.name})" in (page.parent / "README.md").read_text()


PLACE = re.compile(r"(?<![\w/.])([\w/]+\.py):([A-Za-z_][\w.]*\w)")
MADE_UP = {"net.py", "faces.py", "heads.py", "FILE.py"}  # stand for the reader's own file
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


COMMANDS_IN = re.compile(r"^(?:\S*\$ |`)?(?:venv/bin/)?(qhyvit|qhyvit-device) ([a-z][a-z-]+)([^|`#\n]*)", re.MULTILINE)


@cache
def options(program: str) -> dict[str, set[str]]:
    """Options of each command of a program."""
    if program == "qhyvit":
        import typer

        from qhyvit.cli import app

        found = typer.main.get_command(app).commands  # type: ignore[attr-defined]
        shown = {n: [p for p in c.params if not getattr(p, "hidden", False)] for n, c in found.items()}
        return {n: {o for p in ps for o in (*p.opts, *p.secondary_opts)} | {"--help"} for n, ps in shown.items()}
    from qhyvit_device.cli import _parser

    (choices,) = (a.choices for a in _parser()._subparsers._group_actions)  # type: ignore[union-attr]
    return {name: set(p._option_string_actions) for name, p in choices.items()}


def unknown_options(text: str) -> list[str]:
    """Commands and options in code that the programs do not have."""
    code = "\n".join([*FENCE.findall(text), *re.findall(r"`[^`\n]+`", FENCE.sub("", text))])
    lost = []
    for program, command, rest in COMMANDS_IN.findall(code):
        known = options(program).get(command)
        given = {w.partition("=")[0] for w in shlex.split(re.sub(r"['\\]", "", rest)) if w.startswith("--")}
        if known is None or given - known:
            lost.append(f"{program} {command} {' '.join(sorted(given - (known or set())))}".strip())
    return lost


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_that_a_page_shows_are_there(page):
    assert unknown_options(page.read_text()) == []


def test_examples_of_the_help_have_options_that_are_there():
    import typer

    from qhyvit.cli import app

    epilogs = [c.epilog or "" for c in typer.main.get_command(app).commands.values()]  # type: ignore[attr-defined]
    assert len([e for e in epilogs if "Example" in e]) > 20
    assert [lost for epilog in epilogs for lost in unknown_options(epilog)] == []


def test_what_is_no_option_any_more_is_unknown():
    assert unknown_options("`qhyvit build X --images D --profile cpu`") == ["qhyvit build --profile"]


def test_an_unknown_option_is_found():
    fence = "```\nqhyvit build X --images D --outt B\n$ qhyvit-device walk B\n```\n"
    text = f"`qhyvit report B --work W`, `qhyvit nope`\n{fence}"
    assert unknown_options(text) == ["qhyvit build --outt", "qhyvit-device walk", "qhyvit nope"]


PROMPTS = re.compile(r"^(?:qhyvit(?:-device)?: error: |warning: |setup: error: |install\.sh: )")
MESSAGE_SOURCES = [*ROOT.glob("pipeline/qhyvit/**/*.py"), *ROOT.glob("device/qhyvit_device/**/*.py")]


@cache
def templates() -> list[tuple[str, ...]]:
    """Texts of the sources, each as the parts between its placeholders: f-strings, plain strings, shell scripts."""
    found = [(line,) for line in (ROOT / "tools" / "setup.sh").read_text().splitlines()]
    for path in MESSAGE_SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                found.append(tuple("".join(parts).split("\0")))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                plain = node.value.replace('"\n             "', "")  # a string of the script that install.sh holds
                found.append(tuple(re.split(r"%[sd]", plain)))
    return found


def is_said(message: str) -> bool:
    """Whether some text of the sources can print ``message``, in which an ellipsis stands for what differs."""
    quoted = [p.strip() for p in PROMPTS.sub("", message.strip()).split("…") if len(p.strip()) > 3]
    return any(_in_order(quoted, parts) for parts in templates())


def _in_order(quoted: list[str], parts: tuple[str, ...]) -> bool:
    """Each quoted piece lies within one part of a text, in this order."""
    at = 0
    for piece in quoted:
        at = next((i for i in range(at, len(parts)) if piece in parts[i]), len(parts))
    return bool(quoted) and at < len(parts)


def quoted_messages() -> list[str]:
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "troubleshooting.md").read_text(), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("message", quoted_messages())
def test_a_quoted_message_is_one_of_ours(message):
    assert is_said(message)


def test_a_message_that_nothing_prints_is_found():
    assert is_said("qhyvit-device: error: …: links are refused in a bundle")
    assert not is_said("qhyvit-device: error: …: links are forbidden in a bundle")
    assert not is_said("qhyvit: error: … exists; use --forced to replace it, or another --out")
    assert not is_said("qhyvit: error: …: …")

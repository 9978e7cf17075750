"""What a release needs and can be seen without building one; `make release-check` builds, installs and runs it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from setuptools import find_namespace_packages

import qhyvit
import qhyvit_device

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_version_stands_in_one_place():
    assert "version" not in PROJECT
    assert qhyvit.__version__ == qhyvit_device.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", qhyvit.__version__)
    for name in ("device.Dockerfile", "host.Dockerfile", "docker-bake.hcl"):  # defaults of builds by hand
        (found,) = re.findall(r'VERSION"?(?:=| \{ default = ")([\d.]+)', (ROOT / "docker" / name).read_text())
        assert found == qhyvit.__version__, name


def test_the_citation_names_this_version_and_licence():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {qhyvit.__version__}\n" in text
    assert f"\nlicense: {PROJECT['license']}\n" in text


def test_the_bill_of_materials_names_every_requirement_and_the_licence(tmp_path, monkeypatch):
    """By the metadata command that wheels and sdists are made with, and by pip's own parser."""
    monkeypatch.chdir(ROOT)
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.egg-info/sboms/*.cdx.json")
    bill = json.loads(path.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    about = bill["metadata"]["component"]
    assert (about["name"], about["version"]) == ("qhyvit", qhyvit.__version__)
    assert about["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    wanted = set()
    for extra, lines in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items():
        wanted |= {(r.name, str(r.specifier), extra) for r in map(Requirement, lines)}
    found = set()
    for part in bill["components"]:
        properties = {p["name"]: p["value"] for p in part["properties"]}
        versions = str(SpecifierSet(properties["qhyvit:versions"]))
        found.add((part["name"], versions, properties.get("qhyvit:extra", "")))
        assert part["purl"].startswith("pkg:pypi/")
        assert part["scope"] == ("optional" if "qhyvit:extra" in properties else "required")
    assert found == wanted
    refs = [part["bom-ref"] for part in bill["components"]]
    assert len(refs) == len(set(refs))
    assert bill["dependencies"] == [{"ref": about["bom-ref"], "dependsOn": refs}]


def test_the_workflow_calls_what_runs_here():
    assert "- run: .ci/run\n" in (ROOT / ".github" / "workflows" / "check.yml").read_text()
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_wheel_gets_both_packages_and_no_other():
    """A folder of scripts is a package too, to setuptools."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    found = {p for w in settings["where"] for p in find_namespace_packages(ROOT / w, include=settings["include"])}
    assert {p.partition(".")[0] for p in found} == {"qhyvit", "qhyvit_device"}
    assert "examples" in find_namespace_packages(ROOT / "device")


def test_both_programs_tell_their_version():
    for module in ("qhyvit", "qhyvit_device"):
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == qhyvit.__version__


def test_the_changelog_keeps_its_form():
    """Keep a Changelog: the newest section first, kinds from its list, each once, and something in each."""
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert re.match(r"\[(Unreleased|\d+\.\d+\.\d+)\]", sections[0])
    for section in sections:
        title = section.splitlines()[0]
        assert re.fullmatch(r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", title)
        kinds = re.findall(r"^### (.+)\n((?:.+\n)*)", section, re.MULTILINE)
        assert {k for k, _ in kinds} <= KINDS
        assert len(kinds) == len({k for k, _ in kinds})
        assert all(body.startswith("- ") for _, body in kinds)


def test_without_the_host_stage_one_line_says_what_to_install(tmp_path):
    (tmp_path / "typer").mkdir()
    (tmp_path / "typer" / "__init__.py").write_text("raise ModuleNotFoundError('gone', name='typer')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from qhyvit.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'qhyvit[pipeline]'" in done.stderr


def test_no_arguments_show_the_help_and_no_empty_error():
    done = subprocess.run([sys.executable, "-m", "qhyvit"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error" not in done.stderr

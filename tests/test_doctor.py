"""`qhyvit doctor`: what is missing for which command, and when that is an error."""

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from qhyvit import cli, doctor
from qhyvit_device.doctor import MISSING, NOTE, OK, WARNING, Finding

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def by_name(findings):
    return {finding.name: finding for finding in findings}


def asked(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *words])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def without(monkeypatch):
    """Some distributions are not there."""
    real = metadata.version

    def hide(*names):
        def version(name):
            if name in names:
                raise metadata.PackageNotFoundError(name)
            return real(name)

        monkeypatch.setattr(metadata, "version", version)

    return hide


@pytest.fixture(autouse=True)
def project(monkeypatch):
    """What the project file asks for, whichever version of the package is installed."""
    extras = PROJECT["optional-dependencies"].items()
    lines = [*PROJECT["dependencies"], *(f'{line}; extra == "{extra}"' for extra, found in extras for line in found)]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)


@pytest.fixture(autouse=True)
def exporter(monkeypatch):
    """It takes seconds to load; one test asks the real one."""
    real = doctor.PROBE
    monkeypatch.setattr(doctor, "PROBE", "")
    return real


def test_this_environment_can_build(capsys, monkeypatch, exporter):
    monkeypatch.setattr(doctor, "PROBE", exporter)
    code, out, err = asked(capsys)
    assert (code, err) == (0, "")
    assert f"ok       torch: {metadata.version('torch')}" in out
    assert "ok       exporter: litert-torch loads" in out


def test_what_every_build_needs_is_an_error_and_the_rest_is_a_note(without, capsys):
    without("networkx", "jinja2", "onnx2pytorch")
    code, out, err = asked(capsys, "--json")
    told = json.loads(out)
    states = {f["name"]: f["state"] for f in told["findings"]}
    assert (code, told["passed"]) == (1, False)
    assert (states["networkx"], states["jinja2"], states["onnx2pytorch"]) == (MISSING, NOTE, NOTE)
    assert err == "qhyvit: error: every build needs what is missing here: networkx\n"
    found = by_name(doctor.examine())
    assert found["networkx"].remedy == "pip install 'networkx>=3.1,<4'"
    assert "qhyvit report" in found["jinja2"].found
    assert "--onnx" in found["onnx2pytorch"].found


def test_every_distribution_of_the_project_is_looked_at():
    names = {line.partition(">")[0].partition("<")[0] for line in PROJECT["dependencies"]}
    for extra in ("pipeline", *doctor.EXTRAS):
        names |= {line.partition(">")[0].partition("<")[0] for line in PROJECT["optional-dependencies"][extra]}
    assert names - {"ai-edge-litert"} <= set(by_name(doctor.examine()))
    assert set(doctor.SOMETIMES) <= names


def test_a_version_that_was_not_tried_is_a_warning(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "99")
    assert by_name(doctor.examine())["torch"] == Finding(
        "torch", WARNING, "99 was not tried, >=2.6,<2.15 was", "pip install 'torch>=2.6,<2.15'"
    )


def test_an_exporter_that_does_not_load_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE", "from json import x")
    found = by_name(doctor.examine())["exporter"]
    assert found.state == MISSING
    assert found.found.startswith("litert-torch does not load: ImportError: cannot import name 'x' from 'json'")


def test_settings_that_slow_a_build_or_hide_the_network_are_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    found = by_name(doctor.examine())
    assert found["HF_HUB_OFFLINE"].state == found["OMP_NUM_THREADS"].state == NOTE
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert not {"HF_HUB_OFFLINE", "OMP_NUM_THREADS"} & set(by_name(doctor.examine()))


def test_little_room_and_little_memory_are_warnings_not_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "BUILD_DISK_MIB", 1 << 40)
    monkeypatch.setattr(doctor, "BUILD_MEMORY_MIB", 1 << 40)
    found = by_name(doctor.examine(tmp_path))
    assert found["disk"].state == found["memory"].state == WARNING
    assert "--input-size" in found["memory"].remedy
    assert asked(capsys)[0] == 0


def test_programs_that_are_missing_are_notes(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = by_name(doctor.examine())
    assert found["ssh"].line.startswith("note     ssh: not installed: for `qhyvit bench --ssh`; ")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert by_name(doctor.examine())["ssh"].state == OK

"""What is missing is named with its remedy; what is there is named with its version."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from qhyvit_device import cli, doctor
from qhyvit_device.doctor import MISSING, NOTE, OK, WARNING, Requirement

PI = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0b\n"
MEMORY = "MemTotal:  8000000 kB\nMemAvailable: {} kB\n"


def root(tmp_path, cpuinfo=PI, free_kb=4_000_000, governor="performance"):
    """A made-up /proc and /sys."""
    for path, text in {
        "proc/cpuinfo": cpuinfo, "proc/meminfo": MEMORY.format(free_kb),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": governor,
        "sys/devices/system/cpu/cpu0/regs/identification/midr_el1": "0x0",
    }.items():  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.mark.parametrize(("bounds", "version", "fits"), [
    (">=1.24,<3", "1.24.0", True), (">=1.24,<3", "1.23.9", False), (">=1.24,<3", "3", False), ("<3", "3.0.1", False),
    ("<3,>=2.3", "2.10", True), ("==0.10.0", "0.10", True), ("!=1.5", "1.5.0", False), ("~=1.4.2", "1.4.9", True),
    ("~=1.4.2", "1.5", False), (">2.6", "2.6.0+cpu", False), ("<=2.6", "2.6.0+cpu", True), ("", "0", True),
])  # fmt: skip
def test_bounds_allow_what_packaging_allows(bounds, version, fits):
    from packaging.specifiers import SpecifierSet

    assert SpecifierSet(bounds).contains(version.partition("+")[0]) == fits
    assert Requirement("it", bounds, "").allows(version) == fits


def test_the_package_asks_for_what_its_project_file_says(monkeypatch):
    lines = ["numpy<3,>=1.24", "torch<2.15,>=2.6; extra == 'pipeline'", 'onnx2pytorch<0.7,>=0.6 ; extra == "onnx"']
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert doctor.requirements() == [
        Requirement("numpy", ">=1.24,<3", ""), Requirement("torch", ">=2.6,<2.15", "pipeline"),
        Requirement("onnx2pytorch", ">=0.6,<0.7", "onnx"),
    ]  # fmt: skip

    def gone(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", gone)
    assert doctor.requirements() == []


def test_a_package_is_there_missing_or_of_another_version():
    numpy = Requirement("numpy", ">=1.24,<3", "")
    assert doctor.installed(numpy, "x", needed=True).state == OK
    other = doctor.installed(Requirement("numpy", "<1", ""), "x", needed=True)
    assert (other.state, other.remedy) == (WARNING, "pip install 'numpy<1'")
    gone = Requirement("no-such-package", ">=1", "")
    assert doctor.installed(gone, "for `x`", needed=True).line == (
        "MISSING  no-such-package: not installed: for `x`; pip install 'no-such-package>=1'"
    )
    assert doctor.installed(gone, "x", needed=False).state == NOTE


def test_a_board_says_what_makes_int8_fast(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    found = by_name(doctor.processor(root(tmp_path)))
    assert found["processor"].found == "Cortex-A76, with asimddp"
    assert found["governor"].state == OK
    older = PI.replace(" asimddp", "").replace("0xd0b", "0xd08")
    slow = by_name(doctor.processor(root(tmp_path, older, governor="ondemand")))
    assert slow["processor"].line.startswith("note     processor: Cortex-A72, without dot products of int8")
    assert (slow["governor"].state, slow["governor"].found) == (NOTE, "ondemand: times vary")
    assert found["cores"].found.startswith(f"{len(os.sched_getaffinity(0))} of ")


def test_little_memory_is_a_warning_and_a_container_has_its_own(tmp_path):
    place = root(tmp_path, free_kb=200_000)
    low = doctor.memory(256, "end other programs", place)
    assert (low.state, low.remedy) == (WARNING, "end other programs")
    assert "195 MiB free" in low.found
    assert doctor.memory(100, "", place).state == OK
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(str(100 << 20))
    (group / "memory.current").write_text(str(60 << 20))
    assert "40 MiB free" in doctor.memory(100, "", place).found
    (group / "memory.max").write_text("max\n")
    assert "195 MiB free" in doctor.memory(100, "", place).found
    assert doctor.memory(100, "", tmp_path / "none").state == NOTE


def test_sys_that_is_not_mounted_is_named(tmp_path):
    assert [f.state for f in doctor.system_files(tmp_path)] == [WARNING]
    assert doctor.system_files(root(tmp_path)) == []


def test_the_command_says_all_of_it(capsys):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok       runtime: ai-edge-litert ") for line in lines)
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is True
    assert {"python", "runtime", "processor", "cores", "memory"} <= {f["name"] for f in told["findings"]}
    assert all(set(f) == {"name", "state", "found", "remedy"} for f in told["findings"])


def test_a_missing_runtime_is_exit_code_1_and_its_remedy():
    """In a process of its own, where the interpreter cannot be imported."""
    program = (
        "import sys\n"
        "for name in ('ai_edge_litert', 'tensorflow', 'tflite_runtime'): sys.modules[name] = None\n"
        "from qhyvit_device.cli import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    paths = os.pathsep.join(str(Path(__file__).parents[2] / stage) for stage in ("device", "pipeline"))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(MISSING)]
    assert line == "MISSING  runtime: no TFLite interpreter is installed; pip install ai-edge-litert"

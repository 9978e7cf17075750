"""Whether this machine can do what the commands need, with one line of remedy for all that is amiss."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from qhyvit_device import doctor
from qhyvit_device.doctor import MISSING, NOTE, OK, Finding, Requirement

# what a distribution of the extra "pipeline" is for, where that is not every build
SOMETIMES = {
    "jinja2": "for `qhyvit report`", "matplotlib": "for the chart of `qhyvit sweep`",
    "huggingface-hub": "for --pretrained and hf-hub: names",
}  # fmt: skip
EXTRAS = {
    "sweep": "for `qhyvit sweep`, and `qhyvit evaluate` with --workers", "onnx": "for --onnx",
    "sign": "for `qhyvit sign`, which may have an environment of its own",
    "tflm": "for --target tflm", "ethos-u": "for --target ethos-u55 and the like",
}  # fmt: skip
PROGRAMS = {"ssh": "for `qhyvit bench --ssh`", "dpkg-deb": "for `qhyvit bundle-image` (apt-get and dpkg-deb)"}
BUILD_MEMORY_MIB = 5000  # mobilevitv2_075 with 128 images takes 4.9 GB
BUILD_DISK_MIB = 2000  # work directories of a few builds
PROBE = "import qhyvit, timm, litert_torch"
SMALLER = "give a smaller --input-size or model, or make swap"


def examine(place: Path = Path(), root: Path = Path("/")) -> list[Finding]:
    """Everything that the commands need, those of the default build first.

    Args:
        place: where builds are made; ``root``: where ``/proc`` and ``/sys`` are looked for.
    """
    return [
        doctor.python(), *_packages(), doctor.runtime(), *_traps(), *_exporter(),
        *doctor.processor(root), *doctor.system_files(root), doctor.memory(BUILD_MEMORY_MIB, SMALLER, root),
        doctor.disk(place.resolve(), BUILD_DISK_MIB), *_programs(),
    ]  # fmt: skip


def _packages() -> list[Finding]:
    wanted = doctor.requirements()
    if not wanted:
        return [Finding("qhyvit", NOTE, "not installed: what it needs is not known", "pip install 'qhyvit[pipeline]'")]
    found: dict[str, Finding] = {}
    for requirement in wanted:
        if (finding := _package(requirement)) is not None:
            found.setdefault(finding.name, finding)  # several extras may ask for one
    return list(found.values())


def _package(wanted: Requirement) -> Finding | None:
    """One that a command needs; None of what only developers do."""
    if wanted.name == doctor.RUNTIME:
        return None  # it is loaded, which says more
    if wanted.extra in EXTRAS:
        return doctor.installed(wanted, EXTRAS[wanted.extra], needed=False)
    if wanted.extra not in ("", "pipeline"):
        return None
    sometimes = SOMETIMES.get(wanted.name)
    return doctor.installed(wanted, sometimes or "no build works without it", needed=sometimes is None)


def _traps() -> list[Finding]:
    """What is installed and does not do what one thinks."""
    found = []
    if find_spec("torch") is not None:
        import torch

        if torch.version.cuda is not None and not torch.cuda.is_available():
            found.append(Finding("torch", NOTE, f"a build for CUDA {torch.version.cuda}, without a GPU to use it",
                                 "https://download.pytorch.org/whl/cpu has smaller ones"))  # fmt: skip
        from qhyvit.torchvision_stand_in import loads

        if find_spec("torchvision") is not None and not loads(torch):
            found.append(Finding("torchvision", NOTE, "its operators do not load beside this torch; builds do without",
                                 "in scripts of your own import qhyvit before timm"))  # fmt: skip
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and threads.isdigit() and int(threads) < (os.cpu_count() or 1):
        found.append(Finding("OMP_NUM_THREADS", NOTE, f"{threads}: builds use no more cores", "unset it"))
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        found.append(Finding("HF_HUB_OFFLINE", NOTE, "set: --pretrained takes what is in the cache alone", "unset it"))
    return found


def _exporter() -> list[Finding]:
    """litert-torch, imported: an environment may lack what it needs in turn."""
    if find_spec("litert_torch") is None:
        return []  # that it is missing is said already
    # in a process of its own: libraries below it print, and one that is too old may end the process
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:160]
        return [Finding("exporter", MISSING, f"litert-torch does not load: {said}", "pip install 'qhyvit[pipeline]'")]
    return [Finding("exporter", OK, "litert-torch loads")]


def _programs() -> list[Finding]:
    return [
        Finding(name, OK, str(path)) if (path := shutil.which(name)) else
        Finding(name, NOTE, f"not installed: {what}", "install it with the system's package manager")
        for name, what in PROGRAMS.items()
    ]  # fmt: skip

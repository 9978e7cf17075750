"""Which TFLite interpreter runs, and what it is called."""

import sys
from importlib import metadata
from types import ModuleType

import pytest

from qhyvit_device import interpreter
from qhyvit_device.errors import DeviceError

MODULES = {
    "ai-edge-litert": "ai_edge_litert.interpreter", "tensorflow": "tensorflow.lite.python.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}  # fmt: skip


def only(monkeypatch, module, distributions):
    """Leave this interpreter module alone installed, from these distributions (name -> version)."""
    for name in MODULES.values():
        monkeypatch.setitem(sys.modules, name, None)
    if module:
        for i in range(module.count(".") + 1):
            monkeypatch.setitem(sys.modules, ".".join(module.split(".")[: i + 1]), ModuleType(module))
        sys.modules[module].Interpreter = f"the interpreter of {module}"

    def version(name):
        if name not in distributions:
            raise metadata.PackageNotFoundError(name)
        return distributions[name]

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [("ai-edge-litert", "ai-edge-litert"), ("tensorflow", "tensorflow"), ("tensorflow", "tensorflow-cpu"),
     ("tflite-runtime", "tflite-runtime")],
)  # fmt: skip
def test_every_runtime_is_found_and_tells_its_version(monkeypatch, name, distribution):
    only(monkeypatch, MODULES[name], {distribution: "2.1"})
    assert interpreter.find_interpreter() == (f"the interpreter of {MODULES[name]}", name, "2.1")


def test_a_runtime_without_a_distribution_says_so(monkeypatch):
    only(monkeypatch, MODULES["tensorflow"], {"numpy": "2"})
    assert interpreter.find_interpreter()[1:] == ("tensorflow", "unknown")


def test_no_runtime_is_one_line_with_the_remedy(monkeypatch):
    only(monkeypatch, None, {})
    with pytest.raises(DeviceError, match="pip install ai-edge-litert"):
        interpreter.find_interpreter()

"""Device stage: runs and checks a bundle with numpy, pillow and ai-edge-litert; never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qhyvit_device.errors import DeviceError
from qhyvit_device.manifest import Manifest
from qhyvit_device.preprocess import Preprocess

if TYPE_CHECKING:
    from qhyvit_device.gallery import Gallery
    from qhyvit_device.live import LiveModel
    from qhyvit_device.results import Outputs, Prediction, SegmentationMap
    from qhyvit_device.runner import Model

__version__ = "0.1.0"
__all__ = [
    "DeviceError", "Gallery", "LiveModel", "Manifest", "Model", "Outputs", "Prediction", "Preprocess",
    "SegmentationMap", "__version__",
]  # fmt: skip
LATE = {
    "Gallery": "gallery", "LiveModel": "live", "Model": "runner", "Outputs": "results", "Prediction": "results",
    "SegmentationMap": "results",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the interpreter only when a model is asked for."""
    if name in LATE:
        return getattr(import_module(f"qhyvit_device.{LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

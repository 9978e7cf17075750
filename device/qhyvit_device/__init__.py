"""Device stage: runs and checks a bundle with numpy, pillow and ai-edge-litert; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qhyvit_device.errors import DeviceError
from qhyvit_device.manifest import Manifest
from qhyvit_device.preprocess import Preprocess

if TYPE_CHECKING:
    from qhyvit_device.live import LiveModel
    from qhyvit_device.runner import Model, Prediction

__version__ = "0.1.0"
__all__ = ["DeviceError", "LiveModel", "Manifest", "Model", "Prediction", "Preprocess", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the interpreter only when a model is asked for."""
    if name in ("Model", "Prediction"):
        from qhyvit_device import runner

        return getattr(runner, name)
    if name == "LiveModel":
        from qhyvit_device import live

        return live.LiveModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Host stage: a float hybrid vision transformer becomes a verified, fully integer ``.tflite``.

``build``, ``calibrate``, ``evaluate``, ``run`` and the types they give are the Python interface (``docs/api.md``).
Importing this package is cheap: torch, timm and litert-torch load with the stage that runs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qhyvit import torchvision_stand_in
from qhyvit_device import __version__ as __version__

if TYPE_CHECKING:
    from qhyvit.api import Built, Calibrated, build, calibrate, evaluate, run
    from qhyvit.config import BuildConfig
    from qhyvit.errors import QhyvitError
    from qhyvit.evaluation import Evaluation
    from qhyvit.graph.ir import Graph
    from qhyvit.plan import QuantPlan

_HOME = {
    "BuildConfig": "config", "Built": "api", "Calibrated": "api", "build": "api", "calibrate": "api",
    "evaluate": "api", "run": "api", "Evaluation": "evaluation", "Graph": "graph.ir", "QhyvitError": "errors",
    "QuantPlan": "plan",
}  # fmt: skip
__all__ = [
    "BuildConfig", "Built", "Calibrated", "Evaluation", "Graph", "QhyvitError", "QuantPlan", "__version__", "build",
    "calibrate", "evaluate", "run",
]  # fmt: skip


torchvision_stand_in.install()  # `import timm` works behind `import qhyvit`, beside a CPU torch too


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

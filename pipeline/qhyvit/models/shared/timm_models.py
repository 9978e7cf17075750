"""timm, which beside a CPU build of torch imports only where ``qhyvit`` was imported first."""

from __future__ import annotations

from typing import Any

import qhyvit.torchvision_stand_in  # noqa: F401 - the package has installed it


def import_timm() -> Any:
    """The timm package."""
    import timm

    return timm

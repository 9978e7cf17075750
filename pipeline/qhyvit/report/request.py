"""What a report is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qhyvit import files
from qhyvit.progress import Log, Progress, silent

COUNT = 1000  # images by default


@dataclass(frozen=True)
class Request:
    """What to report on.

    Args:
        bundle: folder; ``work``: its work directory, None for BUNDLE.work.
        images: folder to run both files on; ``labels``: another labels.csv, or maps; ``class_map``: see
            :class:`qhyvit.tasks.shared.score.LabelMaps`; ``mode``: resize mode; ``count``: images.
        bench: file of measured latencies. ``float_model``: another float file than the build's.
    """

    bundle: Path
    work: Path | None = None
    images: Path | None = None
    labels: Path | None = None
    bench: Path | None = None
    float_model: Path | None = None
    mode: str | None = None
    count: int = COUNT
    class_map: tuple[int, ...] | None = None
    progress: Progress = field(default=silent)
    log: Log = field(default=silent)

    @property
    def work_folder(self) -> Path:
        """Where the work directory should be."""
        return self.work or files.beside(self.bundle, ".work")

"""The settings of a build beside its work: ``config.json``, for the bundle."""

from __future__ import annotations

import json

from qhyvit import files
from qhyvit.config import CONFIG
from qhyvit.errors import InputError
from qhyvit.options import Settings
from qhyvit.work import Work


def note(work: Work, **parts: Settings) -> None:
    """Keep settings for the bundle, paths by their last names: what is in them, hashes say."""
    try:
        kept = work.json(CONFIG)
    except InputError:
        if (work.folder / CONFIG).is_file() and not work.force:
            raise
        kept = {}
    kept |= {name: part.to_json(lambda path: path.name) for name, part in parts.items()}
    files.write_text(work.folder / CONFIG, json.dumps(kept, indent=1) + "\n")

"""Hook of mkdocs: pages lie in the site where they lie in the repository, README and the like included."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docker/README.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's own files, and those of the repository under their paths there."""
    root = Path(config.config_file_path).parent
    own = [f.src_uri for f in files if f.src_dir == config.docs_dir]
    kept = [f for f in files if f.src_dir != config.docs_dir]
    places = {uri: root / uri for uri in (*OUTSIDE, *(f"docs/{uri}" for uri in own))}
    places["site.css"] = root / "tools" / "site.css"
    return Files([*kept, *(File.generated(config, uri, abs_src_path=str(path)) for uri, path in places.items())])

"""Puts a bill of materials (CycloneDX 1.6, PEP 770) beside the metadata; all else stands in ``pyproject.toml``."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.egg_info import egg_info

ROOT = Path(__file__).parent
NAME = "qhyvit.cdx.json"


def component(line: str, extra: str) -> dict[str, Any]:
    """A requirement as a component: which versions fit stands in a property, for a wheel pins none."""
    name = re.match(r"[\w.-]+", line)[0]
    properties = [{"name": "qhyvit:versions", "value": line[len(name) :].strip() or "any"}]
    if extra:
        properties.append({"name": "qhyvit:extra", "value": extra})
    package = f"pkg:pypi/{name.lower().replace('_', '-')}"
    return {
        "type": "library", "bom-ref": f"{package}#{extra}" if extra else package, "name": name, "purl": package,
        "scope": "optional" if extra else "required", "properties": properties,
    }  # fmt: skip


def bill(project: dict[str, Any], version: str) -> dict[str, Any]:
    """The bill of materials; the same project gives the same bytes. The package bundles nothing of others."""
    package = f"pkg:pypi/{project['name']}@{version}"
    extras = project["optional-dependencies"]
    needed = [component(line, "") for line in project["dependencies"]]
    optional = [component(line, extra) for extra in sorted(extras) for line in extras[extra]]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {
            "type": "library", "bom-ref": package, "name": project["name"], "version": version, "purl": package,
            "description": project["description"], "licenses": [{"license": {"id": project["license"]}}],
        }},
        "components": [*needed, *optional],
        "dependencies": [{"ref": package, "dependsOn": [c["bom-ref"] for c in (*needed, *optional)]}],
    }  # fmt: skip


class WithBill(egg_info):
    """Writes it where wheels and sdists take their metadata from."""

    def run(self) -> None:
        """Beside PKG-INFO, in ``sboms/``."""
        super().run()
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        place = Path(self.egg_info, "sboms", NAME)
        place.parent.mkdir(exist_ok=True)
        text = json.dumps(bill(project, self.distribution.get_version()), indent=1) + "\n"
        place.write_text(text)


if __name__ == "__main__":
    setup(cmdclass={"egg_info": WithBill})

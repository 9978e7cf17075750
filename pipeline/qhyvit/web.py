"""A bundle as a page that runs in a browser, from local files: LiteRT.js, the file with pixels as input, and the page.

LiteRT.js is a package of npm (``@litertjs/core``); what is installed of it is copied, nothing is fetched.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import jinja2
from markupsafe import Markup

from qhyvit import files
from qhyvit.ends import UINT8, write_ends
from qhyvit.errors import InputError
from qhyvit_device.runner import Model

PACKAGES = ("core", "wasm-utils")
INSTALL = "npm install @litertjs/core"
PARTS = ("index.html", "model.tflite", "litert")


def write_page(bundle: Path, modules: Path, out: Path, *, force: bool = False) -> int:
    """Write the folder ``out``; it appears whole or not at all.

    Args:
        modules: the ``node_modules`` in which ``@litertjs/core`` is installed.

    Returns:
        Bytes of all that was written.

    Raises:
        InputError: the bundle is none, or has no classes; LiteRT.js is not installed there.
        CheckFailedError: see :func:`qhyvit.ends.write_ends`.
        OutputError: it cannot be written.
    """
    files.check_free(out, force=force, ours=_is_ours)
    places = {name: modules / "@litertjs" / name for name in PACKAGES}
    if not all((place / "dist" / "index.js").is_file() for place in places.values()):
        raise InputError(f"{modules} has no @litertjs/core: run `{INSTALL}` there, and name its node_modules")
    model = Model.load(bundle)
    model.check_command("classify")
    if model.manifest.task != "classify" or model.manifest.classes < 2:
        raise InputError(f"{bundle}: the page shows one class of several, and this gives {model.manifest.task}")
    first, entry = model.manifest.outputs[0], model.manifest.input
    facts = {
        "height": entry.height, "width": entry.width, "channels": entry.channels, "labels": model.labels,
        "mode": model.manifest.preprocess.mode, "resize": model.manifest.preprocess.resize, "scale": first.scale,
        "zero_point": 128 + (first.zero_point or 0),
    }  # fmt: skip
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("qhyvit", "shipped_templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = templates.get_template("index.html.j2")
    with files.new_folder(out, force=force, ours=_is_ours) as folder, TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.tflite"
        write_ends(bundle, file, UINT8)
        shutil.copy(file, folder / "model.tflite")
        for name, place in places.items():
            (folder / "litert" / name).mkdir(parents=True)
            shutil.copy(place / "dist" / "index.js", folder / "litert" / name)
        (folder / "litert" / "wasm").mkdir()
        for part in sorted((places["core"] / "wasm").glob("litert_wasm_*")):
            if "threaded" not in part.name and "jspi" not in part.name:  # these ask for headers of the server
                shutil.copy(part, folder / "litert" / "wasm")
        # a script's end in a label must not end the page's own
        written = json.dumps(facts).replace("<", "\\u003c")
        (folder / "index.html").write_text(page.render(model=model.manifest.model, facts=Markup(written)))
        return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _is_ours(folder: Path) -> bool:
    """Whether a folder was written here, and may be replaced."""
    return files.only(folder, PARTS)

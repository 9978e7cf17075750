"""Cards of the trained models of the families (``docs/cards``): built by ``qhyvit zoo``, measured on Imagenette.

Imagenette's labels number ImageNet's classes, and the models have ten: a ``labels.csv`` with their ranks is written
first. A second call makes what is missing or has changed. Measure on a machine left to itself. Example:

    python -m benchmarks.cards --data images --work build/cards
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks._files import ROOT, ranked_images
from qhyvit import files

CARDS = ROOT / "docs" / "cards"
FAMILIES = ("efficientformer", "efficientformerv2", "mobile_former", "mobilevit", "mobilevitv2")
CLASSES = 10
LICENCE = "Apache-2.0; trained on Imagenette, whose pictures are ImageNet's"
SECONDS = 5  # of the bench


def labels_into(place: Path, images: Path) -> Path:
    """A ``labels.csv`` of Imagenette's validation images with classes from 0 to 9, in the order of ImageNet's."""
    found, stream = ranked_images(images, images / "labels_val.csv", CLASSES), io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file", "class_index"])
    table.writerows([path.relative_to(images).as_posix(), int(rank)]
                    for path, rank in zip(found.paths, found.truth, strict=True))  # fmt: skip
    files.write_text(place / "labels.csv", stream.getvalue())
    return place / "labels.csv"


def spec(images: Path, labels: Path) -> str:
    """The zoo as TOML."""
    text = [
        'title = "Trained models of the families"',
        f"[defaults.data]\nimages = {json.dumps(str(images / 'train'))}\nresize_mode = \"squash\"",
        f"[defaults.card]\nimages = {json.dumps(str(images))}\nlabels = {json.dumps(str(labels))}\nbench = {SECONDS}",
        f"licence = {json.dumps(LICENCE)}",
    ]
    for family in FAMILIES:
        model = f"{family}_imagenette"
        name = json.dumps(f"{ROOT / 'benchmarks' / 'families.py'}:{model}")
        weights = json.dumps(str(ROOT / "benchmarks" / "weights" / f"{model}.safetensors"))
        text.append(f'[[models]]\nname = "{model}"\nmodel = {{ name = {name}, weights = {weights} }}')
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Command line; exit code 1 where a model failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds imagenette_160")
    parser.add_argument("--work", type=Path, required=True, help="keeps bundles and work directories")
    args = parser.parse_args()
    images, place = args.data.resolve() / "imagenette_160", args.work.resolve()
    place.mkdir(parents=True, exist_ok=True)
    files.write_text(place / "zoo.toml", spec(images, labels_into(place, images)))
    command = [sys.executable, "-m", "qhyvit", "zoo", str(place / "zoo.toml"), "--out", str(place / "zoo")]
    code = subprocess.run(command, check=False).returncode
    CARDS.mkdir(exist_ok=True)
    for family in FAMILIES:
        for end in ("md", "json"):
            made = place / "zoo" / f"{family}_imagenette.card.{end}"
            if made.is_file():
                shutil.copyfile(made, CARDS / made.name)
    sys.exit(code)


if __name__ == "__main__":
    main()

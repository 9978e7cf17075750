"""``make demo``: build, evaluate and run the embedded model, offline; prints every command that it runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.demo.images import generate
from benchmarks.demo.train import INPUT, WEIGHTS

OUT = Path("demo-out")


def _run(*command: str) -> str:
    """Run one of our commands as a user would; its talk goes to the terminal, its result is returned."""
    print("$ " + " ".join(command), flush=True)
    done = subprocess.run([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.stdout.write(done.stdout)
        raise SystemExit(done.returncode)
    return done.stdout


def main() -> None:
    """The whole demo."""
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    images, bundle = OUT / "images", OUT / "shapes-int8"
    print(f"generating images in {images}", flush=True)
    generate(images / "train", 10, seed=0)
    generate(images / "val", 50, seed=1)
    _run(
        "qhyvit", "build", "mobilevit_xxs", "--weights", str(WEIGHTS), "--classes", "10", "--input-size", str(INPUT),
        "--images", str(images / "train"), "--labels", str(images / "val" / "labels.txt"), "--out", str(bundle),
        "--resize-mode", "squash", "--count", "64",
    )  # fmt: skip
    evaluate = ("qhyvit", "evaluate", str(bundle), "--images", str(images / "val"))
    found = json.loads(_run(*evaluate, "--json"))
    sample = sorted((images / "val" / "star").glob("*.jpg"))[0]
    classify = ("qhyvit_device", "classify", str(bundle), str(sample))
    print(_run(*classify, "--top", "3"))
    paths = {"float": bundle.with_name(bundle.name + ".work") / "float.tflite", "integer": bundle / "model.tflite"}
    print(f"{found['images']} generated images that calibration and training did not see")
    print(table(found, {name: path.stat().st_size for name, path in paths.items()}))
    print(f"done in {time.monotonic() - started:.0f} s; the bundle is {bundle}")


def table(found: dict[str, Any], sizes: dict[str, int]) -> str:
    """What ``qhyvit evaluate --json`` found, in lines; ``sizes`` of both files in bytes."""
    lines = [f"{'model':10s} {'top-1 %':>8s} {'agrees with float %':>20s} {'size kB':>8s}"]
    for name, size in sizes.items():
        agrees = f"{found['alike']['reading']:.1f}" if name == "integer" else ""
        lines.append(f"{name:10s} {found[name]['top1_percent']:8.1f} {agrees:>20s} {size / 1000:8.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

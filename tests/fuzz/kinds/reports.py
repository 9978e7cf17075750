"""What reports, comparisons and later stages read, one file changed: work directories, plans, verdicts, bench files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

from tests.fuzz.kind import Case, Kind
from tests.fuzz.mutate import changed, changed_document, changed_zip
from tests.fuzz.programs import case_of, host, words_of

BENCH = "bench.json"
COMMANDS = (
    ("report b --bench bench.json", 3), ("report b --images images", 1), ("compare b.work b.work", 3),
    ("compare b b --bench bench.json", 3), ("compare b.work/plan.json b.work", 2), ("convert --work b.work", 2),
    ("convert --work b.work --force", 2), ("verify --work b.work --images images --count 1", 1), ("inspect b.work", 2),
    ("inspect b --graph --tensors", 2), ("bundle --work b.work --images images --out out", 2),
    ("inspect b.work --json", 1),
    ("evaluate b --images images", 2), ("latency-profile bench.json --out out", 3),
    ("calibrate --work b.work --images images --method minmax --count 1", 1),
)  # fmt: skip
READ = {  # what a command reads besides the files of the bundle and the work directory
    "report b --bench bench.json": BENCH, "compare b b --bench bench.json": BENCH,
    "latency-profile bench.json --out out": BENCH,
}  # fmt: skip


def draw(rng: Random) -> Case:
    """A file's path, its content, and the command's words."""
    command = rng.choices([c for c, _ in COMMANDS], [w for _, w in COMMANDS])[0]
    folders = ("b", "b.work") if "b" in command.split() else ("b.work",)
    inside = [str(path) for folder in folders for path in sorted(Path(folder).iterdir()) if path.name != "lock"]
    name = READ[command] if command in READ and rng.random() < 0.6 else rng.choice(inside)
    data = Path(name).read_bytes()
    if name.endswith(".json"):
        data = changed_document(rng, data)
    elif name.endswith(".npz") and rng.random() < 0.6:
        data = changed_zip(rng, data)
    else:
        data = changed(rng, data)
    return os.fsencode(name), data, *case_of(command.split())


def run(case: Case) -> str:
    """Run the command on the changed file; everything is put back."""
    name, words = os.fsdecode(case[0]), words_of(case[2:])
    for folder in ("b", "b.work"):
        shutil.copytree(folder, f"kept.{folder}")
    bench = Path(BENCH).read_bytes()
    Path(name).write_bytes(case[1])
    try:
        code, _ = host(words)
    finally:
        for folder in ("b", "b.work"):
            shutil.rmtree(folder)
            os.rename(f"kept.{folder}", folder)
        Path(BENCH).write_bytes(bench)
    return f"{words[0]} exit code {code}"


KIND = Kind("reports", 7, draw, run, seconds=60, megabytes=300)

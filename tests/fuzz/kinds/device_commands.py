"""Command lines of ``qhyvit-device``."""

from __future__ import annotations

from random import Random

from tests.fuzz.kind import Case, Kind
from tests.fuzz.place import TASKED
from tests.fuzz.programs import case_of, device, words_of

BUNDLES = ("b", *(f"tasks/{name}" for name in TASKED))
FILES = (
    "b", "b", "images/0.png", "images", "models/prelu.tflite", "models", "nothing", "net.py", "b/manifest.json",
    "b.work", *BUNDLES,
)  # fmt: skip
WORDS = (
    "", "-1", "0", "1", "3", "2,1", "1,,2", "256", "257", "4294967296", "9" * 400, "nan", "inf", "-inf", "1e400", "0x1",
    "\u0661", "é", "\u2028", "\udcff", "crop", "squash", "once", "always", "x=1", "-", "--", "%s", "{}", "\x1b[31m",
    "a b", "[bold]", "camera:x", "picamera2x", "@net.py",
)  # fmt: skip
# what each option takes: ``count`` is where a large number may take for ever
IMAGES = {"--resize-mode": "any", "--trust": "any", "--threads": "any", "--json": "", "--debug": "", "--frames": "any",
          "--watch": "missing"}  # fmt: skip
OPTIONS = {
    "classify": {**IMAGES, "--top": "any", "--threshold": "any"},
    "embed": {**IMAGES, "--top": "any", "--gallery": "gallery", "--out": "new"},
    "segment": {**IMAGES, "--draw": "new"}, "run": {**IMAGES, "--out": "new"},
    "info": {"--threads": "any", "--json": "", "--debug": ""}, "doctor": {"--json": "", "--debug": ""},
    "bench": {"--runs": "count", "--seconds": "count", "--warmup": "count", "--turn": "count", "--threads": "any",
              "--cpus": "any", "--sustained": "nothing", "--profile-ops": "", "--json": "file", "--no-memory": ""},
    "update": {"--downgrade": "", "--back": ""},
}  # fmt: skip
GOOD = {"classify": ["b", "images"], "bench": ["b", "models/prelu.tflite"], "embed": ["tasks/embed", "images"],
        "segment": ["tasks/segment", "images/0.png"], "run": ["tasks/several", "images"]}  # fmt: skip
VALUES = {
    "any": (*WORDS, *("1", "2", "3", "9") * 5, *("crop", "squash") * 3),
    "count": ("0", "1", "2", "-1", "", "x", "1.5", "nan", "-inf", "1e-9", "²"), "nothing": ("0", "-1", "x", "nan"),
    "missing": ("nothing", "images/0.png", "", "camera:x", "camera:-1", "\udcff"),
    "file": ("out", "nothing/x", "", "images"), "new": ("out", "out", "nothing/x", "", "\udcff"),
    "gallery": ("images", "images", "nothing", "", "images/0.png", "\udcff"),
}  # fmt: skip


def draw(rng: Random) -> Case:
    """The words behind the program's name."""
    command = rng.choice((*OPTIONS, "classify", "bench", "nothing"))
    words = [command]
    if rng.random() < 0.5:
        words += GOOD.get(command, [])
    else:
        words += [rng.choice(FILES) if rng.random() < 0.8 else rng.choice(WORDS) for _ in range(rng.randint(0, 3))]
    known = OPTIONS.get(command, {"--json": ""})
    for option in rng.sample(sorted(known), min(rng.choice((0, 1, 1, 2, 3)), len(known))):
        kind = known[option]
        words += [option] if not kind else [option, rng.choice(VALUES[kind])]
        if rng.random() < 0.03:
            words[-1] = f"{words[-1]}={rng.choice(WORDS)}"
    if command == "bench":
        words += ["--runs", "1", "--seconds", "0", "--no-memory"]
    if command == "update":
        words = [w for w in words if w not in BUNDLES]  # they would be exchanged
    if command == "info":
        words[1:] = [w for w in words[1:] if w not in BUNDLES] if rng.random() < 0.9 else words[1:]  # starts a process
    # a watch might never end, and a file be written over
    if rng.random() < 0.05 and command not in ("bench", "update") and not {"--watch", "--out", "--draw"} & {*words}:
        rng.shuffle(words)
    return case_of(words)


def run(case: Case) -> str:
    """Run it."""
    return f"exit code {device(words_of(case))}"


KIND = Kind("device commands", 8, draw, run, seconds=30, megabytes=200)

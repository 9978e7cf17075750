"""Command lines of ``qhyvit``: options of every command, values of the methods' options, factories and folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

from PIL import Image

from qhyvit.methods import all_methods, method
from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.programs import BUILD, REACHED, case_of, host, words_of

WORDS = (
    "", "-1", "0", "1", "3", "4294967296", "9" * 400, "nan", "inf", "1e9", "true", "None", "é", "\u2028", "\udcff",
    "crop", "x=1", "integer", "cpu", "a b", "--", "[bold]", "%s", "{}", "\x1b[31m", "\u0663", "net.py",
    "b.work/plan.json",
)  # fmt: skip
FLAGS = {"--print-config", "--json", "--graph", "--tensors", "--force", "--no-integer", "--integer", "--random-weights",
         "--help"}  # fmt: skip
OPTIONS = {
    "build": "--method --count --seed --bits --target --resize-mode --set --classes --input-size --weights --labels "
    "--random-weights --integer --model-py --force --config "
    "--print-config --task --min-agreement",
    "calibrate": "--method --count --seed --bits --target --resize-mode --set", "convert": "--force",
    "verify": "--count --seed --resize-mode --json", "export": "--weights --classes --input-size --seed",
    "bundle": "--labels --force", "inspect": "--graph --tensors --json", "sweep": "--workers --retries --json",
    "evaluate": "--labels --float --resize-mode --json", "report": "--work --count --bench --labels",
    "compare": "--html --bench --images", "bench": "--ssh --threads --runs --seconds --turn --sustained",
    "latency-profile": "--force", "wheelhouse": "--python --machine", "bundle-image": "--platform --name",
    "bundle-tarball": "--python", "methods": "--json", "models": "--json", "nothing": "--help",
}  # fmt: skip
NEEDS = {  # what each command gets besides; nothing is fetched, and no work directory is changed
    "export": "--work no-work", "calibrate": "--work no-work", "convert": "--work no-work", "verify": "--work no-work",
    "bundle": "--work no-work --out out", "build": "--out out", "sweep": "--out out", "latency-profile": "--out out",
    "wheelhouse": "--out out --python 2.7", "bundle-image": "--out out", "bundle-tarball": "--out out",
}  # fmt: skip
WITH_IMAGES = ("calibrate", "verify", "bundle", "build", "evaluate")
VALUES = tuple((name, option) for name in sorted(all_methods()) for option in method(name).options)
TEXT = " \n:()[]=.,+-*#'\"abcdefinorstuy0123456789\0é"
NAMES = (
    "._a.jpg", ".x.png", "a.jpg", "b.PNG", "c.webp", "d.bmp", "e.ppm", "f.jpeg", "notes.txt", "preprocess.json",
    "labels.csv", "é.png", "a b.png", "[x].jpg",
)  # fmt: skip
SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".ppm", ".jpeg")


def draw(rng: Random) -> Case:
    """``words``, ``source`` with a file's text, or ``folder`` with names and contents."""
    choice = rng.random()
    if choice < 0.1:
        return b"source", "".join(rng.choices(TEXT, k=rng.randint(0, 60))).encode()
    if choice < 0.2:
        names = rng.sample(NAMES, rng.randint(1, 5))
        files = [part for name in names for part in (os.fsencode(name), rng.randbytes(rng.randint(0, 60)))]
        return b"folder", rng.choice((b"good", b"")), *files
    if choice < 0.45:
        name, option = rng.choice(VALUES)
        return b"words", *case_of([*BUILD, "--method", name, "--set", f"{option}={_value(rng)}"])
    return b"words", *case_of(_command(rng))


def _value(rng: Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(WORDS)
    return "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(rng.randint(0, 9)))


def _command(rng: Random) -> list[str]:
    command = rng.choice(sorted(OPTIONS))
    words = [command, *NEEDS.get(command, "").split()]
    if command in WITH_IMAGES:
        words += ["--images", rng.choice(("images", "none", "net.py"))]
    words += [_value(rng) for _ in range(rng.randint(0, 2))]
    for option in rng.choices(OPTIONS[command].split(), k=rng.randint(0, 3)):
        words += [option] if option in FLAGS else [option, _value(rng)]
    return words


def run(case: Case) -> str:
    """Run it."""
    what, rest = case[0].decode(), case[1:]
    if what == "words":
        code, said = host(words_of(rest))
        shutil.rmtree("no-work", ignore_errors=True)
        return f"words: {'the exporter' if REACHED in said else f'exit code {code}'}"
    if what == "source":
        return _source(rest[0])
    return _folder(rest[0] == b"good", dict(zip(rest[1::2], rest[2::2], strict=True)))


def _source(text: bytes) -> str:
    """A factory's file that is no Python, or defines nothing."""
    path = Path(f"text{abs(hash(text))}.py")  # a name of its own: modules are kept
    path.write_bytes(text)
    code, said = host(["build", f"{path.name}:make", *BUILD[2:]])
    path.unlink()
    must(code == 2, f"exit code {code}: {said}")
    return "source refused"


def _folder(with_good: bool, files: dict[bytes, bytes]) -> str:
    """A folder of images that holds odd files."""
    folder = Path("odd-images")
    folder.mkdir()
    for name, content in files.items():
        (folder / os.fsdecode(name)).write_bytes(content)
    if with_good:
        Image.new("LA", (5, 7)).save(folder / "good.png")
    code, said = host([*BUILD, "--images", str(folder)])
    shutil.rmtree(folder)
    must(code == 2, f"exit code {code}: {said}")
    odd = [os.fsdecode(n) for n in files]
    broken = [n for n in odd if Path(n).suffix.lower() in SUFFIXES and not n.startswith(".")]
    if with_good and not broken and "preprocess.json" not in odd:
        must(REACHED in said, said)
    return f"folder {'read' if REACHED in said else 'refused'}"


KIND = Kind("host commands", 8, draw, run, seconds=30, megabytes=200)

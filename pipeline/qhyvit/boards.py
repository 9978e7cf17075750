"""Boards over SSH: copy device stage and bundles, run the bench there, bring the figures back.

The user's own ``ssh`` does the work, with his configuration, keys and jump hosts; it is never asked for a password.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhyvit.errors import InputError, QhyvitError, UsageError
from qhyvit.progress import Log
from qhyvit.wheelhouse import INSTALL, LAUNCHER, Platform, digest, make

CACHE = Path("~/.cache/qhyvit/wheelhouse")  # on the host, a folder for each kind of board
THERE = ".cache/qhyvit-device"  # on the board, below its home: installed device stages by their hash
CONNECT_SECONDS = 15
PROBE = 'import platform,struct,sys; print("%d.%d" % sys.version_info[:2], platform.machine(), struct.calcsize("P"))'


class BoardError(QhyvitError):
    """A board that cannot be reached, or does not do what it is asked."""


@dataclass(frozen=True)
class RemoteBoard:
    """``host`` as ssh takes it: user@name, or a name from its configuration."""

    host: str

    def __post_init__(self) -> None:
        # ssh hands the host to a ProxyCommand's shell, and the rest of the line to the board's
        if not re.fullmatch(r"(?!.*[@/]-)[A-Za-z0-9_\[][A-Za-z0-9_.:@%/\[\]+-]*", self.host):
            raise UsageError(f"--ssh {self.host!r}: a host as ssh takes it, like pi@board1")

    def run(self, command: str, *, feed: bytes | None = None) -> bytes:
        """What ``command`` prints there; ``feed`` goes to its input.

        Raises:
            BoardError: unreachable, or the command failed; with the last line that it said.
        """
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "--"]
        try:
            done = subprocess.run(["ssh", *options, self.host, command], input=feed, capture_output=True, check=False)
        except OSError as error:
            raise BoardError("there is no ssh here; install OpenSSH's client") from error
        if done.returncode == 0:
            return done.stdout
        said = (done.stderr.decode(errors="replace").strip() or "nothing").splitlines()[-1]
        hint = "; try: ssh-copy-id " + self.host if "Permission denied" in said else ""
        raise BoardError(f"{self.host}: {said}{hint}")

    def ask(self, command: str) -> str:
        """What ``command`` prints there, without what the shell there prints before and behind it.

        Raises:
            BoardError: see :meth:`run`; or there is no answer.
        """
        begin, end = (f"qhyvit-{word}-{secrets.token_hex(8)}" for word in ("begin", "end"))
        script = f"echo {begin}; {command}; code=$?; echo; echo {end}; exit $code"
        said = self.run(f"sh -c {shlex.quote(script)}").decode(errors="replace")
        found = re.search(rf"^{begin}\r?\n(.*?)\r?\n?^{end}\r?$", said, re.DOTALL | re.MULTILINE)
        if found is None:
            raise self._unclear(said)
        return found[1].strip()

    def _unclear(self, said: str) -> BoardError:
        lines = said.strip().splitlines() or ["nothing"]
        return BoardError(f"{self.host}: its answer cannot be read: {lines[-1].strip()[:100]}")

    def target(self) -> Platform:
        """Its Python and machine.

        Raises:
            BoardError: no Python 3, or a 32-bit one.
        """
        said = self.ask(f"python3 -c {shlex.quote(PROBE)}")
        found = re.fullmatch(r"(\d+\.\d+) (\w+) (\d+)", said)
        if found is None:
            raise self._unclear(said)
        python, machine, pointer = found.groups()
        if pointer != "8":
            raise BoardError(f"{self.host}: its Python is 32-bit; int8 models crash there: use a 64-bit system")
        return Platform(python, machine)

    def install(self, wheels: Path, log: Log) -> str:
        """Unpack a wheelhouse there, once; the command that runs the device stage."""
        place = f"{THERE}/{digest(wheels)[:16]}"
        if self.ask(f"test -x {place}/{LAUNCHER} && echo there || true") != "there":
            log(f"{self.host}: installing the device stage")
            self.send(wheels, f"{place}.new")
            # a launcher holds its folder's name: moved first, installed then
            self.run(f"rm -rf {place} && mv {place}.new {place} && sh {place}/{INSTALL} >&2")
        return f"{place}/{LAUNCHER}"

    def send(self, source: Path, there: str) -> None:
        """Copy a file or the content of a folder into the folder ``there``."""
        with tempfile.TemporaryFile() as stream:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                if source.is_dir():
                    for path in sorted(source.iterdir()):
                        archive.add(path, path.name)
                else:
                    archive.add(source, source.name)
            stream.seek(0)
            self.run(f"mkdir -p {shlex.quote(there)} && tar xf - -C {shlex.quote(there)}", feed=stream.read())

    def bench(self, models: Sequence[Path], options: Sequence[str], wheels: Path | None, log: Log) -> dict[str, Any]:
        """Run the bench of ``models`` there; its JSON."""
        target = self.target()
        launcher = self.install(wheels or cached(target, log), log)
        place = self.ask("mktemp -d")
        if not re.fullmatch(r"/[\w./+-]+", place):
            raise self._unclear(place)
        try:
            names = []
            for number, model in enumerate(models):
                folder = f"{place}/{number}/{model.name}" if model.is_dir() else f"{place}/{number}"
                self.send(model, folder)
                names.append(folder if model.is_dir() else f"{folder}/{model.name}")
            log(f"{self.host}: measuring")
            found = json.loads(self.ask(shlex.join([launcher, "bench", *names, *options, "--json"])))
        except (ValueError, RecursionError) as error:
            raise BoardError(f"{self.host}: the bench gave no JSON") from error
        finally:
            with contextlib.suppress(BoardError):  # what went wrong before says more
                self.run(f"rm -rf {shlex.quote(place)}")
        if not _is_bench(found):
            raise BoardError(f"{self.host}: the bench gave no JSON of a bench")
        return dict(found)


def _is_bench(found: Any) -> bool:
    """Whether a board's answer holds what is shown of it."""
    try:
        table({"": found})
        return all(isinstance(line, str) for bench in found["benches"] for line in bench["warnings"])
    except (TypeError, ValueError, LookupError, AttributeError):
        return False


def cached(target: Platform, log: Log) -> Path:
    """The host's wheelhouse for such a board, made once for each version of the project."""
    from qhyvit_device import __version__

    folder = CACHE.expanduser() / f"{__version__}-{target.machine}-{target.python}"
    if not folder.is_dir():
        make(folder, target, log)
    return folder


def check_models(models: Sequence[Path]) -> None:
    """Refuse what is neither a bundle nor a ``.tflite``, before any board is asked.

    Raises:
        InputError: with the path.
    """
    for path in models:
        is_bundle = (path / "manifest.json").is_file()
        if not is_bundle and not (path.is_file() and path.suffix == ".tflite"):
            raise InputError(f"{path}: no bundle folder and no .tflite file")


def table(found: dict[str, dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of all boards, one row for each board, thread count and model."""
    columns = ("board", "threads", "model", "p50 ms", "p95", "ratio to first", "MiB", "warnings")
    rows: list[tuple[str, ...]] = []
    for host, result in found.items():
        for bench in result["benches"]:
            base = bench["models"][0]["model"]
            for model in bench["models"]:
                ratio, x = model.get(f"ratio_to_{base}"), model["inference"]
                against = "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
                memory = model["peak_memory_mib"]
                rows.append((host, str(bench["settings"]["threads"]), model["model"], f"{x['p50']:.2f}",
                             f"{x['p95']:.2f}", against, "" if memory is None else f"{memory:.0f}",
                             str(len(bench["warnings"]))))  # fmt: skip
    return columns, rows

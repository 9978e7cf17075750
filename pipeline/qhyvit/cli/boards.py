"""Commands for boards: what to install there, what to measure there."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qhyvit import console, files
from qhyvit.cli.app import BoardPython, Bundle, Force, Json, Machine, app
from qhyvit.errors import UsageError


def _numbers(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*", text):
        raise UsageError(f"--threads {text}: numbers with commas, like 1,4")
    return text


@app.command(epilog="Example: `qhyvit wheelhouse --out pi-wheels --python 3.11`, then on the board `sh install.sh`")
def wheelhouse(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    python: BoardPython = "3.11", machine: Machine = "aarch64", force: Force = False,
) -> None:  # fmt: skip
    """Put the device stage and all that it needs into a folder, for a board that fetches nothing."""
    from qhyvit.wheelhouse import Platform, make

    with console.talk() as talk:
        wheels = make(out, Platform(python, machine), talk.log, force=force)
    for path in wheels:
        console.say(path)


@app.command(
    epilog="Example: `qhyvit bundle-image v2-int8 --platform linux/arm64 --out v2.tar`, "
    "then on the board `docker load -i v2.tar`"
)
def bundle_image(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="Image to write, an OCI archive that docker load and podman load take.")],
    platform: Annotated[str, typer.Option(help="linux/arm64 or linux/amd64.")] = "linux/arm64",
    name: Annotated[str | None, typer.Option(help="Name of the image, NAME:TAG; default: qhyvit/MODEL:latest.")] = None,
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Make a container image of a bundle and the device stage. The same bundle gives the same digest."""
    from qhyvit.image import write_image

    with console.talk() as talk:
        made = write_image(bundle, out, platform, talk.log, name=name, force=force)
    if as_json:
        print(json.dumps({"file": str(out), "platform": platform, **asdict(made)}))
        return
    rows = [("name", made.name), ("digest", made.digest), ("file", f"{out}, {made.archive_bytes / 1e6:.0f} MB"),
            ("unpacked", f"{made.unpacked_bytes / 1e6:.0f} MB")]  # fmt: skip
    for key, value in rows:
        console.say(f"{key:9s} {value}")


@app.command(
    epilog="Example: `qhyvit bundle-tarball v2-int8 --python 3.13 --out v2.tar`, then on the board "
    "`tar xf v2.tar && sh qhyvit-board/install.sh`"
)
def bundle_tarball(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="Tar to write.")],
    python: BoardPython = "3.11", machine: Machine = "aarch64", force: Force = False,
) -> None:  # fmt: skip
    """Put a bundle, the device stage and all that it needs into one tar, for a board without Docker or network."""
    from qhyvit.image import write_tarball
    from qhyvit.wheelhouse import Platform

    with console.talk() as talk:
        digest = write_tarball(bundle, out, Platform(python, machine), talk.log, force=force)
    console.say(f"{digest}  {out}")


@app.command(
    epilog="Example: `qhyvit build ... --target tflm --out v2-tflm`, then `qhyvit bundle-c v2-tflm --out v2-c`"
)
def bundle_c(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="Folder to make: model.h, model.cc, main.cc.")],
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Write a bundle as C++ source for TensorFlow Lite for Microcontrollers, with its self test."""
    from qhyvit.c_source import write_c_source

    made = write_c_source(bundle, out, "qhyvit bundle-c", force=force)
    if as_json:
        print(json.dumps({"folder": str(out), **asdict(made)}))
        return
    console.say(f"{out}: arena {made.arena_bytes / 1024:.0f} KiB, flash {made.model_bytes / 1024:.0f} KiB, "
                f"{len(made.ops)} kinds of ops")  # fmt: skip


@app.command(
    epilog="Example: `qhyvit bundle-tflite v2-int8 --ends float32 --out v2.tflite`, for MediaPipe's ImageClassifier"
)
def bundle_tflite(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help=".tflite to write.")],
    ends: Annotated[str, typer.Option(help="Type of both ends: uint8 (pixels) or float32 (normalised).")] = "uint8",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the metadata.")] = "",
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Write a bundle's file with uint8 or float32 ends, and metadata: for MediaPipe and other libraries."""
    from qhyvit.ends import KINDS, write_ends

    if ends not in KINDS:
        raise UsageError(f"--ends {ends}: must be one of {', '.join(KINDS)}")
    made = write_ends(bundle, out, ends, licence=licence, force=force)
    if as_json:
        print(json.dumps({"file": str(out), "ends": ends, **asdict(made)}))
        return
    console.say(f"{out}: {made.size / 1e6:.2f} MB; {made.equal:.2%} of the output codes of {made.tried} pictures equal")


@app.command(
    epilog="Example: `npm install @litertjs/core`, `qhyvit bundle-web v2-int8 --litertjs node_modules --out web`, "
    "then `python3 -m http.server -d web`"
)
def bundle_web(
    bundle: Bundle,
    litertjs: Annotated[Path, typer.Option(help="The node_modules in which @litertjs/core is installed.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Write a page that classifies pictures in a browser, from local files, by LiteRT.js."""
    from qhyvit.web import write_page

    size = write_page(bundle, litertjs, out, force=force)
    if as_json:
        print(json.dumps({"folder": str(out), "bytes": size}))
        return
    console.say(f"{out}: {size / 1e6:.0f} MB; python3 -m http.server -d {out}")


@app.command(epilog="Example: `qhyvit bench v2-int8 v2-int8.work/float.tflite --ssh pi@board1 --ssh pi@board2`")
def bench(
    models: Annotated[list[Path], typer.Argument(help="Bundles or .tflite files; all are compared with the first.")],
    ssh: Annotated[list[str], typer.Option(help="A board as ssh names it, such as pi@board; may be given again.")],
    threads: Annotated[str, typer.Option(help="Numbers of threads, with commas.", callback=_numbers)] = "1",
    runs: Annotated[int, typer.Option(min=1, max=10**9, help="Least number of inferences of each model.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.0, max=1e6, help="Least time for each model, in seconds.")] = 5.0,
    turn: Annotated[int, typer.Option(min=1, max=10**9, help="Inferences before the next model's turn.")] = 1,
    sustained: Annotated[float, typer.Option(min=0.0, max=1e6, help="Minutes to run on afterwards.")] = 0.0,
    profile_ops: Annotated[bool, typer.Option("--profile-ops", help="Measure the time of each op too.")] = False,
    wheels: Annotated[Path | None, typer.Option("--wheelhouse", help="Wheels to install; default: made once.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write all samples of all boards here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Measure models on boards over SSH, and print one table for all boards. A board needs only Python 3."""
    from qhyvit.boards import RemoteBoard, check_models, table

    check_models(models)
    if out is not None:
        files.check_file(out)
    options = ["--threads", threads, "--runs", str(runs), "--seconds", str(seconds), "--sustained", str(sustained)]
    options += ["--profile-ops"] if profile_ops else []
    options += ["--turn", str(turn)] if turn > 1 else []  # device stages of older wheelhouses have none
    hosts = [RemoteBoard(host) for host in ssh]
    with console.talk() as talk:
        found = {board.host: board.bench(models, options, wheels, talk.log) for board in hosts}
    if out is not None:
        files.write_text(out, json.dumps(found, indent=1) + "\n")
    if as_json:
        print(json.dumps(found))
        return
    console.table("", *table(found))
    for host, result in found.items():
        for line in (w for b in result["benches"] for w in b["warnings"]):
            console.warn(f"{host}: warning: {line}")


@app.command(
    epilog="Example: `qhyvit latency-profile pi.json --out pi4.json`, then "
    "`qhyvit build ... --no-integer --target pi4.json`"
)
def latency_profile(
    benches: Annotated[list[Path], typer.Argument(help="Files of `bench --profile-ops`, all of one processor.")],
    out: Annotated[Path, typer.Option(help="Latency profile to write.")],
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Make a profile of how long each kind of op takes on a board, from what bench measured there.

    Ops that were not measured get the default times, scaled to the board.
    """
    from qhyvit.latency.fit import fit

    files.check_file(out, force=force)
    found = fit(benches)
    files.write_text(out, found.to_json())
    if as_json:
        print(found.to_json(), end="")
        return
    own = {name: k for name, k in sorted(found.kernels.items()) if k.samples}
    rows = [
        (name, f"{k.fixed_us:.3g}", f"{k.ns_per_element:.3g}", f"{k.ns_per_mac:.3g}", str(k.samples),
         f"{100 * k.error:.0f} %") for name, k in own.items()
    ]  # fmt: skip
    console.table(found.name, ("kernel", "us a call", "ns an element", "ns a MAC", "ops", "error"), rows)
    console.err.print(f"{len(found.kernels) - len(own)} kernels that were not measured are scaled defaults")
    console.say(out)

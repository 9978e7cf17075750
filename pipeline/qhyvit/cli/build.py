"""Commands that list what there is, and that build: the stages one by one or all at once."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from qhyvit import console, files
from qhyvit.cli.app import (
    ClassNames,
    Force,
    Images,
    Json,
    MinAgreement,
    Mode,
    NewBundle,
    Seed,
    WorkDir,
    app,
    build_flags,
)  # fmt: skip
from qhyvit.config import BuildConfig, ModelConfig
from qhyvit.data import VERIFY_IMAGES
from qhyvit.errors import CheckFailedError
from qhyvit.work import VERIFY

Given = Mapping[str, Any]  # settings by keyword


def _work(folder: Path, talk: console.Talk, *, force: bool = False) -> Any:
    from qhyvit.work import Work

    return Work(folder, talk.progress, talk.log, force)


@app.command(epilog="Example: `qhyvit models --json`")
def models(as_json: Json = False) -> None:
    """List the models that are supported, their input sizes and their bridges (where maps become tokens)."""
    from qhyvit.models import all_families

    rows = [
        {"model": v.name, "family": f.name, "input_size": v.input_size, "bridge_blocks": v.bridge_blocks}
        for f in all_families().values() for v in f.variants.values()
    ]  # fmt: skip
    if as_json:
        print(json.dumps({"models": rows}))
        return
    columns = ("model", "family", "input", "bridge blocks")
    console.table("", columns, [tuple(row.values()) for row in rows])


@app.command(epilog="Example: `qhyvit methods --json`")
def methods(as_json: Json = False) -> None:
    """List the calibration methods and their options."""
    from qhyvit.methods import all_methods

    found = all_methods().values()
    if as_json:
        rows = [
            {"name": m.name, "summary": m.summary, "options": {name: o.to_json() for name, o in m.options.items()}}
            for m in found
        ]
        print(json.dumps({"methods": rows}))
        return
    console.table("", ("method", "summary"), [(m.name, m.summary) for m in found])
    for m in found:
        options = [(f"{name}={o.default}", f"{o.help}: {o.allowed}") for name, o in m.options.items()]
        console.table(f"--set of {m.name}", ("option", "what it does, and what it may be"), options)


@app.command(epilog="Example: `qhyvit tasks --json`")
def tasks(as_json: Json = False) -> None:
    """List the tasks: what a model's outputs may mean, and how much of float's results a file has to keep."""
    from qhyvit.tasks import all_tasks

    rows = [{"task": t.name, "summary": t.summary, "kept": f"{t.limit:.0%} {t.kept}"} for t in all_tasks().values()]
    if as_json:
        print(json.dumps({"tasks": rows}))
        return
    console.table("", ("task", "the outputs are", "to be kept of float"), [tuple(row.values()) for row in rows])


@app.command(epilog="Example: `qhyvit targets --json`")
def targets(as_json: Json = False) -> None:
    """List the runtimes and boards that a file can be built for, and what proves that it works there."""
    from qhyvit.targets import all_targets

    rows = [
        {"target": t.name, "summary": t.summary, "proof": t.proof, "float": t.floats, "also": list(t.accelerators)}
        for t in all_targets().values()
    ]
    if as_json:
        print(json.dumps({"targets": rows}))
        return
    shown = [(t["target"], t["summary"], t["proof"], "yes" if t["float"] else "no") for t in rows]
    console.table("", ("--target", "what it is", "what proves a file", "float"), shown)
    for t in all_targets().values():
        if t.accelerators:
            console.say(f"{t.name}: {', '.join(t.accelerators)}")


@app.command(epilog="Example: `qhyvit export mobilevitv2_075 --weights W.safetensors --work build/v2`")
@build_flags("model")
def export(given: Given, work: WorkDir, seed: Seed = 0, force: Force = False) -> None:
    """Stage 1: export the float .tflite of a model."""
    from qhyvit import stages

    config = ModelConfig.parse({"name" if key == "model" else key: v for key, v in given.items()}, "the model")
    with console.talk() as talk:
        stages.export(_work(work, talk, force=force), config, seed)


@app.command(epilog="Example: `qhyvit calibrate --work build/v2 --images train/ --method qhyvit --set rounds=3`")
@build_flags("data", "method", "target")
def calibrate(given: Given, work: WorkDir, force: Force = False) -> None:
    """Stage 2: choose from sample images how every tensor is quantized (scale, granularity, scheme)."""
    from qhyvit import stages

    config = BuildConfig.from_cli({"model": "", **given})  # the work directory has the model
    with console.talk() as talk:
        stages.calibrate(_work(work, talk, force=force), config.data, config.method, config.target)


@app.command(epilog="Example: `qhyvit convert --work build/v2`")
def convert(work: WorkDir, force: Force = False) -> None:
    """Stage 3: write the integer .tflite that calibration planned."""
    from qhyvit import stages

    with console.talk() as talk:
        stages.convert(_work(work, talk, force=force))


@app.command(epilog="Example: `qhyvit verify --work build/v2 --images train/ --json`")
def verify(
    work: WorkDir, images: Images, count: Annotated[int, typer.Option(min=1, help="Images.")] = VERIFY_IMAGES,
    seed: Seed = 0, mode: Mode = None, min_agreement: MinAgreement = None, as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Stage 4: prove that the file computes what was simulated and decides like the float file; exit code 1 if not."""
    from qhyvit import stages

    with console.talk() as talk:
        w = _work(work, talk, force=force)
        stages.verify(w, images, count, seed, mode, min_agreement)
    _show_verdict(w.json(VERIFY), as_json=as_json)


def _show_verdict(verdict: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(verdict))
    else:
        rows = [("passed" if c["passed"] else "FAILED", c["name"], c["detail"]) for c in verdict["checks"]]
        rows += [("info", n["name"], n["detail"]) for n in verdict.get("informs") or ()]
        for mark, name, detail in rows:
            console.say(f"{mark:7s} {name}: {detail}")
        console.say(f"needs   {verdict['census']['oldest_runtime']}")
    if not verdict["passed"]:
        failed = [c["name"] for c in verdict["checks"] if not c["passed"]]
        raise CheckFailedError(f"verification failed: {'; '.join(failed)}")


@app.command(epilog="Example: `qhyvit bundle --work build/v2 --images train/ --out v2-int8 --labels names.txt`")
def bundle(
    work: WorkDir, images: Images, out: NewBundle,
    labels: ClassNames = None, force: Force = False,
) -> None:  # fmt: skip
    """Stage 5: make the bundle, the folder that goes to a board, with its self test."""
    from qhyvit import stages

    files.check_free(out, force=force)
    with console.talk() as talk:
        stages.bundle(_work(work, talk), out, images, labels, "qhyvit bundle", force=force)
    console.say(out)


@app.command(
    epilog="Example: `qhyvit build mobilevitv2_075 --weights W.safetensors --images train/ --out v2-int8`; "
    "of your own: `qhyvit build --model-py net.py:make --images train/ --out net-int8`; "
    "of a file: `qhyvit build --onnx net.onnx --images train/ --out net-int8`; "
    "from settings: `qhyvit build --config build.toml --seed 3`"
)
@build_flags("model", "data", "method", "target", "output")
def build(
    given: Given,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags override it.")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the TOML of this build and end.")] = False,
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Run all five stages: export, calibrate, convert, verify, bundle. Goes on where an earlier run stopped."""
    from qhyvit import api

    whole = BuildConfig.from_cli(given, config)
    if print_config:
        print(whole.to_toml(), end="")
        return
    with console.talk() as talk:
        command = shlex.join(["qhyvit", *sys.argv[1:]])
        built = api.build(whole, force=force, command=command, progress=talk.progress, log=talk.log)
    _show_verdict(built.verdict, as_json=as_json)
    if not as_json:
        console.say(built.bundle)

"""Commands that list what there is, and that build: the stages one by one or all at once."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from qhyvit import _console, files
from qhyvit.cli._app import (
    Bits,
    Classes,
    ClassNames,
    Count,
    Force,
    Images,
    Json,
    Latency,
    Measure,
    Method,
    MinAgreement,
    Mode,
    ModelName,
    ModelPy,
    NewBundle,
    NoInt16,
    Options,
    Profile,
    RandomWeights,
    Seed,
    Size,
    Weights,
    WorkDir,
    app,
)  # fmt: skip
from qhyvit.errors import CheckFailedError, UsageError
from qhyvit.stages import VERIFY_IMAGES


def _method_options(given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE by name; the method knows the types."""
    options = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise UsageError(f"--set takes NAME=VALUE, got {item!r}")
        options[name] = value
    return options


def _model(name: str | None, model_py: str | None) -> str:
    """What to export, as :func:`qhyvit.models._source.open_source` takes it."""
    if (name is None) == (model_py is None):
        raise UsageError("give either a model's name or --model-py FILE.py:FUNCTION")
    if model_py is not None and not model_py.partition(".py:")[2].isidentifier():
        raise UsageError(f"--model-py takes FILE.py:FUNCTION, got {model_py!r}")
    return name or model_py or ""


def _work(folder: Path, talk: _console.Talk, *, force: bool = False) -> Any:
    from qhyvit.stages import Work

    return Work(folder, talk.progress, talk.log, force)


@app.command(epilog="Example: `qhyvit models --json`")
def models(as_json: Json = False) -> None:
    """List the models that are supported, their input sizes and bridge blocks."""
    from qhyvit.models import all_families

    rows = [
        {"model": v.name, "family": f.name, "input_size": v.input_size, "bridge_blocks": v.bridge_blocks}
        for f in all_families().values() for v in f.variants.values()
    ]  # fmt: skip
    if as_json:
        print(json.dumps({"models": rows}))
        return
    columns = ("model", "family", "input", "bridge blocks")
    _console.table("", columns, [tuple(row.values()) for row in rows])


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
    _console.table("", ("method", "summary"), [(m.name, m.summary) for m in found])
    for m in found:
        options = [(f"{name}={o.default}", f"{o.help}: {o.allowed}") for name, o in m.options.items()]
        _console.table(f"--set of {m.name}", ("option", "what it does, and what it may be"), options)


@app.command(epilog="Example: `qhyvit export mobilevitv2_075 --weights W.safetensors --work build/v2`")
def export(
    work: WorkDir, model: ModelName = None, model_py: ModelPy = None, weights: Weights = None,
    random_weights: RandomWeights = False, classes: Classes = None, input_size: Size = None, seed: Seed = 0,
    force: Force = False,
) -> None:  # fmt: skip
    """Stage 1: float .tflite of a model, in deployment-friendly form, checked against the original."""
    from qhyvit import stages

    with _console.talk() as talk:
        stages.export(
            _work(work, talk, force=force), _model(model, model_py), weights, classes, input_size, seed,
            random_weights=random_weights,
        )  # fmt: skip


@app.command(epilog="Example: `qhyvit calibrate --work build/v2 --images train/ --method qhyvit --set rounds=3`")
def calibrate(
    work: WorkDir, images: Images, method: Method = "qhyvit", count: Count = 128, seed: Seed = 0, mode: Mode = None,
    bits: Bits = 8, profile: Profile = "integer", options: Options = None, no_int16: NoInt16 = False,
    latency_profile: Latency = None, measure: Measure = "decisions", force: Force = False,
) -> None:  # fmt: skip
    """Stage 2: choose scale, granularity and scheme of every tensor."""
    from qhyvit import stages

    with _console.talk() as talk:
        w, chosen = _work(work, talk, force=force), _method_options(options)
        stages.calibrate(w, images, method, count, seed, chosen, mode, bits, profile, int16=not no_int16,
                         latency_file=latency_profile, measure=measure)  # fmt: skip


@app.command(epilog="Example: `qhyvit convert --work build/v2`")
def convert(work: WorkDir, force: Force = False) -> None:
    """Stage 3: the integer .tflite of the plan."""
    from qhyvit import stages

    with _console.talk() as talk:
        stages.convert(_work(work, talk, force=force))


@app.command(epilog="Example: `qhyvit verify --work build/v2 --images train/ --json`")
def verify(
    work: WorkDir, images: Images, count: Annotated[int, typer.Option(min=1, help="Images.")] = VERIFY_IMAGES,
    seed: Seed = 0, mode: Mode = None, min_agreement: MinAgreement = None, as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Stage 4: prove that the file computes what was simulated, and decides as the float file; exit code 1 if not."""
    from qhyvit import stages

    with _console.talk() as talk:
        w = _work(work, talk, force=force)
        stages.verify(w, images, count, seed, mode, min_agreement)
    _show_verdict(w.json(stages.VERIFY), as_json=as_json)


def _show_verdict(verdict: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(verdict))
    else:
        rows = [("passed" if c["passed"] else "FAILED", c["name"], c["detail"]) for c in verdict["checks"]]
        for mark, name, detail in rows:
            _console.out.print(f"{mark:7s} {name}: {detail}", markup=False)
        _console.out.print(f"needs   {verdict['census']['oldest_runtime']}", markup=False)
    if not verdict["passed"]:
        failed = [c["name"] for c in verdict["checks"] if not c["passed"]]
        raise CheckFailedError(f"verification failed: {'; '.join(failed)}")


@app.command(epilog="Example: `qhyvit bundle --work build/v2 --images train/ --out v2-int8 --labels names.txt`")
def bundle(
    work: WorkDir, images: Images, out: NewBundle,
    labels: ClassNames = None, force: Force = False,
) -> None:  # fmt: skip
    """Stage 5: the folder that ships, with its self test."""
    from qhyvit import stages

    files.check_free(out, force=force)
    with _console.talk() as talk:
        stages.bundle(_work(work, talk), out, images, labels, "qhyvit bundle", force=force)
    print(out)


@app.command(
    epilog="Example: `qhyvit build mobilevitv2_075 --weights W.safetensors --images train/ --out v2-int8`; "
    "of your own: `qhyvit build --model-py net.py:make --images train/ --out net-int8`"
)
def build(
    images: Images, out: NewBundle,
    model: ModelName = None, model_py: ModelPy = None, weights: Weights = None, random_weights: RandomWeights = False,
    method: Method = "qhyvit", classes: Classes = None, input_size: Size = None,
    labels: ClassNames = None,
    count: Count = 128, seed: Seed = 0, mode: Mode = None, bits: Bits = 8,
    profile: Profile = "integer", options: Options = None,
    no_int16: NoInt16 = False, latency_profile: Latency = None, measure: Measure = "decisions",
    min_agreement: MinAgreement = None,
    work: Annotated[Path | None, typer.Option(help="Work directory; default OUT.work. A second run resumes.")] = None,
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """All five stages: export, calibrate, convert, verify, bundle. Resumes where an earlier run stopped."""
    from qhyvit import api

    with _console.talk() as talk:
        built = api.build(
            _model(model, model_py), images, out, weights=weights, classes=classes, input_size=input_size,
            method=method, options=_method_options(options), count=count, seed=seed, bits=bits, profile=profile,
            int16=not no_int16, latency_profile=latency_profile, measure=measure,
            min_agreement=min_agreement, resize_mode=mode, labels=labels, work=work, force=force,
            random_weights=random_weights,
            command=shlex.join(["qhyvit", *sys.argv[1:]]), progress=talk.progress, log=talk.log,
        )  # fmt: skip
    _show_verdict(built.verdict, as_json=as_json)
    if not as_json:
        print(out)

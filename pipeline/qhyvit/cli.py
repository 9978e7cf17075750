"""``qhyvit``: from weights to a verified integer bundle. Results to stdout, talk to stderr."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from qhyvit import __version__, _console, files
from qhyvit.errors import CheckFailedError, QhyvitError, UsageError
from qhyvit.stages import VERIFY_IMAGES

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    help="Turns hybrid vision transformers into fully integer int8 TFLite files, and proves that they work.",
)  # fmt: skip

def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Turns hybrid vision transformers into fully integer int8 TFLite files, and proves that they work."""


ModelName = Annotated[str | None, typer.Argument(help="Name from `qhyvit models`, or timm/NAME for any of timm's.")]
ModelPy = Annotated[str | None, typer.Option(help="FILE.py:FUNCTION, a factory of your own nn.Module.")]
Weights = Annotated[Path | None, typer.Option(help=".safetensors or torch state dict; random without.")]
Classes = Annotated[int | None, typer.Option(min=2, help="Class count of fine-tuned weights.")]
Size = Annotated[int | None, typer.Option(min=32, max=4096, help="Input height and width, pixels.")]
Images = Annotated[Path, typer.Option(help="Folder of calibration images; no labels needed.")]
WorkDir = Annotated[Path, typer.Option("--work", help="Work directory of the build.")]
Method = Annotated[str, typer.Option(help="Calibration method; `qhyvit methods` lists them.")]
Profile = Annotated[str, typer.Option(help="integer: no float at all; cpu: float where its kernels are faster.")]
Bits = Annotated[int, typer.Option(min=4, max=8, help="Of weights and activations; fewer than 8 is for studies.")]
Count = Annotated[int, typer.Option(min=1, help="Calibration images.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn.")]
Mode = Annotated[str | None, typer.Option("--resize-mode", help="crop or squash; default: preprocess.json, else crop.")]
Options = Annotated[list[str] | None, typer.Option("--set", help="Option of the method, KEY=VALUE; repeatable.")]
Force = Annotated[bool, typer.Option("--force", help="Run again and overwrite.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object to stdout.")]
BoardPython = Annotated[str, typer.Option("--python", help="Python version of the board.")]
Machine = Annotated[str, typer.Option(help="aarch64 or x86_64.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes of a local cluster; default: one a core.")]
Scheduler = Annotated[str | None, typer.Option(help="A dask scheduler that runs already, such as tcp://host:8786.")]
Latency = Annotated[
    Path | None,
    typer.Option(
        "--latency-profile",
        help="Times of a board's kernels: from `latency-profile`, or a bench file; "
        "or cortex-a53, -a72, -a76: instructions counted by an emulator.",
    ),
]
Measure = Annotated[
    str, typer.Option(help="What counts. decisions: the best class; correlation: all outputs (embeddings).")
]
MinAgreement = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Share of images on which the file has to decide as float does; default 0.9."),
]
NoInt16 = Annotated[bool, typer.Option("--no-int16", help="No int16 and no int8 LOG: for runtimes of 2.14.")]


def _method_options(given: list[str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set takes KEY=VALUE, got {item!r}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
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
        print(
            json.dumps(
                {"methods": [{"name": m.name, "summary": m.summary, "options": dict(m.defaults)} for m in found]}
            )
        )
        return
    rows = [(m.name, m.summary, ", ".join(f"{k}={v}" for k, v in m.defaults.items())) for m in found]
    _console.table("", ("method", "summary", "options"), rows)


@app.command(epilog="Example: `qhyvit export mobilevitv2_075 --weights W.safetensors --work build/v2`")
def export(
    work: WorkDir, model: ModelName = None, model_py: ModelPy = None, weights: Weights = None,
    classes: Classes = None, input_size: Size = None, seed: Seed = 0, force: Force = False,
) -> None:  # fmt: skip
    """Stage 1: float .tflite of a model, in deployment-friendly form, checked against the original."""
    from qhyvit import stages

    with _console.talk() as talk:
        stages.export(
            _work(work, talk, force=force), _model(model, model_py), weights, classes, input_size, seed
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
    work: WorkDir, images: Images, out: Annotated[Path, typer.Option(help="Bundle folder to make.")],
    labels: Annotated[Path | None, typer.Option(help="Class names, one a line.")] = None, force: Force = False,
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
    images: Images, out: Annotated[Path, typer.Option(help="Bundle folder to make.")],
    model: ModelName = None, model_py: ModelPy = None, weights: Weights = None,
    method: Method = "qhyvit", classes: Classes = None, input_size: Size = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, one a line.")] = None,
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
            command=shlex.join(["qhyvit", *sys.argv[1:]]), progress=talk.progress, log=talk.log,
        )  # fmt: skip
    _show_verdict(built.verdict, as_json=as_json)
    if not as_json:
        print(out)


@app.command(epilog="Example: `qhyvit evaluate v2-int8 --images val/ --resize-mode squash --workers 4`")
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    images: Annotated[Path, typer.Option(help="Labelled images, with labels.csv (file, class_index) beside them.")],
    labels: Annotated[Path | None, typer.Option(help="Another labels.csv.")] = None,
    float_model: Annotated[Path | None, typer.Option("--float", help="Float .tflite; default: the build's.")] = None,
    mode: Mode = None,
    allow_calibration_images: Annotated[bool, typer.Option(help="Do not refuse images used to calibrate.")] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Measure the deployed file, and the float file on the same images: top-1, top-5, agreement, paired test.

    With --workers or --scheduler the images are shared out among processes; the counts are the same.
    """
    with _console.talk() as talk:
        allow, say = allow_calibration_images, (talk.progress, talk.log)
        if workers is None and scheduler is None:
            from qhyvit.evaluation import evaluate as measure

            result = measure(bundle, images, labels, float_model, mode, *say, allow=allow)
        else:
            from qhyvit.sweep.parts import evaluate_in_parts
            from qhyvit.sweep.pool import Pool

            pool = Pool(workers, scheduler)
            result = evaluate_in_parts(bundle, images, labels, float_model, mode, pool, *say, allow=allow)
    if as_json:
        print(json.dumps(result.to_json()))
        return
    _console.table(f"{result.images} images, {result.resize_mode}", result.columns, result.rows())


@app.command(epilog="Example: `qhyvit sweep sweep.toml --out swept/ --workers 4`; a second call makes what is missing.")
def sweep(
    spec: Annotated[Path, typer.Argument(help="TOML file: models, methods, bits, seeds, profiles, images.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; a second call goes on in it.")],
    workers: Workers = None, scheduler: Scheduler = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed job is tried again.")] = 1,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write results.parquet too; needs pyarrow.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Build and measure every combination of models, methods, bits, seeds and profiles; exit code 1 if some failed."""
    from qhyvit.sweep.gather import short
    from qhyvit.sweep.pool import Pool
    from qhyvit.sweep.run import sweep as run

    with _console.talk() as talk:
        found = run(spec, out, Pool(workers, scheduler, retries), talk.progress, talk.log, parquet=parquet)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _console.table("", *short(found.rows))
        for path in found.written:
            print(path)
    if found.failed:
        raise CheckFailedError(f"{len(found.failed)} jobs failed; {out / 'logs'} has what they said")


@app.command(epilog="Example: `qhyvit inspect build/v2/model.tflite --tensors`")
def inspect(
    path: Annotated[Path, typer.Argument(help="A .tflite, a bundle, or a work directory.")],
    graph: Annotated[bool, typer.Option("--graph", help="Print the float graph as text (work directory).")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="Print the plan's tensors (work directory).")] = False,
    as_json: Json = False,
) -> None:
    """Show what is in a file: ops by type and dtype, delegate partitions, plan, graph."""
    from qhyvit.inspect import inspect as look

    look(path, graph=graph, tensors=tensors, as_json=as_json)


@app.command(epilog="Example: `qhyvit report v2-int8 --images val/ --bench bench.json --out v2-int8.html`")
def report(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; default BUNDLE.html.")] = None,
    work: Annotated[Path | None, typer.Option(help="Work directory of the build; default BUNDLE.work.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images to compare float and int8 on; labels.csv or not.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Another labels.csv.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Of these images at most.")] = 1000,
    bench: Annotated[Path | None, typer.Option(help="Latencies, from `qhyvit bench --out` or `qhyvit-device`.")] = None,
    float_model: Annotated[Path | None, typer.Option("--float", help="Float .tflite; default: the build's.")] = None,
    mode: Mode = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Explain a build on one HTML page: what each tensor and block costs, what would pay, where decisions differ."""
    from qhyvit.report.gather import Request, gather
    from qhyvit.report.page import render

    target = out or bundle.with_name(bundle.resolve().name + ".html")
    with _console.talk() as talk:
        found = gather(Request(bundle, work, images, labels, bench, float_model, mode, count, talk.progress))
    files.write_text(target, render(found))
    print(json.dumps(found.to_json()) if as_json else target)


@app.command(epilog="Example: `qhyvit compare v2-int8 v2-minmax --images val/`")
def compare(
    first: Annotated[Path, typer.Argument(help="Bundle, work directory or plan.json.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page.")] = None,
    images: Annotated[Path | None, typer.Option(help="Labelled images to measure both on (bundles).")] = None,
    labels: Annotated[Path | None, typer.Option(help="Another labels.csv.")] = None,
    bench: Annotated[Path | None, typer.Option(help="Latencies of both, from one bench file.")] = None,
    mode: Mode = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Show where two plans or bundles differ: tensors, folds, accuracy, size, latency."""
    from qhyvit.report import compare as comparing

    with _console.talk() as talk:
        found = comparing.compare(first, second, images, labels, bench, mode, talk.progress)
    if html is not None:
        files.write_text(html, comparing.render(found))
    if as_json:
        print(json.dumps(found.to_json()))
        return
    for title, columns, rows in comparing.tables(found):
        _console.table(title, columns, rows)


@app.command(epilog="Example: `qhyvit wheelhouse --out pi-wheels --python 3.11`, then on the board `sh install.sh`")
def wheelhouse(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    python: BoardPython = "3.11", machine: Machine = "aarch64", force: Force = False,
) -> None:  # fmt: skip
    """Put the device stage and all that it needs into a folder, for a board that fetches nothing."""
    from qhyvit.wheelhouse import Target, make

    with _console.talk() as talk:
        wheels = make(out, Target(python, machine), talk.log, force=force)
    for path in wheels:
        print(path)


@app.command(
    epilog="Example: `qhyvit bundle-image v2-int8 --platform linux/arm64 --out v2.tar`, "
    "then on the board `docker load -i v2.tar`"
)
def bundle_image(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    out: Annotated[Path, typer.Option(help="OCI archive to write, for docker load or podman load.")],
    platform: Annotated[str, typer.Option(help="linux/arm64 or linux/amd64.")] = "linux/arm64",
    name: Annotated[str | None, typer.Option(help="NAME:TAG; default: qhyvit/MODEL:latest.")] = None,
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Make a container image of a bundle and the device stage. The same bundle gives the same digest."""
    from qhyvit.image import write_image

    with _console.talk() as talk:
        made = write_image(bundle, out, platform, talk.log, name=name, force=force)
    if as_json:
        print(json.dumps({"file": str(out), "platform": platform, **asdict(made)}))
        return
    rows = [("name", made.name), ("digest", made.digest), ("file", f"{out}, {made.archive_bytes / 1e6:.0f} MB"),
            ("unpacked", f"{made.unpacked_bytes / 1e6:.0f} MB")]  # fmt: skip
    for key, value in rows:
        _console.out.print(f"{key:9s} {value}", markup=False)


@app.command(
    epilog="Example: `qhyvit bundle-tarball v2-int8 --python 3.13 --out v2.tar`, then on the board "
    "`tar xf v2.tar && sh qhyvit-board/install.sh`"
)
def bundle_tarball(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    out: Annotated[Path, typer.Option(help="Tar to write.")],
    python: BoardPython = "3.11", machine: Machine = "aarch64", force: Force = False,
) -> None:  # fmt: skip
    """Put a bundle, the device stage and all that it needs into one tar, for a board without Docker or network."""
    from qhyvit.image import write_tarball
    from qhyvit.wheelhouse import Target

    with _console.talk() as talk:
        digest = write_tarball(bundle, out, Target(python, machine), talk.log, force=force)
    _console.out.print(f"{digest}  {out}", markup=False)


@app.command(epilog="Example: `qhyvit bench v2-int8 v2-int8.work/float.tflite --ssh pi@board1 --ssh pi@board2`")
def bench(
    models: Annotated[list[Path], typer.Argument(help="Bundle folders or .tflite files; compared with the first.")],
    ssh: Annotated[list[str], typer.Option(help="A board, as ssh takes it; repeatable.")],
    threads: Annotated[str, typer.Option(help="Interpreter threads, with commas.")] = "1",
    runs: Annotated[int, typer.Option(min=1, help="Inferences at least.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.0, help="For each model at least.")] = 5.0,
    turn: Annotated[int, typer.Option(min=1, help="Inferences of a model in a row.")] = 1,
    sustained: Annotated[float, typer.Option(min=0.0, help="Then run on for so many minutes.")] = 0.0,
    profile_ops: Annotated[bool, typer.Option("--profile-ops", help="Time by op.")] = False,
    wheels: Annotated[Path | None, typer.Option("--wheelhouse", help="Use this one; default: made once.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write all samples of all boards here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Measure models on boards over SSH; nothing has to be installed there but Python 3. One table for all."""
    from qhyvit.boards import Board, check_models, table

    check_models(models)
    options = ["--threads", threads, "--runs", str(runs), "--seconds", str(seconds), "--sustained", str(sustained)]
    options += ["--profile-ops"] if profile_ops else []
    options += ["--turn", str(turn)] if turn > 1 else []  # device stages of older wheelhouses have none
    hosts = [Board(host) for host in ssh]
    with _console.talk() as talk:
        found = {board.host: board.bench(models, options, wheels, talk.log) for board in hosts}
    if out is not None:
        files.write_text(out, json.dumps(found, indent=1) + "\n")
    if as_json:
        print(json.dumps(found))
        return
    _console.table("", *table(found))
    for host, result in found.items():
        for line in (w for b in result["benches"] for w in b["warnings"]):
            _console.err.print(f"{host}: warning: {line}", markup=False)


@app.command(
    epilog="Example: `qhyvit latency-profile pi.json --out pi4.json`, then "
    "`qhyvit build ... --profile cpu --latency-profile pi4.json`"
)
def latency_profile(
    benches: Annotated[list[Path], typer.Argument(help="Files of `bench --profile-ops`, all of one processor.")],
    out: Annotated[Path, typer.Option(help="Latency profile to write.")],
    as_json: Json = False, force: Force = False,
) -> None:  # fmt: skip
    """Fit the times of a board's kernels to what a bench measured there; kernels that it lacks are scaled defaults."""
    from qhyvit.latency.fit import fit

    if out.exists() and not force:
        raise UsageError(f"{out} exists; use --force to replace it, or another --out")
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
    _console.table(found.name, ("kernel", "us a call", "ns an element", "ns a MAC", "ops", "error"), rows)
    _console.err.print(f"{len(found.kernels) - len(own)} kernels that were not measured are scaled defaults")
    print(out)


@dataclass(frozen=True)
class _Failure:
    code: int
    line: str


def _failure(error: BaseException) -> _Failure:
    if isinstance(error, QhyvitError):
        return _Failure(error.exit_code, str(error))
    if isinstance(error, TyperException):
        message = getattr(error, "format_message", None)
        return _Failure(2, message() if message is not None else str(error))
    if isinstance(error, OSError):
        return _Failure(2, f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    raise error


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 a check failed, 2 could not do it, 130 interrupted."""
    try:
        code = app(argv, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except (QhyvitError, TyperException, OSError) as error:
        failure = _failure(error)
        if failure.line:  # without arguments, the help was the answer
            _console.err.print(f"qhyvit: error: {failure.line}", markup=False, soft_wrap=True)
        sys.exit(failure.code)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()

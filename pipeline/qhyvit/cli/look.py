"""Commands that measure, compare and explain what was built."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qhyvit import console, files
from qhyvit.cli.app import Bundle, FloatModel, Json, Labels, Mode, Scheduler, Workers, app
from qhyvit.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from qhyvit.overview import OverviewRequest

ClassMap = Annotated[str | None, typer.Option(help="Number in the label maps of each class, with commas.")]


@app.command(epilog="Example: `qhyvit evaluate v2-int8 --images val/ --resize-mode squash --workers 4`")
def evaluate(
    bundle: Bundle,
    images: Annotated[Path, typer.Option(help="Folder of images and labels.csv (file, and class_index or values).")],
    labels: Labels = None,
    float_model: FloatModel = None,
    mode: Mode = None,
    class_map: ClassMap = None,
    allow_calibration_images: Annotated[bool, typer.Option(help="Accept images that calibration has used.")] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Measure how right the integer file is on labelled images, beside the float file on the same images.

    Classes: top-1, top-5, agreement, paired test. Segmentations take a folder of label maps as --labels; embeddings
    and others also images without labels. With --workers or --scheduler the images are shared out among processes;
    the figures are the same.
    """
    with console.talk() as talk:
        say, allow, classes = (talk.progress, talk.log), allow_calibration_images, _classes(class_map)
        if workers is None and scheduler is None:
            from qhyvit.evaluation import evaluate as measure

            result = measure(bundle, images, labels, float_model, mode, *say, allow=allow, class_map=classes)
        else:
            from qhyvit.sweep.parts import evaluate_in_parts
            from qhyvit.sweep.pool import Pool

            pool = Pool(workers, scheduler)
            result = evaluate_in_parts(
                bundle, images, labels, float_model, mode, pool, *say, allow=allow, class_map=classes
            )
    if as_json:
        print(json.dumps(result.to_json()))
        return
    console.table(f"{result.images} images, {result.resize_mode}", result.columns, result.rows())
    if result.each:
        from qhyvit.evaluation import shown

        what = result.task.part
        rows = [(name, shown(result.task.reading, reading)) for name, reading in result.each.items()]
        console.table(f"each {what}, the worst first", (what, result.task.reading), rows)


def _classes(text: str | None) -> tuple[int, ...] | None:
    """Whole numbers with commas."""
    parts = None if text is None else [part.strip() for part in text.split(",")]
    if parts is not None and not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise UsageError(f"--class-map takes whole numbers with commas, like 3,4,1; got {text!r}")
    return None if parts is None else tuple(map(int, parts))


@app.command(epilog="Example: `qhyvit sweep sweep.toml --out swept/ --workers 4`; a second call makes what is missing.")
def sweep(
    spec: Annotated[Path, typer.Argument(help="TOML file: models, methods, bits, seeds, targets, images.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; a second call goes on in it.")],
    workers: Workers = None, scheduler: Scheduler = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed job is tried again.")] = 1,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write results.parquet too; needs pyarrow.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Build and measure every combination of models, methods, bits, seeds and targets; exit code 1 if some failed."""
    from qhyvit.sweep.gather import short
    from qhyvit.sweep.pool import Pool
    from qhyvit.sweep.run import sweep as run

    with console.talk() as talk:
        found = run(spec, out, Pool(workers, scheduler, retries), talk.progress, talk.log, parquet=parquet)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        console.table("", *short(found.rows))
        for path in found.written:
            console.say(path)
    if found.failed:
        raise CheckFailedError(f"{len(found.failed)} jobs failed; {out / 'logs'} has what they said")


@app.command(epilog="Example: `qhyvit inspect build/v2/model.tflite --tensors`")
def inspect(
    path: Annotated[Path, typer.Argument(help="A .tflite, a bundle, or a work directory.")],
    graph: Annotated[bool, typer.Option("--graph", help="Print the float graph as text (work directory).")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="Print the plan's tensors (work directory).")] = False,
    as_json: Json = False,
) -> None:
    """Show what is in a file: ops by type and dtype, the parts that XNNPACK runs, the plan, the graph."""
    from qhyvit.inspect import inspect as look

    look(path, graph=graph, tensors=tensors, as_json=as_json)


@app.command(
    epilog="Example: `qhyvit report v2-int8 --images val/ --bench bench.json --out v2-int8.html`, "
    "or `qhyvit report v2-int8 v2-w4a8 v2-050 --images val/ --out page.html`"
)
def report(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folder; several are shown beside each other.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; default BUNDLE.html.")] = None,
    work: Annotated[Path | None, typer.Option(help="Work directory of the build; default BUNDLE.work.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images to compare float and int8 on, labelled or not.")] = None,
    labels: Labels = None,
    count: Annotated[int | None, typer.Option(min=1, help="Most images to use; default 1000.")] = None,
    bench: Annotated[Path | None, typer.Option(help="Latencies, from `qhyvit bench --out` or `qhyvit-device`.")] = None,
    float_model: FloatModel = None,
    class_map: ClassMap = None,
    mode: Mode = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Explain a build on one HTML page: what each tensor and block costs, what would help, where decisions differ.

    Several bundles give a page that shows them beside each other: fronts of accuracy against size and time, and a
    table. What a card beside a bundle says of these images is not measured again.
    """
    classes = _classes(class_map)
    if len(bundles) > 1:
        from qhyvit.overview import OverviewRequest

        own = {"--work": work, "--count": count, "--float": float_model}
        request = OverviewRequest(tuple(bundles), images, labels, mode, classes, bench)
        _several(request, out, [name for name, given in own.items() if given is not None], as_json=as_json)
        return
    from qhyvit.report.gather import gather
    from qhyvit.report.page import render
    from qhyvit.report.request import COUNT, Request

    (bundle,) = bundles
    target = out or files.beside(bundle, ".html")
    files.check_file(target)
    with console.talk() as talk:
        found = gather(Request(bundle, work, images, labels, bench, float_model, mode, count or COUNT, classes,
                               talk.progress, talk.log))  # fmt: skip
    files.write_text(target, render(found))
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        console.say(target)


def _several(request: OverviewRequest, out: Path | None, own: Sequence[str], *, as_json: bool) -> None:
    """Write the page of several bundles; ``own``: options that were given and are of one bundle alone."""
    from qhyvit.overview import overview, render

    if own:
        raise UsageError(f"{own[0]} is of one bundle: leave it out, or report that bundle by itself")
    if out is None:
        raise UsageError("several bundles go onto one page: name it with --out PAGE.html")
    files.check_file(out)
    with console.talk() as talk:
        found = overview(request, talk.progress, talk.log)
    files.write_text(out, render(f"{len(found.bundles)} bundles", found.bundles, found.times))
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        console.say(out)


@app.command(epilog="Example: `qhyvit compare v2-int8 v2-minmax --images val/`")
def compare(
    first: Annotated[Path, typer.Argument(help="Bundle, work directory or plan.json.")],
    second: Annotated[Path, typer.Argument(help="What it is compared with, one of the same.")],
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page.")] = None,
    images: Annotated[Path | None, typer.Option(help="Labelled images to measure both on (bundles).")] = None,
    labels: Labels = None,
    bench: Annotated[Path | None, typer.Option(help="Latencies of both, from one bench file.")] = None,
    mode: Mode = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Show where two plans or bundles differ: tensors, folds, accuracy, size, latency."""
    from qhyvit.report import compare as comparing

    if html is not None:
        files.check_file(html)
    with console.talk() as talk:
        found = comparing.compare(first, second, images, labels, bench, mode, talk.progress, talk.log)
    if html is not None:
        files.write_text(html, comparing.render(found))
    if as_json:
        print(json.dumps(found.to_json()))
        return
    for title, columns, rows in comparing.tables(found):
        console.table(title, columns, rows)

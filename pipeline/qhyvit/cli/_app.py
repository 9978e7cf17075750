"""The application that every command joins, and the options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qhyvit import __version__

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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Turns hybrid vision transformers into fully integer int8 TFLite files, and proves that they work."""


Bundle = Annotated[Path, typer.Argument(help="Bundle folder.")]
NewBundle = Annotated[Path, typer.Option("--out", help="Bundle folder to make.")]
ClassNames = Annotated[Path | None, typer.Option("--labels", help="Class names, one a line.")]
Labels = Annotated[Path | None, typer.Option(help="Another labels.csv.")]
FloatModel = Annotated[Path | None, typer.Option("--float", help="Float .tflite; default: the build's.")]
ModelName = Annotated[str | None, typer.Argument(help="Name from `qhyvit models`, or timm/NAME for any of timm's.")]
ModelPy = Annotated[str | None, typer.Option(help="FILE.py:FUNCTION, a factory of your own nn.Module.")]
Weights = Annotated[Path | None, typer.Option(help=".safetensors or torch state dict; what FILE.py makes has its own.")]
RandomWeights = Annotated[bool, typer.Option("--random-weights", help="Random weights, for trials of a named model.")]
Classes = Annotated[int | None, typer.Option(min=2, help="Class count of fine-tuned weights.")]
Size = Annotated[int | None, typer.Option(min=32, max=4096, help="Input height and width, pixels.")]
Images = Annotated[Path, typer.Option(help="Folder of calibration images; no labels needed.")]
WorkDir = Annotated[Path, typer.Option("--work", help="Work directory of the build.")]
Method = Annotated[str, typer.Option(help="Calibration method; `qhyvit methods` lists them.")]
Profile = Annotated[str, typer.Option(help="integer: no float at all; cpu: float where its kernels are faster.")]
Bits = Annotated[int, typer.Option(min=4, max=8, help="Of weights and activations; fewer than 8 is for studies.")]
Count = Annotated[int, typer.Option(min=1, help="Calibration images.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all that is drawn.")]
Mode = Annotated[
    str | None,
    typer.Option("--resize-mode", help="crop or squash; default: preprocess.json, else the bundle's, else crop."),
]
Options = Annotated[list[str] | None, typer.Option("--set", help="Option of the method, NAME=VALUE; repeatable.")]
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

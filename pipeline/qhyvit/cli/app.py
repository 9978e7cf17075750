"""The application that every command joins, and the options that several of them share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from qhyvit import files
from qhyvit.config import RENAMED_TARGETS, keywords
from qhyvit.errors import UsageError
from qhyvit_device import __version__

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
    quiet: Annotated[bool, typer.Option("--quiet", help="Print results and errors alone, no bars or logs.")] = False,
) -> None:
    """Turns hybrid vision transformers into fully integer int8 TFLite files, and proves that they work."""


Command = Callable[..., None]


def flag(keyword: str) -> Any:
    """The command line's option for a setting of a build (:func:`qhyvit.config.keywords`)."""
    _, _, about = keywords()[keyword]
    name, negated = (about.flag or keyword).replace("_", "-"), about.kind is bool and about.default is True
    text = f"{about.help[:-1]}; default {about.default}." if type(about.default) in (int, str) else about.help
    written = f"--{name}/--no-{name}" if negated else f"--{name}"
    return typer.Option(written, min=about.low, max=about.high, help=text, show_default=False)


GONE = {("no_int16" if name == "int16" else name): said for name, said in RENAMED_TARGETS.items()}


def _hidden(keyword: str) -> Any:
    """A flag of an earlier release, so that whoever writes it reads what to write now."""
    kind = bool if keyword.startswith("no_") else str
    return Annotated[kind | None, typer.Option(f"--{keyword.replace('_', '-')}", hidden=True)]


def build_flags(*parts: str) -> Callable[[Command], Command]:
    """Give a command a flag for every setting of these parts of a build; for the model one for each way to name it.

    It is called with ``given``: by keyword those that were written, as :meth:`qhyvit.config.BuildConfig.from_cli` takes
    them.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        flags = {keyword: about for keyword, (_, _, about) in keywords(*parts).items() if keyword != "model"}
        gone = GONE if "target" in parts else {}
        sources = SOURCES if "model" in parts else {}

        def call(**values: Any) -> None:
            for keyword in gone:
                if values.pop(keyword):
                    raise UsageError(f"--{keyword.replace('_', '-')} is no option any more: {GONE[keyword]}")
            given = {keyword: values.pop(keyword) for keyword in flags}
            if sources:
                named = {way: values.pop(way) for way in sources}
                given["model"] = _model({way: name for way, name in named.items() if name is not None}, values)
            for keyword, about in flags.items():
                if about.kind is dict and given[keyword] is not None:
                    given[keyword] = _pairs(given[keyword])
            command(given={keyword: value for keyword, value in given.items() if value is not None}, **values)

        def parameter(keyword: str, kind: Any) -> inspect.Parameter:
            hint: Any = Annotated[(list[str] if kind is dict else kind) | None, flag(keyword)]
            return inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)

        generated = [parameter(keyword, about.kind if about.read is None else str) for keyword, about in flags.items()]
        generated += [inspect.Parameter(way, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
                      for way, hint in sources.items()]  # fmt: skip
        generated += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_hidden(name))
                      for name in gone]  # fmt: skip
        kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values() if p.name != "given"]
        found = {p.name: p for p in (*kept, *generated)}
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = inspect.Signature(list(found.values()))  # type: ignore[attr-defined]
        call.__annotations__ = {name: p.annotation for name, p in found.items()}
        return call

    return decorate


def _model(named: Mapping[str, str], values: Mapping[str, Any]) -> str | None:
    """What to export, as :func:`qhyvit.models.shared.source.open_source` takes it; None: the config says it.

    Args:
        named: what was given, by its way of :data:`SOURCES`; ``values``: of the command's other parameters.
    """
    if len(named) > 1 or (not named and values.get("config") is None):
        raise UsageError(f"give either a model's name or {', '.join(FILES[:-1])} or {FILES[-1]}")
    way, name = next(iter(named.items()), ("", None))
    if way == "model_py" and not str(name).partition(files.OWN)[2].isidentifier():
        raise UsageError(f"--model-py takes FILE.py:FUNCTION, got {name!r}")
    if f".{way}" in files.MODEL_FILES and not str(name).endswith(f".{way}"):
        raise UsageError(f"--{way} takes a file that ends in .{way}, got {name!r}")
    return name


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE by name; the method knows the types."""
    options = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise UsageError(f"--set takes NAME=VALUE, got {item!r}")
        options[name] = value
    return options


Bundle = Annotated[Path, typer.Argument(help="Bundle folder.")]
NewBundle = Annotated[Path, flag("out")]
ClassNames = Annotated[Path | None, flag("labels")]
Labels = Annotated[Path | None, typer.Option(help="Labels, if not labels.csv; for segmentations a folder of maps.")]
FloatModel = Annotated[Path | None, typer.Option("--float", help="Float .tflite to compare; default: the build's.")]
# ways to say what is exported
FILES = ("--model-py FILE.py:FUNCTION", "--tflite FILE", "--onnx FILE", "--pt2 FILE")
SOURCES: Mapping[str, Any] = {
    "model": Annotated[str | None, typer.Argument(help="Name from `qhyvit models`, timm/NAME or hf-hub:OWNER/NAME.")],
    "model_py": Annotated[str | None, typer.Option(help="FILE.py:FUNCTION, which returns your own nn.Module.")],
    "tflite": Annotated[str | None, typer.Option(help="A float .tflite file, exported by any tool.")],
    "onnx": Annotated[str | None, typer.Option(help="An .onnx file; needs pip install 'qhyvit[onnx]'.")],
    "pt2": Annotated[str | None, typer.Option(help="A .pt2 file that torch.export.save wrote.")],
}
Images = Annotated[Path, flag("images")]
WorkDir = Annotated[Path, typer.Option("--work", help="Work directory of the build.")]
Seed = Annotated[int, flag("seed")]
Mode = Annotated[str | None, flag("resize_mode")]
Force = Annotated[bool, typer.Option("--force", help="Run again even if nothing changed, and overwrite.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
BoardPython = Annotated[str, typer.Option("--python", help="Python version of the board.")]
Machine = Annotated[str, typer.Option(help="Processor of the board: aarch64 or x86_64.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of local processes; default: one for each core.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler that is running, such as tcp://host:8786.")]
MinAgreement = Annotated[float | None, flag("min_agreement")]

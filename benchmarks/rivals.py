"""Other runtimes beside LiteRT, float and int8 of one model: how right, how like float, how large, how fast.

The rivals run in an environment of their own (``pip install -r requirements/rivals.txt``), from an ONNX file of the
same module, which takes this environment's ``onnx`` extra, or from PyTorch's export of it (ExecuTorch).
Each quantizes as its documentation says, on the same images as the others. For the times every file has a process,
which runs in bursts, one file's after the other's, one thread each; measure them on a machine left to itself.
``--prepare`` does all before, and a second call takes it up. Example:

    python -m venv rivals && rivals/bin/pip install -r requirements/rivals.txt
    python -m benchmarks.rivals mobilevitv2_075 --weights W.safetensors --images train/ --evaluate val/ \\
        --resize-mode squash --python rivals/bin/python --ours v2-int8/model.tflite --work build/rivals
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._files import RESULTS, add_images, beside_float, model_name, pixels_of, ranked_sets, write_rows
from benchmarks.stock import stock_export
from qhyvit import data, files
from qhyvit.evaluation import logits_of
from qhyvit.models.shared.source import open_source
from qhyvit.tasks.shared.accuracy import count
from qhyvit.work import default_preprocess
from qhyvit_device.preprocess import normalize
from qhyvit_device.statistics import ratio

CHILD = Path(__file__).with_name("rivals_child.py")
ENDS = {"onnxruntime": "onnx", "openvino": "xml", "mnn": "mnn", "ncnn": "param", "executorch": "pte"}
SAYS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "mnn": "MNN", "ncnn": "ncnn", "executorch": "ExecuTorch",
        "litert": "LiteRT"}  # fmt: skip
INT8 = {"onnxruntime": "static int8", "openvino": "NNCF int8", "mnn": "int8 weights",
        "executorch": "XNNPACK int8"}  # fmt: skip
TURNS, BURST_MS = 40, 150.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class _File:
    """One file of one runtime, and the Python that has it."""

    label: str
    runtime: str
    path: Path
    python: Path

    @property
    def size(self) -> int:
        """In bytes; OpenVINO and ncnn keep weights beside the graph."""
        beside = self.path.with_suffix(".bin")
        return self.path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)

    def command(self, what: str, *more: Path) -> list[str]:
        """A call of the child."""
        return [str(self.python), str(CHILD), what, self.runtime, str(self.path), *map(str, more)]


def _graphs(module: torch.nn.Module, shape: Sequence[int], place: Path) -> Path:
    """The module as ONNX, batch 1, and beside it PyTorch's own export, which ExecuTorch takes."""
    height, width, channels = shape
    path = place / "model.onnx"
    example = (torch.zeros(1, channels, height, width),)
    torch.onnx.export(module.eval(), example, str(path), dynamo=False, opset_version=17, input_names=["x"],
                      output_names=["y"])  # fmt: skip
    torch.export.save(torch.export.export(module, example), path.with_suffix(".pt2"))
    return path


def _rivals(args: argparse.Namespace, model: Path, images: Path) -> list[_File]:
    """Float and int8 of each runtime; one that cannot make them is told and left out."""
    found = []
    for runtime in args.runtimes.split(","):
        place, kinds = args.work / runtime, {"float": "float"}
        if runtime in INT8:
            kinds["int8"] = INT8[runtime]
        place.mkdir(exist_ok=True)
        paths = [place / f"{kind}.{ENDS[runtime]}" for kind in kinds]
        if not all(path.is_file() for path in paths):
            command = [str(args.python), str(CHILD), "make", runtime, str(model), str(images), str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
            if done.returncode:
                print(f"{runtime}: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
        labels = [f"{SAYS[runtime]} {says}" for says in kinds.values()]
        found += [_File(label, runtime, path, args.python) for label, path in zip(labels, paths, strict=True)]
    return found


def _times(made: Sequence[_File], images: Path) -> list[list[float]]:
    """Medians of bursts in milliseconds, one a turn, of each file; all in turn."""
    with ExitStack() as stack:
        children = []
        for file in made:
            child = stack.enter_context(subprocess.Popen(
                file.command("time", images), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, env=os.environ | ONE_THREAD,
            ))  # fmt: skip
            assert child.stdout is not None
            while (line := child.stdout.readline().strip()) != "ready":  # runtimes say what they like before
                if not line and child.poll() is not None:
                    raise SystemExit(f"{file.label}: ended with exit code {child.returncode}")
            children.append(child)

        def burst(child: subprocess.Popen[str], runs: int) -> float:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{runs}\n")
            child.stdin.flush()
            return float(np.median([float(word) for word in child.stdout.readline().split()]))

        runs = [max(1, round(BURST_MS / burst(child, 3))) for child in children]
        found = [[burst(child, n) for child, n in zip(children, runs, strict=True)] for _ in range(TURNS)]
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
    return [list(column) for column in zip(*found, strict=True)]


def rows_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a file."""
    args.work.mkdir(parents=True, exist_ok=True)
    source = open_source(args.model, args.weights)
    how = default_preprocess({"preprocess": source.preprocess})
    test = replace(how, mode=args.resize_mode)
    drawn = [*data.calibration_images(args.images, args.count, args.seed).values()]
    labelled = [*ranked_sets(args.evaluate, args.labels, source.classes).values()][-1]
    pixels = pixels_of(labelled.paths, source.shape, test)
    given, shown = args.work / "calibration.npy", args.work / "images.npy"
    for path, seen in ((given, pixels_of(drawn, source.shape, how)), (shown, pixels)):
        np.save(path, np.ascontiguousarray(normalize(seen, how).transpose(0, 3, 1, 2)))
    if not (args.work / "float.tflite").is_file():
        files.write_bytes(args.work / "float.tflite", stock_export(args.model, args.weights, source.shape))
    here = Path(sys.executable)
    made = [_File("LiteRT float", "litert", args.work / "float.tflite", here)]
    made += [_File("qhyvit int8, LiteRT", "litert", path, here) for path in args.ours]
    made += _rivals(args, _graphs(source.reference, source.shape, args.work), given)
    logits = []
    for file in made:
        kept = args.work / f"{files.sha256(file.path.read_bytes())}.npy"
        if not kept.is_file() and file.runtime == "litert":
            np.save(kept, logits_of(file.path.read_bytes(), pixels, test))
        elif not kept.is_file():
            subprocess.run(file.command("run", shown, kept), check=True, capture_output=True)
        logits.append(np.load(kept))
    if args.prepare:
        return []
    times, rows = _times(made, shown), []
    for file, found, taken in zip(made, logits, times, strict=True):
        rows.append({
            "model": model_name(args.model), "file": file.label,
            "calibration_images": "" if file.runtime == "litert" else args.count,
            **beside_float(count(found, labelled.truth, logits[0]), file.size, float(np.median(taken)),
                           ratio(taken, times[0])),
            "seed": args.seed,
        })  # fmt: skip
        print(", ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of the zoo, or FILE.py:FUNCTION")
    parser.add_argument("--weights", type=Path, required=True)
    add_images(parser)
    parser.add_argument("--count", type=int, default=128, help="calibration images of the rivals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", type=Path, required=True, help="of the environment that holds the rivals")
    parser.add_argument("--runtimes", default=",".join(ENDS))
    parser.add_argument("--ours", type=Path, nargs="*", default=[], help="integer .tflite of the same model")
    parser.add_argument("--work", type=Path, required=True, help="keeps the files")
    parser.add_argument("--prepare", action="store_true", help="make the files and run the images; take no times")
    parser.add_argument("--out", type=Path, default=RESULTS / "rivals.csv")
    return parser


def main() -> None:
    """Command line."""
    args = _parser().parse_args()
    rows = rows_of(args)
    if rows:
        write_rows(args.out, rows, ("model", "file"))


if __name__ == "__main__":
    main()

"""What the objective says that rounding a tensor costs, beside the distance that rounding it alone makes: one dot each.

The objective is a sum over values, of their squared rounding errors times the squared gradients of the distance, as
the rounds of ``qhyvit`` weigh them. It was made to rank ranges and tensors, and so ranks are compared
(Spearman's correlation). Images are some that the calibration did not see. Example:

    python -m benchmarks.objective build/v2 --images train/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track
from scipy.stats import spearmanr

from benchmarks._files import RESULTS, model_name, pixels_of, read_rows, write_rows
from qhyvit import data
from qhyvit.errors import InputError
from qhyvit.methods.shared.hessian import gather
from qhyvit.methods.shared.problem import Problem
from qhyvit.plan import Codes
from qhyvit.report.cost import Costs, Rounded, rounded_tensors
from qhyvit.stages.problem import problem_of
from qhyvit.stages.solved import Solved, solved
from qhyvit.targets import target
from qhyvit.work import FACTS, Work, default_preprocess, input_shape
from qhyvit_device.preprocess import normalize

PICTURE = RESULTS.parent.parent / "docs" / "objective.png"
NAMED = 3  # tensors that the picture names: those whose ranks lie farthest apart
COLOURS = {"ADD": "#c1440e", "MUL": "#8a5a9e", "LOGISTIC": "#e0a030", "CONV_2D": "#2a6f97",
           "FULLY_CONNECTED": "#2a6f97", "DEPTHWISE_CONV_2D": "#4fa3a5"}  # fmt: skip
OTHERS = "#a9b4c2"


def unseen(work: Work, found: Solved, folder: Path, count: int) -> np.ndarray:
    """Images [count, H, W, C] of a folder that the plan was not calibrated on, as the model takes them.

    Raises:
        InputError: the folder has fewer.
    """
    facts, used = work.json(FACTS), set(found.plan.image_hashes)
    drawn = data.calibration_images(folder, count + len(used), found.plan.seed)
    paths = [path for name, path in drawn.items() if name not in used][:count]
    if len(paths) < count:
        raise InputError(f"{folder} has {len(paths)} images that the calibration did not see, and not {count}")
    how = data.preprocess_for(folder, default_preprocess(facts), found.plan.resize_mode)
    return normalize(pixels_of(paths, input_shape(facts), how), how)


def predicted(problem: Problem, found: Solved, items: list[Rounded]) -> dict[int, float]:
    """The objective of each tensor with the range that the plan has for it, a mean over the images."""
    statistics = gather(problem, found.plan.tensors, [item.tensor.id for item in items], (), "gradients")
    costs = {}
    for item in items:
        rows = statistics.histograms[item.tensor.id]
        if rows.moments is not None:
            scale, zero = (np.array(x[:1], np.float64) for x in (item.quant.scale, item.quant.zero_point))
            error = sum(float(row.error(scale, zero, *item.quant.limits)[0]) for row in rows.channels())
            costs[item.tensor.id] = error / len(problem.images)
    return costs


def rows_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each activation that the plan rounds to codes of one scale."""
    work = Work(args.work)
    found, name = solved(work), model_name(work.json(FACTS)["model"])
    images = unseen(work, found, args.images, args.count)
    problem = problem_of(work, images, int16=True, seed=found.plan.seed, target=target(found.plan.target))
    problem = problem.on(found.folded)
    items = [item for item in rounded_tensors(found.folded, found.plan.tensors) if item.kind == "activation"
             and item.quant.axis is None and item.quant.codes is Codes.UNIFORM]  # fmt: skip
    costs = Costs(found, problem.images, problem.targets, problem.lowered)
    says = predicted(problem, found, items)
    shown = track([item for item in items if item.tensor.id in says], "tensors", disable=not sys.stderr.isatty())
    return [
        {"model": name, "tensor": item.tensor.name, "op": item.node.op if item.node else "input",
         "images": args.count, "predicted": f"{says[item.tensor.id]:.4g}", "alone": f"{costs.alone(item):.4g}"}
        for item in shown
    ]  # fmt: skip


def draw(path: Path, rows: list[dict[str, Any]]) -> float:
    """The picture; returns Spearman's correlation."""
    kept = [r for r in rows if float(r["predicted"]) > 0 and float(r["alone"]) > 0]
    x, y = (np.array([float(r[column]) for r in kept]) for column in ("predicted", "alone"))
    correlation = float(spearmanr(x, y).statistic)
    figure = Figure(figsize=(7.6, 4.4))
    axis = figure.subplots()
    for op in dict.fromkeys(r["op"] for r in kept):
        own = [i for i, r in enumerate(kept) if r["op"] == op]
        label = op if op in COLOURS else None
        axis.plot(x[own], y[own], "o", color=COLOURS.get(op, OTHERS), markersize=4, alpha=0.8, label=label)
    apart = np.argsort(np.argsort(y)) - np.argsort(np.argsort(x))
    for i in np.argsort(-np.abs(apart))[:NAMED]:
        axis.annotate(kept[i]["tensor"], (x[i], y[i]), fontsize=7, xytext=(4, 4), textcoords="offset points")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("what the objective says: squared error times squared gradient, a mean over images", fontsize=8)
    axis.set_ylabel("distance with this tensor alone rounded", fontsize=8)
    title = f"{kept[0]['model']}: {len(kept)} activations, {kept[0]['images']} unseen images"
    axis.set_title(f"{title}; rank correlation {correlation:.2f}", fontsize=9, loc="left")
    axis.grid(visible=True, color="#e3e6ea", linewidth=0.6)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return correlation


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="work directory of a calibration")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, some of them not calibrated on")
    parser.add_argument("--count", type=int, default=32, help="unseen images")
    parser.add_argument("--out", type=Path, default=RESULTS / "objective.csv")
    args = parser.parse_args()
    write_rows(args.out, rows_of(args), ("model", "tensor"))
    picture = PICTURE if args.out == RESULTS / "objective.csv" else args.out.with_suffix(".png")
    print(f"rank correlation {draw(picture, read_rows(args.out)):.3f}; {picture}")


if __name__ == "__main__":
    main()

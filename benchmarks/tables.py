"""Tables in the documents, from the result files: what lies between ``<!-- table NAME -->`` and ``<!-- end -->``.

The rows of a table come from one commit, which stands under it; a table of several is refused. A result file may hold
rows of several, because each table has its own rows of it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks._files import COMPARED, RESULTS, ROOT, of_all_images, read_rows
from qhyvit import files
from qhyvit.errors import InputError

DOCUMENTS = ("README.md", "docs/results.md", "docs/four_bits.md", "docs/own_models.md", "docs/targets.md")
TOP1 = re.compile(r"top1_percent ([\d.]+) to ([\d.]+)")
MARKED = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


Row = dict[str, str]


class Results:
    """Rows of the result files, and which commits those come from that a table took."""

    def __init__(self, folder: Path = RESULTS) -> None:
        self.folder = folder
        self.origins: dict[tuple[str, str], str] = {}

    def rows(self, name: str, keep: Callable[[Row], bool] = lambda row: True) -> list[Row]:
        """Those rows of a result file that ``keep`` wants."""
        kept = [row for row in read_rows(self.folder / name) if keep(row)]
        for row in kept:
            self.origins.setdefault((row.get("commit", ""), row.get("machine", "")), f"{name}: {row.get('command')}")
        return kept

    def origin(self, table: str) -> str:
        """The line under a table.

        Raises:
            InputError: its rows come from several commits.
        """
        commits = {commit: where for (commit, _), where in self.origins.items()}
        if len(commits) > 1:
            found = "; ".join(f"{commit or 'none recorded'} ({where})" for commit, where in commits.items())
            raise InputError(f"table {table}: rows of several commits: {found}; make them by one: make results")
        if not any(commits):
            return "\nThese rows are of an earlier version, whose commit was not recorded.\n"
        machines = {machine for _, machine in self.origins if machine}
        return f"\nCommit {next(iter(commits))}{', ' if machines else ''}{', '.join(sorted(machines))}.\n"


STOCK = {
    "float": "float (timm through litert-torch)",
    "static_wi8_ai8": "ai-edge-quantizer static int8",
    "dynamic_wi8_afp32": "ai-edge-quantizer dynamic int8",
}
OURS = {"8": "**qhyvit, fully integer**", "w4a8 2.1MB": "**qhyvit, weights of four bits**"}


def stock(results: Results) -> str:
    """Deployed accuracy beside the stock converter; ours as the mean over seeds, with what the first file holds."""
    rows = []
    for r in results.rows("stock.csv", lambda r: (
        (r["model"], r["export"]) == (COMPARED, "stock export") and r["recipe"] in STOCK
    )):  # fmt: skip
        rows.append([STOCK[r["recipe"]], "", *_means([r]), *_holds(r)])
    ours = _by_bits(results)
    rows += [[what, str(len(ours[called])), *_means(ours[called]), *_holds(ours[called][0])]
             for called, what in OURS.items() if called in ours]  # fmt: skip
    columns = ["", "calibration sets", "top-1 %", "agrees with float %", "float tensors", "ops", "MB"]
    return _markdown(columns, rows)


def _holds(row: Row) -> list[str]:
    return [row["float_tensors"], row["ops"], f"{int(row['size_bytes']) / 1e6:.2f}"]


def _by_bits(results: Results) -> dict[str, list[Row]]:
    """Deployed integer files of the default calibration, one row a seed, by their bits."""
    found: dict[str, list[Row]] = {}
    for r in _runs(results, "bits"):
        found.setdefault(r["bits"], []).append(r)
    return found


def bits(results: Results) -> str:
    """Every set of labelled images by itself and all of them, for each number of bits; means over seeds."""
    return _by_set(results, "")


def four_bits(results: Results) -> str:
    """The same for weights of four bits alone."""
    return _by_set(results, "w4")


def _by_set(results: Results, kind: str) -> str:
    """``kind``: what the name of the bits begins with."""
    given = results.rows("accuracy.csv", lambda r: (
        (r["model"], r["table"]) == (COMPARED, "bits") and r["bits"].startswith(kind)
    ))  # fmt: skip
    rows = []
    for called, named in dict.fromkeys((r["bits"], r["set"]) for r in given):
        own = [r for r in given if (r["bits"], r["set"]) == (called, named)]
        drops = [float(r["float_top1_percent"]) - float(r["top1_percent"]) for r in own]
        size = f"{sum(int(r['size_bytes']) for r in own) / len(own) / 1e6:.2f}"
        spread = f"{sum(drops) / len(drops):.2f} ({min(drops):.2f} to {max(drops):.2f})"
        label = f"W{called}A{called}" if called.isdigit() else called.upper().replace("MB", " MB")
        means = (own[0]["float_top1_percent"], *_means(own), spread)
        rows.append([label, size, str(len(own)), f"{named}, {own[0]['images']}", *means])
    columns = ["", "MB", "calibration sets", "images", "float", "top-1 %", "agrees with float %", "drop, points"]
    return _markdown(columns, rows)


def _means(rows: list[Row]) -> list[str]:
    return [_mean(rows, c) for c in ("top1_percent", "agreement_percent")]


def _mean(rows: list[Row], column: str) -> str:
    """Mean over seeds, and lowest to highest where there are several."""
    values = [float(r[column]) for r in rows]
    if not values:
        return ""
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.2f}{spread}"


def _runs(results: Results, table: str) -> list[Row]:
    """Rows of one table of accuracy.csv: of the model that is compared, on all images that it was counted on."""
    found = results.rows("accuracy.csv", lambda r: (r["model"], r["table"]) == (COMPARED, table))
    return [r for r in found if of_all_images(r)]


def _by_run(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """By row name and calibration images, in their own order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        found.setdefault((r["row"], r["calibration_images"]), []).append(r)
    return found


def _of(rows: list[Row], counted: str, bits: int = 8) -> list[Row]:
    return [r for r in rows if r["counted"] == counted and r["bits"] == str(bits)]


def methods(results: Results) -> str:
    """All methods, simulated and deployed; mean over seeds and their range."""
    rows = []
    for (name, images), found in _by_run(_runs(results, "methods")).items():
        deployed = _of(found, "deployed integer") or _of(found, "deployed cpu")
        eight = [_mean(r, "top1_percent") for r in (_of(found, "partial"), _of(found, "full"), deployed)]
        agrees = _mean(deployed, "agreement_percent")
        seeds = str(len({r["seed"] for r in found}))
        six = [_mean(_of(found, counted, 6), "top1_percent") for counted in ("full", "deployed integer")]
        rows.append([name, images, seeds, *eight, agrees, *six])
    columns = ["top-1 %", "calibration images", "seeds", "partial, simulated", "full, simulated", "**deployed**"]
    return _markdown([*columns, "agrees with float %", "W6A6, simulated", "W6A6, **deployed**"], rows)


def ablation(results: Results) -> str:
    """What each part brings, deployed."""
    rows = []
    for (name, images), found in _by_run(_runs(results, "ablation")).items():
        deployed = _of(found, "deployed integer")
        seeds = str(len({r["seed"] for r in deployed}))
        means = [_mean(deployed, c) for c in ("top1_percent", "agreement_percent", "sqnr_db")]
        rows.append([name, images, seeds, *means])
    columns = ["each row adds to the one above", "calibration images", "seeds", "top-1 %", "agrees with float %"]
    return _markdown([*columns, "mean SQNR, dB"], rows)


def _pair(rows: list[Row]) -> str:
    """Top-1 and agreement, means over seeds; a file that stops with an error on some image has neither."""
    if any(not r["top1_percent"] for r in rows):
        return "does not run"
    top1, agreement = (_spreadless(rows, c) for c in ("top1_percent", "agreement_percent"))
    return f"{top1} / {agreement}" if rows else ""


def _spreadless(rows: list[Row], column: str) -> str:
    return f"{sum(float(r[column]) for r in rows) / len(rows):.2f}" if rows else ""


def families(results: Results) -> str:
    """One trained model a family, deployed: float, the stock converter, both profiles."""
    measured = results.rows("accuracy.csv", lambda r: (
        r["model"] != COMPARED and (r["table"], r["bits"]) == ("methods", "8") and r["row"].startswith("qhyvit")
    ))  # fmt: skip
    models, rows = {r["model"] for r in measured}, []
    stock_rows = results.rows("stock.csv", lambda r: (
        r["model"] in models and (r["export"], r["recipe"]) == ("stock export", "static_wi8_ai8")
    ))  # fmt: skip
    for model in dict.fromkeys(r["model"] for r in measured):
        own = [r for r in measured if r["model"] == model]
        beside = [r for r in stock_rows if r["model"] == model]
        profiles = [[r for r in own if r["counted"] == f"deployed {p}"] for p in ("integer", "cpu")]
        sets = " and ".join(dict.fromkeys(str(len(p)) for p in profiles))  # one number where both have as many
        float_top1 = _spreadless(own[:1], "float_top1_percent")
        rows.append([model, own[0]["images"], float_top1, _pair(beside), *(_pair(p) for p in profiles), sets])
    columns = ["top-1 % / agrees with float %", "images", "float", "ai-edge-quantizer static int8"]
    return _markdown([*columns, "**integer**", "**cpu**", "calibration sets"], rows)


def coverage(results: Results) -> str:
    """Every variant as an integer file."""
    columns = {"ops": "ops", "int8_ops": "int8", "int16_ops": "int16", "float_ops": "float",
               "float_tensors": "float tensors", "partitions": "XNNPACK's parts", "size_mb": "MB",
               "verified": "verified"}  # fmt: skip
    rows = [[r["variant"], *(r[name] for name in columns)] for r in results.rows("coverage.csv")]
    return _markdown(["", *columns.values()], rows)


def own_models(results: Results) -> str:
    """Every network of timm that was tried: built and verified, or refused with the reason."""
    rows = []
    for r in sorted(results.rows("own_models.csv"), key=lambda r: (r["model"], int(r["input"]))):
        if r["status"] == "built":
            agreed, images = map(int, r["agreement"].split("/"))
            cells = [r["ops"], r["verified"], f"{100 * agreed / images:.0f}", r["correlation"]]
        else:
            cells = ["", f"refused: {r['reason']}", "", ""]
        rows.append([f"`{r['model']}`", r["input"], *cells, r["all_s"]])
    return _markdown(["model", "input", "ops", "verified", "agrees with float %", "correlation", "seconds"], rows)


def variants(results: Results) -> str:
    """Time of every variant in both profiles over that of its own float file."""
    rows = [[r["variant"], r["own_float_ms"], r["integer"], r["cpu"]] for r in results.rows("variants.csv")]
    return _markdown(["", "own float, ms", *_emphasized(["integer", "cpu"])], rows)


def latency(results: Results) -> str:
    """Milliseconds of each file, and over the time of the stock float file."""
    measured = results.rows("latency.csv", lambda r: (r["threads"], r["turn"]) == ("1", "1"))
    kinds, rows = list(dict.fromkeys(r["file"] for r in measured)), []
    for model in dict.fromkeys(r["model"] for r in measured):
        own = {r["file"]: r for r in measured if r["model"] == model}
        rows.append([model, *(f"{float(own[k]['p50_ms']):.1f} / {float(own[k]['to_float']):.2f}" for k in kinds)])
    return _markdown(["ms / share of the stock float file's time", *_emphasized(kinds)], rows)


def turns(results: Results) -> str:
    """Shares of the stock files' time where each file runs several times in a row."""
    measured = results.rows("latency.csv", lambda r: r["threads"] == "1" and r["turn"] != "1")
    kinds, rows = ("integer", "cpu"), []
    for model in dict.fromkeys(r["model"] for r in measured):
        own = {r["file"]: r for r in measured if r["model"] == model}
        shares = [f"{float(own[k][column]):.3f}" for column in ("to_float", "to_stock_int8") for k in kinds]
        times = [f"{float(own[k]['p50_ms']):.2f}" for k in ("stock float", "stock int8", *kinds)]
        rows.append([model, *times, *shares])
    shown = _emphasized(list(kinds))
    over = [f"{k} / {base}" for base in ("float", "stock int8") for k in kinds]
    return _markdown(["ms", "stock float", "stock int8", *shown, *over], rows)


def instructions(results: Results) -> str:
    """Million instructions on each emulated processor, and over those of the stock float file; the least, estimated."""
    counted = results.rows("instructions.csv")
    least = "products_to_own_float_estimated"
    kinds, rows = list(dict.fromkeys(r["file"] for r in counted)), []
    for model, processor in dict.fromkeys((r["model"], r["processor"]) for r in counted):
        own = {r["file"]: r for r in counted if (r["model"], r["processor"]) == (model, processor)}
        cells = [f"{float(own[k]['million_instructions']):.0f} / {float(own[k]['to_float']):.2f}" for k in kinds]
        floors = [f"{float(r[least]):.2f}" for r in own.values() if r.get(least)]
        rows.append([f"{model}, {processor}", *cells, *floors])
    head = ["million / share of the stock float file's", *_emphasized(kinds)]
    return _markdown([*head, *["products alone / own float, estimated"] * (len(rows[0]) - len(head))], rows)


def op_times(results: Results) -> str:
    """Milliseconds of each file by kind of op, and the layers' alone over the stock float file's time."""
    parts = ("layers", "products", "softmax", "int8", "float", "borders", "copies", "between")
    rows = [[f"{r['model']}, {r['file']}", r["ops"], r["ms"], *(r[k] for k in parts), r["floor"]]
            for r in results.rows("op_times.csv") if r["file"] in ("stock int8", "integer", "cpu")]  # fmt: skip
    return _markdown(["ms", "ops", "all", *parts, "layers / stock float"], rows)


def mutation(results: Results) -> str:
    """Mutants that a test tells from the original, by folder."""
    rows = [[f"`{r['folder']}/`", *(r[k] for k in ("mutants", "killed", "no_test", "score_percent"))]
            for r in results.rows("mutation.csv")]  # fmt: skip
    return _markdown(["", "mutants", "killed", "run by no test", "**score, %**"], rows)


def tasks(results: Results) -> str:
    """Networks of other tasks than classifying: what of float is kept, and how right both files are."""
    rows = []
    for r in results.rows("tasks.csv", lambda r: r["task"] != "classify"):
        images = f"{r['calibration_images']} / {r['images']}"
        kept = "; ".join(part for part in (r["kept"], r["float_to_integer"]) if part)
        file = r["method"] if r["method"] != "qhyvit" else f"**qhyvit, {r['profile']}**"
        rows.append([f"{r['model']}, {r['input']}", file, images, kept, r["ops"], f"{int(r['size_bytes']) / 1e6:.2f}"])
    return _markdown(["", "file", "calibration / other images", "kept of float; float to file", "ops", "MB"], rows)


def rivals(results: Results) -> str:
    """Other runtimes beside LiteRT, float and int8 of each model."""
    rows = []
    for r in results.rows("rivals.csv"):
        to_float = f"{r['p50_ms']} ({float(r['to_float']):.2f})"
        label = f"**{r['file']}**" if r["file"].startswith("qhyvit") else r["file"]
        rows.append([f"{r['model']}, {label}", r["images"], r["top1_percent"], r["agreement_percent"],
                     f"{int(r['size_bytes']) / 1e6:.2f}", to_float])  # fmt: skip
    columns = ["", "images", "top-1 %", "agrees with float %", "MB", "ms, one thread (of LiteRT's float)"]
    return _markdown(columns, rows)


def on_targets(results: Results) -> str:
    """Top-1 and agreement with float of the files for several targets, from the same weights and images."""
    found, rows = results.rows("tasks.csv", lambda r: r["task"] == "classify"), []
    names = list(dict.fromkeys(r["profile"] for r in found))
    for model, images in dict.fromkeys((r["model"], r["images"]) for r in found):
        own = {r["profile"]: r for r in found if (r["model"], r["images"]) == (model, images)}
        tops = {name: TOP1.search(r["float_to_integer"]) for name, r in own.items()}
        plain = next(match[1] for match in tops.values() if match)
        both = [f"{m[2]} / {float(own[n]['as_float']):.2f}" if (m := tops.get(n)) else "" for n in names]
        rows.append([model, images, plain, *both])
    said = {"integer": "litert", "cpu": "litert, `--no-integer`"}
    return _markdown(["top-1 % / agrees with float %", "images", "float", *(said.get(n, n) for n in names)], rows)


def targets(results: Results) -> str:
    """Every variant on a microcontroller's interpreter and three Ethos-U, ours and the stock converter's file."""
    found, rows = results.rows("targets.csv"), []
    names = list(dict.fromkeys(r["target"] for r in found))
    for variant, file in dict.fromkeys((r["variant"], r["file"]) for r in found):
        own = {r["target"]: r for r in found if (r["variant"], r["file"]) == (variant, file)}
        rows.append([f"{variant}, {file}", *(_on_target(own[name]) if name in own else "" for name in names)])
    said = {"tflm": "tflm: codes equal, arena"}
    return _markdown(["", *(said.get(name, f"{name}: on the NPU, ms") for name in names)], rows)


def _on_target(row: Row) -> str:
    if row["builds"] != "yes":
        return "refused"
    if row["arena_kib"]:
        codes, equal = row["codes"], row["equal_codes"]
        share = f"{100 * int(equal) / int(codes):.4g} % of {int(codes) / 1e6:.1f} M, " if codes else ""
        return f"{share}{int(row['arena_kib']) / 1024:.1f} MiB"
    npu, cpu = int(row["npu"]), int(row["cpu"])
    return f"{100 * npu / (npu + cpu):.4g} %, {float(row['estimated_ms']):.1f}"


def _emphasized(kinds: list[str]) -> list[str]:
    return [f"**{k}**" if k.split()[0] in ("integer", "cpu") else k for k in kinds]


TABLES: dict[str, Callable[[Results], str]] = {
    f.__name__: f
    for f in (
        stock, bits, four_bits, methods, ablation, families, coverage, own_models, variants, latency, turns, op_times,
        instructions, mutation, targets, tasks, on_targets, rivals,
    )
}  # fmt: skip


def filled(text: str, folder: Path = RESULTS) -> str:
    """The document with its tables as the result files give them.

    Raises:
        InputError: a table's rows come from several commits.
    """

    def made(match: re.Match[str]) -> str:
        results = Results(folder)
        table = TABLES[match[2]](results)
        return match[1] + table + results.origin(match[2]) + match[3]

    return MARKED.sub(made, text)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a table is out of date")
    args = parser.parse_args()
    stale = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        if filled(text) != text:
            stale.append(name)
            if not args.check:
                files.write_text(ROOT / name, filled(text))
    if args.check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python -m benchmarks.tables")


if __name__ == "__main__":
    main()

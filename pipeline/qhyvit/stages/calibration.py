"""Stage 2: the search, from the float file to a plan."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qhyvit import data, files
from qhyvit.config import DataConfig, MethodConfig, TargetConfig, check_bits
from qhyvit.plan import QuantPlan
from qhyvit.stages.problem import layout_of, problem_of
from qhyvit.stages.settings import note
from qhyvit.store import Store
from qhyvit.tasks import task
from qhyvit.work import (
    CONSTANTS,
    FACTS,
    FLOAT,
    FOLDED,
    LATENCY,
    PLAN,
    SAMPLES,
    Work,
    alone,
    default_preprocess,
    input_shape,
)
from qhyvit_device.preprocess import normalize

if TYPE_CHECKING:
    from qhyvit.latency.profile import LatencyProfile
    from qhyvit.methods.shared.problem import Options, Problem, Solution
    from qhyvit.targets import Target


SAMPLE_COUNT = 16  # calibration images that the work directory keeps, for the report
PIECES = "calibrate.part"  # finished pieces of a calibration that goes on


@alone
def calibrate(work: Work, images: DataConfig, method: MethodConfig, target: TargetConfig = TargetConfig()) -> None:
    """Stage 2: ``folded.tflite`` (the float graph with its folds), ``plan.json`` and ``plan.npz`` (new constants).

    Beside them ``samples.npz``, some of the images as the model sees them: the report measures on these.

    Raises:
        UsageError: the profile does not have these bits, or the model no such outputs as are weighted.
    """
    check_bits(method, target)
    chosen, options = method.parsed
    facts = work.json(FACTS)
    layout_of(facts, method.output_weights)  # refuses names of no output before the work
    drawn = data.calibration_images(images.images, images.count, method.seed)
    how = data.preprocess_for(images.images, default_preprocess(facts), images.resize_mode)
    aim = target.found
    hashes, int16, latency = list(drawn), aim.int16 and method.activation_bits == 8, aim.latency
    options = options_within(options, aim, int16=int16, bits=method.activation_bits)
    key = {"float": work.hash(FLOAT), "images": hashes, "how": asdict(how), "mode": images.resize_mode, "int16": int16,
           "method": {**method.to_json(), "options": options.to_json()}, "target": aim.called,
           "profile": aim.profile, "latency": latency.digest}  # fmt: skip
    store = Store(work.folder / PIECES)

    def make() -> None:
        import torch

        started = time.monotonic()
        shape, paths, found = input_shape(facts), [*drawn.values()], task(facts["task"])
        raw = data.load_pixels(paths, shape, how, work.log)
        files.write_bytes(work.folder / SAMPLES, files.pack_arrays({"pixels": raw[:: -(-len(raw) // SAMPLE_COUNT)]}))
        store.open(work.digest(key))
        # of an array nobody knows whether its mirror is an input
        cropped = found.thorough and not data.are_arrays(paths)
        views = [raw, *([data.mirrored_crops(paths, shape, how, method.seed)] if cropped else [])]
        seen = normalize(np.concatenate(views), how)
        problem = problem_of(work, seen, int16=int16, weights=method.output_weights, store=store, seed=method.seed,
                           bits=method.activation_bits, int4=method.has_int4, size=method.size, target=aim,
                           views=len(views))
        torch.manual_seed(method.seed)
        solution = chosen.search(problem, options)
        plan = QuantPlan(
            solution.tensors, method.name, options.to_json(), method.seed, aim.profile, aim.called,
            model_sha256=work.hash(FLOAT), images_sha256=data.combined_hash(hashes), image_count=len(hashes),
            image_hashes=tuple(hashes), latency=latency.name, task=found.name, resize_mode=images.resize_mode,
            **_plan_facts(problem, solution), seconds=round(time.monotonic() - started, 1),
        )  # fmt: skip
        _write_solution(work, solution, plan, latency)

    work.stage("calibrate", key, (FOLDED, CONSTANTS, PLAN, LATENCY), make)
    store.close()  # not before the stage counts as done: a run killed in between would begin from nothing
    note(work, data=images, method=method, target=target)


def options_within(options: Options, aim: Target, *, int16: bool, bits: int) -> Options:
    """The options without what the target lacks, and what fewer bits have no form for."""
    options = options if int16 else options.without_int16()
    options = options if aim.fast_gelu else replace(options, fast_gelu=False)
    return options.without_log() if "LOG" in aim.lacks or bits != 8 else options


def _write_solution(work: Work, solution: Solution, plan: QuantPlan, latency: LatencyProfile) -> None:
    from qhyvit.tflite.serialize import serialize

    files.write_text(work.folder / LATENCY, latency.to_json())
    files.write_bytes(work.folder / FOLDED, serialize(solution.graph))
    files.write_bytes(work.folder / CONSTANTS, files.pack_arrays(solution.constants))
    files.write_text(work.folder / PLAN, plan.to_json())


def _plan_facts(problem: Problem, solution: Solution) -> dict[str, Any]:
    """Fields of the plan that say what was made of the graph."""
    from qhyvit.methods.shared.bridge_report import bridge_report

    graph = solution.graph
    assert problem.door is not None

    def names(ids: frozenset[int]) -> tuple[str, ...]:
        return tuple(t.name for t in graph.activations() if t.id in ids)

    return {
        "folds": solution.folds, "int16": solution.int16, "refused": tuple(problem.door.refused),
        "bridge": bridge_report(problem.on(graph), solution.tensors),
        "wide": names(graph.widened), "floats": names(graph.islands), "gates": names(graph.gates),
    }  # fmt: skip

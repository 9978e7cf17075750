"""The stages of a build on a work directory: each writes its files whole, and is skipped where nothing changed."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhyvit import data, files
from qhyvit.config import CONFIG, DataConfig, MethodConfig, ModelConfig, TargetConfig, check_bits
from qhyvit.data import EXPORT_IMAGES
from qhyvit.data import VERIFY_IMAGES as VERIFY_IMAGES
from qhyvit.errors import InputError
from qhyvit.plan import QuantPlan
from qhyvit.store import Store
from qhyvit.work import CONSTANTS as CONSTANTS
from qhyvit.work import FACTS as FACTS
from qhyvit.work import FLOAT as FLOAT
from qhyvit.work import FOLDED as FOLDED
from qhyvit.work import LATENCY as LATENCY
from qhyvit.work import MODEL as MODEL
from qhyvit.work import PLAN as PLAN
from qhyvit.work import SAMPLES as SAMPLES
from qhyvit.work import VERIFY as VERIFY
from qhyvit.work import Work as Work
from qhyvit.work import alone, code_digest, state_digest, versions
from qhyvit.work import default_preprocess as default_preprocess
from qhyvit_device import __version__
from qhyvit_device.preprocess import normalize, quantize

if TYPE_CHECKING:
    from qhyvit.graph.ir import Graph
    from qhyvit.latency.profile import LatencyProfile
    from qhyvit.lowering.lower import Lowered
    from qhyvit.methods._problem import Problem, Solution
    from qhyvit.models._source import Source
    from qhyvit.options import Settings
    from qhyvit.sim.checked import Door
    from qhyvit.verify.report import Report

SAMPLE_COUNT = 16  # calibration images that the work directory keeps, for the report
JUDGED = (FLOAT, FACTS, FOLDED, CONSTANTS, PLAN, MODEL)  # what a verdict is about
PIECES = "calibrate.part"  # finished pieces of a calibration that goes on


@alone
def export(work: Work, model: ModelConfig, seed: int = 0, images: Path | None = None) -> None:
    """Stage 1: ``float.tflite`` and ``export.json`` of a model (see :func:`qhyvit.models._source.open_source`).

    Args:
        images: folder of real ones, of which a few show that the file computes what the module does; None: noise does.
    """
    check_weights(model)
    pictures = {} if images is None else data.calibration_images(images, EXPORT_IMAGES, seed)
    weights = model.weights
    digest = None if weights is None else files.sha256(files.read_bytes(weights, "weights file"))
    key: dict[str, Any] = {"model": model.name, "weights": digest, "classes": model.classes, "size": model.input_size,
                           "seed": seed, "images": list(pictures)}  # fmt: skip

    def opened_now() -> Source:
        from qhyvit.models._source import open_source

        return open_source(model.source, weights, model.classes, model.input_size, seed,
                           random_weights=model.random_weights)  # fmt: skip

    opened = None
    if model.module is not None or files.OWN in model.name:  # what a factory gives is known only when it ran
        opened = opened_now()
        key |= {"state": state_digest(opened.reference), "code": code_digest(model.source, opened.reference)}
        key["preprocess"] = opened.preprocess

    def make() -> None:
        from qhyvit.models._export import export as convert

        work.progress("export", 0.0)
        source = opened or opened_now()
        work.log(f"export: {source.name} by the {source.family} family, {source.weights} weights")
        how = default_preprocess({"preprocess": source.preprocess})
        real = normalize(data.load_pixels([*pictures.values()], source.input_size, how), how) if pictures else None
        made = convert(source, work.log, real)
        files.write_bytes(work.folder / FLOAT, made.tflite)
        files.write_text(work.folder / FACTS, json.dumps({**made.facts, "weights_sha256": digest}, indent=1) + "\n")

    work.stage("export", key, (FLOAT, FACTS), make)
    _note(work, model=model)


def check_weights(model: ModelConfig) -> None:
    """See :func:`qhyvit.models._source.check_weights`; `build` asks before the work."""
    from qhyvit.models._source import check_weights as check

    check(model.source, model.weights, random_weights=model.random_weights)


def _note(work: Work, **parts: Settings) -> None:
    """Keep settings for the bundle, paths by their last names: what is in them, hashes say."""
    try:
        kept = work.json(CONFIG)
    except InputError:
        if (work.folder / CONFIG).is_file() and not work.force:
            raise
        kept = {}
    kept |= {name: part.to_json(lambda path: path.name) for name, part in parts.items()}
    files.write_text(work.folder / CONFIG, json.dumps(kept, indent=1) + "\n")


def float_graph(
    work: Work, profile: str = "integer", *, int16: bool = True, latency: LatencyProfile | None = None,
    door: Door | None = None,
) -> Graph:  # fmt: skip
    """The exported graph behind the passes that the profile gets, with its islands marked.

    Args:
        int16: let long softmaxes be int16 (see :func:`qhyvit.lowering.profiles.long_softmaxes`).
        latency: what decides about the islands; None: the default.
        door: tries every pass on its images; None: on random ones.
    """
    from qhyvit.lowering.profiles import long_softmaxes, widened, with_profile
    from qhyvit.passes import prepared
    from qhyvit.tflite.read import read

    graph = prepared(work.load(FLOAT, read), profile, door)
    graph = with_profile(graph, profile, latency)
    return widened(graph, long_softmaxes(graph)) if int16 and profile == "integer" else graph


def latency_of(path: Path | None) -> LatencyProfile:
    """The latency profile of a file, a bench file or a processor's name; None: the package's own.

    Raises:
        InputError: there is none of it.
    """
    from qhyvit.latency.fit import load
    from qhyvit.latency.profile import default_profile

    return default_profile() if path is None else load(path)


@alone
def calibrate(
    work: Work, images: DataConfig, method: MethodConfig, target: TargetConfig = TargetConfig()
) -> None:
    """Stage 2: ``folded.tflite`` (the float graph with its folds), ``plan.json`` and ``plan.npz`` (new constants).

    Beside them ``samples.npz``, some of the images as the model sees them: the report measures on these.

    Raises:
        UsageError: the profile does not have these bits.
    """
    from qhyvit.measure import measure as find_measure

    check_bits(method, target)
    chosen, options = method.parsed
    facts = work.json(FACTS)
    drawn = data.calibration_images(images.images, images.count, method.seed)
    how = data.preprocess_for(images.images, default_preprocess(facts), images.resize_mode)
    hashes, int16 = list(drawn), target.int16 and method.bits == 8
    options = options if int16 else options.without_int16()
    latency = latency_of(target.latency_profile)
    key = {"float": work.hash(FLOAT), "images": hashes, "how": asdict(how), "mode": images.resize_mode, "int16": int16,
           "method": {**method.to_json(), "options": options.to_json()}, "profile": target.profile,
           "latency": latency.digest}  # fmt: skip
    store = Store(work.folder / PIECES)

    def make() -> None:
        import torch

        started = time.monotonic()
        size, paths, measure = facts["input_size"], [*drawn.values()], find_measure(method.measure)
        raw = data.load_pixels(paths, size, how)
        files.write_bytes(work.folder / SAMPLES, files.pack_arrays({"pixels": raw[:: -(-len(raw) // SAMPLE_COUNT)]}))
        store.open(work.digest(key))
        crops = [data.mirrored_crops(paths, size, how, method.seed)] if measure.thorough else []
        seen = normalize(np.concatenate([raw, *crops]), how)
        problem = _problem(work, seen, int16=int16, measure=measure, store=store, seed=method.seed, bits=method.bits,
                           latency=latency, profile=target.profile)  # fmt: skip
        torch.manual_seed(method.seed)
        solution = chosen.search(problem, options)
        plan = QuantPlan(
            solution.tensors, method.name, options.to_json(), method.seed, target.profile,
            model_sha256=work.hash(FLOAT), images_sha256=data.combined_hash(hashes), image_count=len(hashes),
            image_hashes=tuple(hashes), latency=latency.name, measure=method.measure, resize_mode=images.resize_mode,
            **_plan_facts(problem, solution), seconds=round(time.monotonic() - started, 1),
        )  # fmt: skip
        _write_solution(work, solution, plan, latency)

    work.stage("calibrate", key, (FOLDED, CONSTANTS, PLAN, LATENCY), make)
    store.close()  # not before the stage counts as done: a run killed in between would begin from nothing
    _note(work, data=images, method=method, target=target)


def _problem(
    work: Work, images: np.ndarray, *, int16: bool, seed: int, profile: str, latency: LatencyProfile, **settings: Any
) -> Problem:  # fmt: skip
    """The exported graph behind its passes, with the outputs of the exported file on ``images`` [N, H, W, 3]."""
    import torch

    from qhyvit.methods._problem import Problem
    from qhyvit.sim.checked import Door

    pixels, reference = torch.from_numpy(images), torch.from_numpy(float_outputs(work.read(FLOAT), images))
    door = Door(pixels, seed, work.log)
    graph = float_graph(work, profile, int16=int16, latency=latency, door=door)
    return Problem(graph, pixels, reference, door=door, seed=seed, profile=profile, latency=latency,
                   progress=work.progress, log=work.log, **settings)  # fmt: skip


def _write_solution(work: Work, solution: Solution, plan: QuantPlan, latency: LatencyProfile) -> None:
    from qhyvit.tflite.serialize import serialize

    files.write_text(work.folder / LATENCY, latency.to_json())
    files.write_bytes(work.folder / FOLDED, serialize(solution.graph))
    files.write_bytes(work.folder / CONSTANTS, files.pack_arrays(solution.constants))
    files.write_text(work.folder / PLAN, plan.to_json())


def _plan_facts(problem: Problem, solution: Solution) -> dict[str, Any]:
    """Fields of the plan that say what was made of the graph."""
    from qhyvit.methods._bridge_report import bridge_report

    graph = solution.graph
    assert problem.door is not None

    def names(ids: frozenset[int]) -> tuple[str, ...]:
        return tuple(t.name for t in graph.activations() if t.id in ids)

    return {
        "folds": solution.folds, "int16": solution.int16, "refused": tuple(problem.door.refused),
        "bridge": bridge_report(problem.on(graph), solution.tensors),
        "wide": names(graph.widened), "floats": names(graph.islands), "gates": names(graph.gates),
    }  # fmt: skip


def float_outputs(model: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs [N, outputs], float32, of a float file as the interpreter runs it on images [N, H, W, 3]."""
    from qhyvit_device.runner import TfliteFile

    file = TfliteFile(model)
    return np.stack([np.asarray(file.run(x), np.float32).ravel() for x in images])


@dataclass(frozen=True)
class Solved:
    """What calibration left: the float graph with its folds, the same with the constants that ship, the plan."""

    folded: Graph
    shipped: Graph
    plan: QuantPlan


def plan_of(work: Work) -> QuantPlan:
    """The plan alone."""
    return work.load(PLAN, lambda content: QuantPlan.from_json(content.decode()))


def solved(work: Work) -> Solved:
    """Read what calibration wrote."""
    from qhyvit.graph import edit
    from qhyvit.lowering.profiles import ids_of, widened, with_gates, with_islands
    from qhyvit.tflite.read import read

    plan = plan_of(work)
    folded = work.load(FOLDED, read)
    folded = with_islands(folded, plan.profile, ids_of(folded, plan.floats))
    folded = widened(folded, ids_of(folded, plan.wide))
    folded = with_gates(folded, plan.gates)
    constants = work.load(CONSTANTS, lambda content: files.unpack_arrays(content, CONSTANTS))
    return Solved(folded, edit.with_named(folded, constants), plan)


def lowered(work: Work) -> Lowered:
    """The typed graph of what calibration left: what the file holds."""
    from qhyvit.lowering.lower import lower

    found = solved(work)
    return lower(found.shipped, found.plan)


@alone
def convert(work: Work) -> None:
    """Stage 3: ``model.tflite``."""
    key = {name: work.hash(name) for name in (FOLDED, CONSTANTS, PLAN)}

    def make() -> None:
        from qhyvit.tflite.serialize import serialize

        work.progress("convert", 0.0)
        files.write_bytes(work.folder / MODEL, serialize(lowered(work).graph))

    work.stage("convert", key, (MODEL,), make)


def runtimes_here() -> list[str]:
    """Interpreters to verify on: tensorflow's own beside LiteRT's where it is installed."""
    from importlib.util import find_spec

    return ["litert", *(["tensorflow"] if find_spec("tensorflow") else [])]


@alone
def verify(
    work: Work, images: Path, count: int, seed: int, mode: str | None, least: float | None = None
) -> Report | None:
    """Stage 4: ``verify.json``, on images that calibration did not use, where there are enough; None if kept.

    Args:
        least: share of images on which the file has to decide as float does (:mod:`qhyvit.verify.against_float`);
            None: the default.
    """
    from qhyvit.verify.against_float import FloatFile

    facts, plan = work.json(FACTS), plan_of(work)
    drawn = data.verification_images(images, plan.image_hashes, count, seed)
    how = data.preprocess_for(images, default_preprocess(facts, plan.resize_mode), mode)
    hashes = {name: work.hash(name) for name in JUDGED}
    key = {"files": hashes, "images": list(drawn), "how": asdict(how), "least": least}
    outcome: list[Report] = []

    def make() -> None:
        import torch

        from qhyvit.verify.report import verify as check

        work.progress("verify", 0.0)
        found, model = solved(work), work.read(MODEL)
        pixels = data.load_pixels([*drawn.values()], facts["input_size"], how)
        entry = plan.tensors[found.folded.tensors[found.folded.inputs[0]].name]
        codes = [quantize(p, how, entry.scale[0], entry.zero_point[0], "int8")[None] for p in pixels]
        floats = torch.from_numpy(normalize(pixels, how))
        reference = FloatFile(work.read(FLOAT), facts, least)
        outcome.append(
            check(found.folded, plan, lowered(work), model, floats, codes, runtimes_here(), reference=reference)
        )
        verdict = {**outcome[0].to_json(), "files": {**hashes, MODEL: files.sha256(model)}}
        files.write_text(work.folder / VERIFY, json.dumps(verdict, indent=1) + "\n")

    work.stage("verify", key, (VERIFY,), make)
    return next(iter(outcome), None)


@alone
def bundle(work: Work, out: Path, images: Path, labels: Path | None, command: str, *, force: bool) -> None:
    """Stage 5: the folder that ships; see :func:`qhyvit.bundle.check_verdict`."""
    from qhyvit.bundle import check_verdict, created_by, label_names, write_bundle

    facts, verified, model = work.json(FACTS), work.json(VERIFY), work.read(MODEL)
    hashes = {name: files.sha256(model) if name == MODEL else work.hash(name) for name in JUDGED}
    check_verdict(work.folder / VERIFY, verified, hashes)
    plan = plan_of(work)
    created = created_by(command, facts, plan, verified) | {"float_sha256": hashes[FLOAT], "plan_sha256": hashes[PLAN]}
    created["config"] = work.json(CONFIG) if (work.folder / CONFIG).is_file() else {}
    (test_image,) = data.calibration_images(images, 1, plan.seed).values()
    made_with = {**versions(), **facts["versions"], "qhyvit": __version__, "python": platform.python_version()}
    write_bundle(
        out, model, default_preprocess(facts, plan.resize_mode), test_image,
        label_names(labels, facts["classes"]),
        {"model": facts["model"], "profile": plan.profile, "versions": made_with, "created_by": created},
        on_arm64=_on_arm64(work) if plan.profile == "integer" and not plan.int16 else None, force=force,
    )  # fmt: skip


def _on_arm64(work: Work) -> Callable[[np.ndarray], Sequence[int]]:
    """What arm64's kernels make of an image, by the simulation."""

    def codes(pixels: np.ndarray) -> Sequence[int]:
        from qhyvit.ops._spec import Kernel
        from qhyvit.verify.decide import simulated_codes

        typed, how = lowered(work).graph, default_preprocess(work.json(FACTS))
        entry = typed.tensors[typed.inputs[0]].quantization
        assert entry is not None
        given = quantize(pixels, how, entry.scale[0], entry.zero_point, "int8")[None]
        found: list[int] = simulated_codes(typed, [given], Kernel.ARM64)[0].tolist()
        return found

    return codes

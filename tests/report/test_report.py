"""The report against independent computation, and what its page must never hold."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qhyvit import evaluation, stages
from qhyvit.config import DataConfig, MethodConfig
from qhyvit.errors import InputError
from qhyvit.evaluation import predict
from qhyvit.latency import default_profile
from qhyvit.latency.work import TABLE
from qhyvit.methods import method as find_method
from qhyvit.methods.shared.hessian import mean_distance
from qhyvit.methods.shared.problem import Problem, layout_of, outputs_of
from qhyvit.progress import silent
from qhyvit.report import changes, compare, latency
from qhyvit.report import pictures as pictures_of_report
from qhyvit.report.chain import chain
from qhyvit.report.cost import Costs, rounded_tensors
from qhyvit.report.facts import PageFacts
from qhyvit.report.gather import gather
from qhyvit.report.images import Predictions, examine
from qhyvit.report.page import render
from qhyvit.report.request import Request
from qhyvit.sim.replay import Replay
from qhyvit.sim.run import Executor
from qhyvit.sweep.parts import evaluate_in_parts
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.work import FACTS, FLOAT, OUTPUTS, SAMPLES, Work, default_preprocess
from qhyvit_device.runner import Model, TfliteFile

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, small_v1, pictures) -> Path:
    """A min-max build of the small MobileViT, with pictures and labels beside it."""
    place = tmp_path_factory.mktemp("report")
    images = place / "images"
    images.mkdir()
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(images / f"{i}.png")
    for method in ("minmax", "percentile"):
        work = Work(place / f"{method}.work")
        work.folder.mkdir()
        (work.folder / FLOAT).write_bytes(small_v1.tflite)
        (work.folder / FACTS).write_text(json.dumps(small_v1.facts))
        stages.calibrate(work, DataConfig(images, 8, "squash"), MethodConfig(method))
        stages.convert(work)
        stages.verify(work, images, 2, 0, "squash", 0.0)
        names = place / "names.txt"
        names.write_text("\n".join([HOSTILE, *(f"class {i}" for i in range(1, 10))]))
        stages.bundle(work, place / method, images, names, "qhyvit build m --method minmax --out B", force=True)
    return place / "minmax"


@pytest.fixture(scope="module")
def report(bundle) -> PageFacts:
    return gather(Request(bundle))


@pytest.fixture(scope="module")
def samples(bundle) -> torch.Tensor:
    from qhyvit import files
    from qhyvit_device.preprocess import normalize

    work = Work(bundle.with_name("minmax.work"))
    pixels = files.unpack_arrays(work.read(SAMPLES), "samples")["pixels"]
    return torch.from_numpy(normalize(pixels[:8], default_preprocess(work.json(FACTS))))


def test_replay_gives_what_a_whole_run_with_the_change_gives(small_v1, inputs):
    replay, executor = Replay(small_v1.graph, inputs[:2]), Executor(small_v1.graph)
    for tensor in small_v1.graph.activations()[5::60]:
        changed = replay.values[tensor.id] * 1.1

        def hook(t, x, node, name=tensor.name, value=changed):
            return value if t.name == name else x

        expected = executor.rows(inputs[:2], hook)
        torch.testing.assert_close(replay.rows({tensor.id: changed}), expected, rtol=1e-5, atol=1e-5)


def test_sqnr_and_kl_of_a_tensor_are_those_of_a_whole_run(bundle, report, samples):
    found = stages.solved(Work(bundle.with_name("minmax.work")))
    executor = Executor(found.folded)
    for facts in [t for t in report.cost.tensors if t.kind == "activation"][3::50]:
        quant, seen = found.plan.tensors[facts.name], {}

        def hook(t, x, node, name=facts.name, quant=quant, seen=seen):
            if t.name != name:
                return x
            low, high = quant.limits
            codes = np.clip(np.rint(x.double().numpy() / quant.scale[0]) + quant.zero_point[0], low, high)
            y = (codes - quant.zero_point[0]) * quant.scale[0]
            seen["x"], seen["y"] = x.double().numpy(), y
            return torch.from_numpy(y).float()

        with torch.no_grad():
            p = torch.softmax(executor.rows(samples).double(), 1)
            q = torch.softmax(executor.rows(samples, hook).double(), 1)
        kl = float((p * (p.log() - q.log())).sum(1).mean())
        assert facts.kl == pytest.approx(kl, rel=0.02, abs=1e-6)
        noise = ((seen["x"] - seen["y"]) ** 2).sum()
        if noise:
            assert facts.sqnr_db == pytest.approx(10 * np.log10((seen["x"] ** 2).sum() / noise), abs=0.02)
        assert facts.scale == (quant.scale[0], quant.scale[0])
        assert facts.zero_point == quant.zero_point[0]
        assert sum(facts.histogram.counts) == seen["x"].size


def test_everything_up_to_the_last_block_is_everything(report):
    assert report.cost.blocks[-1].kl_up_to == pytest.approx(report.cost.kl, rel=1e-3)
    assert report.cost.kl > 0


def test_every_node_is_in_one_block_and_every_rounded_tensor_once(bundle, small_v1):
    blocks = chain(small_v1.graph)
    assert [b.stop for b in blocks[:-1]] == [b.start for b in blocks[1:]]
    assert (blocks[0].start, blocks[-1].stop) == (0, len(small_v1.graph.nodes))
    assert len({b.label for b in blocks}) == len(blocks)
    found = stages.solved(Work(bundle.with_name("minmax.work")))
    names = [i.tensor.name for i in rounded_tensors(found.folded, found.plan.tensors)]
    assert len(set(names)) == len(names)
    assert set(names) <= set(found.plan.tensors)


def costs_of(found, samples):
    reference = outputs_of(found.folded, samples)
    return Costs(found, samples, reference, task("classify").measure(layout_of(found.folded), reference))


def test_a_measured_change_is_what_the_changed_method_gives(bundle, report, samples):
    """The report tries other ranges on the plan; here the method that chooses them runs from the start."""
    graph = stages.solved(Work(bundle.with_name("minmax.work"))).folded
    problem = Problem(graph, samples)
    solution = find_method("minmax").search(problem, {"observer": "mse"})
    expected = mean_distance(problem, solution.tensors)
    (change,) = [c for c in report.cost.changes if "--method qhyvit" in c.command]
    assert change.kl_after == pytest.approx(expected, rel=0.05)
    assert change.kl_after < report.cost.kl


def test_a_method_is_replaced_in_the_command_not_added(report):
    (change,) = [c for c in report.cost.changes if "--method qhyvit" in c.command]
    assert change.command == "qhyvit build m --method qhyvit --out B --force"


@pytest.mark.parametrize("command", ["qhyvit build 'm", "", "\\", "qhyvit build m --method"])
def test_a_command_that_no_shell_reads_is_no_hindrance(bundle, command):
    plan = stages.plan_of(Work(bundle.with_name("minmax.work")))
    made = changes._Build(plan, command, default_profile()).again("--method", "qhyvit")
    assert made.startswith("qhyvit build ")
    assert made.endswith("--method qhyvit --force")


def test_learning_is_proposed_for_as_long_as_the_method_does_it(bundle, samples):
    found = stages.solved(Work(bundle.with_name("minmax.work")))
    costs, passes = costs_of(found, samples), find_method("qhyvit").defaults["learn"]
    for options, proposed in (({"learn": 0}, True), ({"learn": passes}, False)):
        plan = replace(found.plan, method="qhyvit", options=options)
        made = changes._proposed(changes._Build(plan, "qhyvit build m --out B", default_profile()), costs)
        commands = [c.command for c in made]
        assert commands == ([f"qhyvit build m --out B --set learn={passes} --force"] if proposed else [])


def test_what_the_method_proposes_is_taken_by_its_command(bundle, samples):
    """Options that are off come back with their defaults, written as the command line takes them."""
    found = stages.solved(Work(bundle.with_name("minmax.work")))
    costs, method = costs_of(found, samples), find_method("qhyvit")
    off = {"ridge": 0.0, "rounding": False, "bias": False, "folds": "none", "gone": 1}
    plan = replace(found.plan, method="qhyvit", options=off)
    made = changes._proposed(changes._Build(plan, "qhyvit build m --out B", default_profile()), costs)
    words = [shlex.split(c.command) for c in made]
    given = [dict(w.split("=") for w in line if "=" in w) for line in words]
    assert given == [{"folds": "all"}, {"ridge": "1", "rounding": "true", "bias": "true"}]
    for options in given:
        method.parse(options)
    assert [c.kl_after is not None for c in made] == [False, True]


def test_proposals_count_with_the_times_of_the_board_that_the_build_is_for(bundle, samples):
    found = stages.solved(Work(bundle.with_name("minmax.work")))
    default, costs = default_profile(), costs_of(found, samples)
    slow = {n: replace(k, fixed_us=1e6) if "float32" in n or n == TABLE else k for n, k in default.kernels.items()}
    for profile, proposed in ((default, True), (replace(default, kernels=slow), False)):
        change = changes._cpu_profile(changes._Build(found.plan, "", profile), costs)
        assert (change is not None) == proposed
        if change is not None:
            assert change.command.split()[-2:] == ["--no-integer", "--force"]
    for name in ("tflm", "ethos-u65-256"):  # they compute no float
        assert changes._cpu_profile(changes._Build(replace(found.plan, target=name), "", default), costs) is None


def test_figures_on_the_page_are_those_of_the_json(report):
    page, facts = render(report), json.loads(json.dumps(report.to_json()))
    rows = re.findall(r'data-order="(\d+)".*?data-kl="([^"]+)" data-sqnr="([^"]*)"', page, re.DOTALL)
    assert len(rows) == len(facts["cost"]["tensors"])
    for (_, kl, sqnr), tensor in zip(rows, facts["cost"]["tensors"], strict=True):
        assert float(kl) == tensor["kl"]
        assert (float(sqnr) if sqnr else None) == tensor["sqnr_db"]
        assert str(tensor["scale"][0]) in page


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(bundle, report):
    assert render(gather(Request(bundle))) == render(report)


def test_outputs_are_kept_for_the_next_report_of_the_same_files_and_images(bundle, tmp_path, monkeypatch):
    images = tmp_path / "images"
    shutil.copytree(bundle.with_name("images"), images)
    work = tmp_path / "work"
    shutil.copytree(bundle.with_name("minmax.work"), work)
    ran = []
    real = pictures_of_report.predict

    def counted(*arguments, **settings):
        ran.append(arguments[4])
        return real(*arguments, **settings)

    monkeypatch.setattr(pictures_of_report, "predict", counted)

    def seen():
        request = Request(bundle, images=images, mode="squash", work=work)
        model = Model.load(bundle)
        labelled = pictures_of_report.labelled_pictures(request, images, model)
        return pictures_of_report.examined(request, Work(work), model, None, labelled, [])

    first = seen()
    assert seen() == first
    assert ran == [12]
    (work / OUTPUTS).write_bytes((work / OUTPUTS).read_bytes()[:-20])  # damaged
    assert seen() == first
    assert ran == [12, 12]
    Image.new("RGB", (160, 160), "red").save(images / "0.png")  # another picture of the same name
    assert seen() != first
    assert ran == [12, 12, 12]


def test_outputs_do_not_depend_on_the_number_of_threads(bundle, pictures):
    model, how = Model.load(bundle), Model.load(bundle).manifest.preprocess
    reference = TfliteFile.load(bundle.with_name("minmax.work") / FLOAT)

    def of(threads):
        return predict(model, reference, lambda i: pictures[i], how, len(pictures), silent, threads)

    for one, three in zip(of(1), of(3), strict=True):
        assert np.array_equal(one, three)


def test_nothing_is_fetched_and_names_are_escaped(bundle, report):
    images = bundle.with_name("images")
    with (images / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "class_index"), *((f"{i}.png", i % 10) for i in range(12))])
    examined = gather(Request(bundle, images=images, mode="squash")).examined
    (images / "labels.csv").unlink()
    assert examined.evaluation["images"] == 12
    assert examined.evaluation["alike"]["figures"]["agree"] + examined.differing == 12
    hostile = replace(report.cost.tensors[0], name=HOSTILE, bridge=HOSTILE, block=f'"{HOSTILE}')
    cost = replace(report.cost, tensors=(hostile, *report.cost.tensors[1:]))
    page = render(replace(report, bundle=HOSTILE, cost=cost, examined=examined))
    assert HOSTILE not in page
    assert page.count("<script>") == 1
    assert not re.search(r"(https?:)?//[a-z]|url\(|@import|<link|src=\"(?!data:)", page)
    assert len(page) < 5e6


def test_a_bundle_without_its_work_directory_says_what_is_missing(bundle, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(bundle, alone)
    found = gather(Request(alone))
    assert found.cost is None
    assert any("alone.work is not there" in m.why for m in found.missing)
    page = render(found)
    assert "not measured" in page
    with pytest.raises(InputError, match="--work"):
        gather(Request(alone, work=tmp_path / "nowhere"))


def test_another_builds_work_directory_is_not_believed(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "B")
    shutil.copytree(bundle.with_name("percentile.work"), tmp_path / "B.work")
    assert any("another build" in m.why for m in gather(Request(tmp_path / "B")).missing)


def test_latency_rows_and_a_file_that_is_none(bundle, tmp_path):
    bench = tmp_path / "bench.json"
    row = {"model": "minmax", "inference": {"p50": 3.25, "p95": 4.0}}
    one = {"board": {"board": "Pi 5"}, "settings": {"threads": 1}, "models": [row], "warnings": []}
    for content in (one, {"benches": [one]}, {"pi@b": {"benches": [one]}}):
        bench.write_text(json.dumps(content))
        (found,) = latency.read(bench)
        assert (found.p50_ms, found.threads) == (3.25, 1)
        assert "Pi 5" in found.board
    for bad in ("[1]", "{}x", '{"models": [{}]}', '"text"'):
        bench.write_text(bad)
        with pytest.raises(InputError, match="no bench file"):
            latency.read(bench)


def test_compare_is_symmetrical_and_finds_every_difference(bundle):
    other = bundle.with_name("percentile")
    quiet = lambda what, share: None  # noqa: E731
    there = compare.compare(bundle, other, None, None, None, None, quiet)
    back = compare.compare(other, bundle, None, None, None, None, quiet)
    assert there.sides == back.sides[::-1]
    assert there.only == back.only[::-1]
    mirrored = {d.name: {k: v[::-1] for k, v in d.fields.items()} for d in back.different}
    assert {d.name: d.fields for d in there.different} == mirrored
    a, b = (stages.plan_of(Work(p.with_name(p.name + ".work"))).tensors for p in (bundle, other))
    differ = {n for n in a if (a[n].scale, a[n].zero_point) != (b[n].scale, b[n].zero_point)}
    assert {d.name for d in there.different if {"scale", "zero_point"} & d.fields.keys()} == differ
    assert there.equal + len(there.different) == len(a.keys() & b.keys())
    own = compare.compare(bundle, bundle.with_name("minmax.work"), None, None, None, None, quiet)
    assert own.different == ()
    assert "<script" not in compare.render(there)
    with pytest.raises(InputError, match="no bundle"):
        compare.compare(bundle, bundle.parent, None, None, None, None, quiet)


def test_kl_of_two_files_by_hand():
    """p = (1/4, 3/4), q = (1/2, 1/2): KL = ln(1/2)/4 + 3 ln(3/2)/4; shifting all logits changes nothing."""
    floating, integer = np.log([[0.25, 0.75]]) + 7.0, np.zeros((1, 2))
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    layout = Layout(("output",), ((2,),))
    found = Predictions(task("classify"), layout, "ab", ["x"], None, integer, floating, pixels.__getitem__)
    assert examine(found, "").distance == pytest.approx(np.log(0.5) / 4 + 3 * np.log(1.5) / 4, rel=1e-4)


CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the page is not drawn")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (400, False)])
def test_a_browser_draws_the_page(report, tmp_path, width, dark):
    page, shot = tmp_path / "r.html", tmp_path / "r.png"
    page.write_text(render(report))
    theme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *theme,
         f"--window-size={max(width, 500)},1400", f"--screenshot={shot}", page.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    pixels = np.asarray(Image.open(shot).convert("L"), np.float64)
    corner = pixels[-1, 0]
    assert corner < 64 if dark else corner > 192
    assert pixels.std() > 10  # something is drawn on the ground


def test_all_pictures_that_cannot_be_read_are_named_before_any_runs(bundle, pictures, tmp_path):
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    rows = [f"{i}.png,{i % 10}" for i in range(len(pictures))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class_index", *rows]))
    (tmp_path / "1.png").write_text("no picture")
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    told = []
    asked = (bundle, tmp_path, None, None, None)
    for look in (
        lambda: evaluation.evaluate(*asked, lambda *_: told.append(1), allow=True),
        lambda: evaluate_in_parts(*asked, None, lambda *_: told.append(1), print, allow=True),
        lambda: gather(Request(bundle, images=tmp_path, progress=lambda *_: told.append(1))),
    ):
        with pytest.raises(InputError, match=r"2 of \d+ images cannot be used: .*1\.png: .*; .*3\.png: "):
            look()
    assert not told

"""Work directories: damaged files are one line with the remedy, and stages run again where code or tools changed."""

import json
import shutil
import subprocess
import sys
import threading

import pytest

from qhyvit import stages, work
from qhyvit.config import DataConfig, MethodConfig
from qhyvit.errors import InputError, OutputError
from qhyvit.files import write_text as write
from qhyvit.report.gather import gather
from qhyvit.report.page import render
from qhyvit.report.request import Request
from qhyvit.stages import plan_of, solved
from qhyvit.stages.calibration import PIECES
from qhyvit.work import CONSTANTS, FACTS, FLOAT, FOLDED, MODEL, PLAN, STATE, VERIFY, Work
from qhyvit_device import cli as device
from qhyvit_device import manifest as manifests
from tests._commands import said

WRECKS = [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"passed": 3}', b"NaN"]


@pytest.mark.parametrize("content", WRECKS, ids=lambda c: repr(c[:12]))
@pytest.mark.parametrize("name", [FACTS, VERIFY, PLAN, CONSTANTS])
def test_a_damaged_file_says_which_stage_to_run_again(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    read = {PLAN: plan_of, CONSTANTS: lambda w: w.load(name, lambda c: work.files.unpack_arrays(c, name))}
    with pytest.raises(InputError, match=rf"{name} is damaged \(.*\): run \w+ again with --force") as caught:
        read.get(name, lambda w: w.json(name))(Work(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def facts(**changes):
    how = {"resize": 40, "interpolation": "bicubic", "mean": [0, 0, 0], "std": [1, 1, 1]}
    good = {"model": "m", "classes": 3, "input_shape": [32, 32, 3], "preprocess": how, "weights": "w", "versions": {}}
    return {**good, "task": "classify", "outputs": [{"name": "logits", "shape": [3]}], **changes}


@pytest.mark.parametrize("wrong", [
    {"classes": "3"}, {"classes": None}, {"preprocess": {}}, {"preprocess": {"resize": "big"}},
    {"input_shape": "32"}, {"input_shape": [32, 32]}, {"input_shape": [32, 32, "3"]},
    {"preprocess": {"resize": 40, "interpolation": "none", "mean": [0] * 3, "std": [1] * 3}}, {"versions": []},
    {"float_error": [1, 2, 3]}, {"float_images": "two"}, {"classes": True}, {"task": None}, {"task": "guess"},
    {"task": "segment"}, {"outputs": []}, {"outputs": {"logits": [3]}}, {"outputs": [{"name": "logits"}]},
    {"outputs": [{"name": "logits", "shape": [0]}]}, {"outputs": [{"name": "logits", "shape": ["3"]}]},
    {"outputs": [{"name": 1, "shape": [3]}]}, {"outputs": [{"name": "a", "shape": [3]}, {"name": "b", "shape": [3]}]},
    {"task": "raw", "outputs": []},
])  # fmt: skip
def test_facts_with_wrong_values_are_damaged(tmp_path, wrong):
    (tmp_path / FACTS).write_text(json.dumps(facts()))
    assert Work(tmp_path).json(FACTS)["classes"] == 3
    (tmp_path / FACTS).write_text(json.dumps(facts(**wrong)))
    with pytest.raises(InputError, match="is damaged"):
        Work(tmp_path).json(FACTS)


BESIDE = {"images": 2, "task": "classify", "alike": {"share": 0.5, "text": "1 of 2", "figures": {"agree": 1}}}


@pytest.mark.parametrize("wrong", [
    {"against_float": "a"}, {"against_float": {"images": 1}}, {"against_float": {**BESIDE, "alike": {"share": 0.5}}},
    {"against_float": {**BESIDE, "task": 3}}, {"against_float": {**BESIDE, "images": "2"}},
    {"against_float": {**BESIDE, "alike": {**BESIDE["alike"], "figures": {"agree": "many"}}}},
    {"checks": ["passed"]}, {"checks": [{"name": "n"}]}, {"informs": ["n"]}, {"informs": [{"name": "n"}]},
    {"census": {}}, {"sqnr_db": {"x": None}}, {"sqnr_db": {"x": "high"}},
    {"sqnr_db": []}, {"passed": 1}, {"files": None},
])  # fmt: skip
def test_a_verdict_with_wrong_values_is_damaged(tmp_path, wrong):
    check = {"name": "n", "passed": True, "detail": "d"}
    good = {"passed": True, "checks": [check], "census": {"oldest_runtime": "r"}, "sqnr_db": {"x": 40.5}, "files": {}}
    note = {"name": "n", "detail": "d"}
    for more in ({}, {"against_float": None}, {"against_float": BESIDE}, {"informs": [note]}):
        (tmp_path / VERIFY).write_text(json.dumps({**good, **more}))
        assert Work(tmp_path).json(VERIFY)["passed"]
    (tmp_path / VERIFY).write_text(json.dumps({**good, **wrong}))
    with pytest.raises(InputError, match="is damaged"):
        Work(tmp_path).json(VERIFY)


@pytest.mark.parametrize(("name", "command"), [
    (STATE, ("convert",)), (PLAN, ("convert",)), (FACTS, ("calibrate", "--images")), (PLAN, ("verify", "--images")),
    (FACTS, ("verify", "--images")), (VERIFY, ("bundle", "--out", "o", "--images")), (MODEL, ("inspect",)),
])  # fmt: skip
def test_commands_end_in_one_line(tmp_path, name, command, capsys, pictures, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "i").mkdir()
    Image.fromarray(pictures[0]).save(tmp_path / "i" / "a.png")
    place = tmp_path / "w"
    place.mkdir()
    for other in (FLOAT, "folded.tflite", MODEL, CONSTANTS):
        (place / other).write_bytes(b"x")
    (place / FACTS).write_text(json.dumps(facts()))
    (place / PLAN).write_text(work_plan())
    (place / name).write_bytes(b"{")
    images = ("i",) if command[-1] == "--images" else ()
    where = (place,) if command[0] == "inspect" else ("--work", place)
    code, _, lines = said(capsys, command[0], *where, *command[1:], *images)
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("qhyvit: error: ")
    if name != MODEL:
        assert f"{name} is damaged" in lines[0]
    assert not (tmp_path / "o").exists()


def work_plan():
    from qhyvit.plan import QuantPlan

    return QuantPlan({}, "minmax").to_json()


def test_a_damaged_model_of_a_calibration_is_named(tmp_path):
    (tmp_path / PLAN).write_text(work_plan())
    (tmp_path / "folded.tflite").write_bytes(b"no model at all, and long enough")
    with pytest.raises(InputError, match=r"folded\.tflite is damaged .*run calibrate again"):
        solved(Work(tmp_path))


def test_a_damaged_state_is_no_hindrance_when_forced(tmp_path):
    (tmp_path / STATE).write_text("{")
    ran = []
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        Work(tmp_path).stage("a", {}, (), lambda: ran.append(1))
    assert Work(tmp_path, force=True).stage("a", {}, (), lambda: ran.append(2))
    assert ran == [2]
    assert not Work(tmp_path).stage("a", {}, (), lambda: ran.append(3))


@pytest.mark.parametrize("changed", ["versions", "code"])
def test_a_stage_runs_again_where_code_or_tools_changed(tmp_path, monkeypatch, changed):
    ran = []
    for _ in range(2):
        Work(tmp_path).stage("a", {"x": 1}, (), lambda: ran.append(1))
    assert len(ran) == 1
    new = {"versions": lambda: {**work.versions(), "ai-edge-litert": "9.9"}, "code": lambda: "other"}[changed]
    was = getattr(work, changed)
    monkeypatch.setattr(work, changed, (lambda: {**was(), "ai-edge-litert": "9.9"}) if changed == "versions" else new)
    Work(tmp_path).stage("a", {"x": 1}, (), lambda: ran.append(2))
    assert ran == [1, 2]


def test_the_code_is_every_source_of_both_packages(tmp_path, monkeypatch):
    import qhyvit_device

    host, device = tmp_path / "qhyvit", tmp_path / "qhyvit_device"
    for folder in (host / "deep", device):
        folder.mkdir(parents=True)
        (folder / "a.py").write_text("1")
    (host / "work.py").write_text("")
    (device / "__init__.py").write_text("")
    monkeypatch.setattr(work, "__file__", str(host / "work.py"))
    monkeypatch.setattr(qhyvit_device, "__file__", str(device / "__init__.py"))
    seen = {work.code.__wrapped__()}
    for path in (host / "deep" / "a.py", device / "a.py"):
        path.write_text("2")
        seen.add(work.code.__wrapped__())
    (host / "deep" / "a.py").rename(host / "deep" / "b.py")
    seen.add(work.code.__wrapped__())
    assert len(seen) == 4
    (host / "notes.txt").write_text("x")
    assert work.code.__wrapped__() in seen


def test_what_ran_is_told_by_version():
    found = work.versions()
    assert {"torch", "timm", "litert-torch", "ai-edge-litert", "numpy"} <= set(found)
    assert "none" not in found.values()


@pytest.fixture(scope="module")
def verified(tmp_path_factory, small_v1, pictures):
    """A work directory that is verified, with its images beside it."""
    from PIL import Image

    place = tmp_path_factory.mktemp("verified")
    images = place / "images"
    images.mkdir()
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(images / f"{i}.png")
    made = Work(place / "w")
    made.folder.mkdir()
    (made.folder / FLOAT).write_bytes(small_v1.tflite)
    (made.folder / FACTS).write_text(json.dumps(small_v1.facts))
    stages.calibrate(made, DataConfig(images, 8, "squash"), MethodConfig("percentile"))
    stages.convert(made)
    stages.verify(made, images, 2, 0, "squash", 0.0)
    return place


def bundled(place, folder):
    stages.bundle(Work(folder), place / "out", place / "images", None, "test", force=True)


def test_a_bundle_holds_what_was_verified(verified):
    bundled(verified, verified / "w")
    found = manifests.read_bundle(verified / "out")
    assert found.files["model.tflite"] == (verified / "w" / MODEL).read_bytes()
    assert found.manifest.created_by["plan_sha256"] == Work(verified / "w").hash(PLAN)
    assert found.manifest.created_by["verified"] is True


def test_random_weights_are_said_in_the_log_in_the_bundle_on_the_board_and_in_the_report(verified, tmp_path, capsys):
    shutil.copytree(verified / "w", tmp_path / "w")
    facts = tmp_path / "w" / FACTS
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "weights": "random"}))
    verdict = json.loads((tmp_path / "w" / VERIFY).read_text())
    verdict["files"][FACTS] = Work(tmp_path / "w").hash(FACTS)
    (tmp_path / "w" / VERIFY).write_text(json.dumps(verdict))
    lines = []
    work_folder, images = Work(tmp_path / "w", log=lines.append), verified / "images"
    stages.bundle(work_folder, tmp_path / "out", images, None, "t", force=False)
    bundled(verified, verified / "w")
    assert lines == [f"bundle: {manifests.RANDOM}"]
    assert manifests.read_bundle(tmp_path / "out").manifest.has_random_weights
    assert not manifests.read_bundle(verified / "out").manifest.has_random_weights
    for bundle, expected in ((tmp_path / "out", 1), (verified / "out", 0)):
        assert device.main(["info", str(bundle)]) == 0
        page = render(gather(Request(bundle)))
        assert [capsys.readouterr().out.count("weights are random"), page.count("weights are random")] == [expected] * 2


@pytest.mark.parametrize("name", [FLOAT, "folded.tflite", CONSTANTS, PLAN, MODEL])
def test_what_was_changed_behind_its_verdict_is_not_bundled(verified, tmp_path, name, capsys):
    shutil.copytree(verified / "w", tmp_path / "w")
    content = bytearray((tmp_path / "w" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "w" / name).write_bytes(content)
    images, out = verified / "images", tmp_path / "out"
    code, _, lines = said(capsys, "bundle", "--work", tmp_path / "w", "--images", images, "--out", out)
    assert code == 2
    assert lines == [f"qhyvit: error: {tmp_path / 'w' / VERIFY} is about another {name}: run verify again"]
    assert not out.exists()


def test_a_preprocessing_that_nobody_verified_is_not_bundled(verified, tmp_path, capsys):
    """A second export may leave the float file as it is, and change what its input means."""
    shutil.copytree(verified / "w", tmp_path / "w")
    facts = json.loads((tmp_path / "w" / FACTS).read_text())
    facts["preprocess"]["mean"] = [0.9, 0.9, 0.9]
    (tmp_path / "w" / FACTS).write_text(json.dumps(facts))
    images, out = verified / "images", tmp_path / "out"
    code, _, lines = said(capsys, "bundle", "--work", tmp_path / "w", "--images", images, "--out", out)
    assert code == 2
    assert lines == [f"qhyvit: error: {tmp_path / 'w' / VERIFY} is about another {FACTS}: run verify again"]
    assert not out.exists()


def test_a_later_build_is_not_bundled_with_an_earlier_verdict(verified, tmp_path):
    shutil.copytree(verified / "w", tmp_path / "w")
    later = Work(tmp_path / "w")
    stages.calibrate(later, DataConfig(verified / "images", 8, "squash"), MethodConfig("minmax"))
    stages.convert(later)
    with pytest.raises(InputError, match="run verify again"):
        stages.bundle(later, tmp_path / "out", verified / "images", None, "test", force=False)


@pytest.mark.parametrize("change", [
    lambda verdict: verdict.update(passed=False), lambda verdict: verdict["checks"][0].update(passed=False),
])  # fmt: skip
def test_what_failed_is_not_bundled(verified, tmp_path, change, capsys):
    shutil.copytree(verified / "w", tmp_path / "w")
    verdict = json.loads((tmp_path / "w" / VERIFY).read_text())
    change(verdict)
    (tmp_path / "w" / VERIFY).write_text(json.dumps(verdict))
    images, out = verified / "images", tmp_path / "out"
    code, _, lines = said(capsys, "bundle", "--work", tmp_path / "w", "--images", images, "--out", out)
    assert code == 1
    assert "verification failed" in lines[0]
    assert not out.exists()


def test_two_processes_never_work_in_one_directory(verified, tmp_path, capsys):
    shutil.copytree(verified / "w", tmp_path / "w")
    hold = (
        "import sys; from pathlib import Path; from qhyvit.work import Work\n"
        "with Work(Path(sys.argv[1])).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "w")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        images = ("--images", verified / "images")
        for args in (
            ("convert",), ("calibrate", *images), ("verify", *images), ("bundle", *images, "--out", tmp_path / "out"),
            ("export", "mobilevit_xxs", "--random-weights"),
            ("build", "mobilevit_xxs", "--random-weights", *images, "--out", tmp_path / "out"),
        ):  # fmt: skip
            code, _, lines = said(capsys, *args, "--work", tmp_path / "w")
            assert code == 2
            assert "another process is at work in" in lines[-1], args
        other.kill()
    stages.convert(Work(tmp_path / "w"))  # the system freed the lock of the killed one


def test_threads_of_one_process_exclude_each_other_and_stages_nest(tmp_path):
    place, seen = Work(tmp_path), []

    def other():
        try:
            with Work(tmp_path).lock():
                seen.append("held")
        except OutputError as error:
            seen.append(str(error))

    with place.lock(), place.lock():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    other()
    assert ["at work in" in seen[0], seen[1]] == [True, "held"]


def test_a_calibration_that_is_killed_behind_its_last_piece_searches_nothing_again(verified, tmp_path, monkeypatch):
    class StoppedError(BaseException):
        pass

    def until_the_state(path, text):
        if path.name == STATE:
            raise StoppedError
        write(path, text)

    shutil.copytree(verified / "w", tmp_path / "w")
    args = (Work(tmp_path / "w"), DataConfig(verified / "images", 8, "squash"), MethodConfig("qhyvit", {
        "rounds": 1, "learn": 0, "folds": "none", "ridge": 0.0, "rounding": False, "bias": False}))  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(work.files, "write_text", until_the_state)
        with pytest.raises(StoppedError):
            stages.calibrate(*args)
    said = []
    stages.calibrate(Work(tmp_path / "w", log=said.append), *args[1:])
    assert not any(line.startswith("round") for line in said)
    assert not (tmp_path / "w" / PIECES).exists()


def test_a_float_file_that_was_replaced_behind_the_calibration_is_refused(verified, tmp_path):
    work = Work(tmp_path / "w")
    shutil.copytree(verified / "w", work.folder)
    assert solved(work).plan.model_sha256 == work.hash(FLOAT)
    shutil.copy(work.folder / FOLDED, work.folder / FLOAT)
    with pytest.raises(InputError, match="is not the file that was calibrated: run calibrate again"):
        solved(work)

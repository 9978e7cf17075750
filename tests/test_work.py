"""Work directories: damaged files are one line with the remedy, and stages run again where code or tools changed."""

import json

import pytest

from qhyvit import cli, work
from qhyvit.errors import InputError
from qhyvit.stages import plan_of, solved
from qhyvit.work import CONSTANTS, FACTS, FLOAT, MODEL, PLAN, STATE, VERIFY, Work

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
    good = {"model": "m", "classes": 3, "input_size": 32, "preprocess": how, "weights": "w", "versions": {}}
    return {**good, **changes}


@pytest.mark.parametrize("wrong", [
    {"classes": "3"}, {"classes": None}, {"preprocess": {}}, {"preprocess": {"resize": "big"}}, {"input_size": "32"},
    {"preprocess": {"resize": 40, "interpolation": "none", "mean": [0] * 3, "std": [1] * 3}}, {"versions": []},
])  # fmt: skip
def test_facts_with_wrong_values_are_damaged(tmp_path, wrong):
    (tmp_path / FACTS).write_text(json.dumps(facts()))
    assert Work(tmp_path).json(FACTS)["classes"] == 3
    (tmp_path / FACTS).write_text(json.dumps(facts(**wrong)))
    with pytest.raises(InputError, match="is damaged"):
        Work(tmp_path).json(FACTS)


def said(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in args])
    return ended.value.code, capsys.readouterr().err.splitlines()


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
    code, lines = said(capsys, command[0], *where, *command[1:], *images)
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

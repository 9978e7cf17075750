"""One build's settings: from TOML, from flags, from Python and back, which of them counts, and what is refused."""

import itertools
import json
import re
import string
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qhyvit
from qhyvit import stages
from qhyvit.config import (
    CONFIG,
    BuildConfig,
    DataConfig,
    MethodConfig,
    ModelConfig,
    TargetConfig,
    check_bits,
    keywords,
    sides,
)
from qhyvit.errors import InputError, QhyvitError, UsageError
from qhyvit.methods import all_methods, method
from qhyvit.options import numbers, options_of
from qhyvit.stages.settings import note
from qhyvit.sweep.spec import read_spec
from qhyvit.targets import all_targets
from qhyvit.tasks import all_tasks
from qhyvit.work import Work
from tests._commands import said

LEAST = '[model]\nname = "net.py:make"\n[data]\nimages = "train"\n'
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
PATHS = TEXT.map(Path)


def value_of(option):
    """Any value that an option allows."""
    if option == keywords()["bits"][2]:
        return st.integers(4, 8)
    if option.kind is bool:
        found = st.booleans()
    elif option.read is sides:
        found = st.tuples(st.integers(32, 4096), st.integers(32, 4096))
    elif option.read is not None:
        found = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=16).map(tuple)
    elif option == keywords()["task"][2]:
        found = st.sampled_from(list(all_tasks()))
    elif option == keywords()["target"][2]:
        found = st.sampled_from([*all_targets(), "ethos-u65-512", "/pi.json"])
    elif option.choices:
        found = st.sampled_from([*option.choices, *option.alone])
    elif option.kind is Path:
        found = PATHS
    elif option.kind is int:
        found = st.integers(int(option.low), int(option.high))
    elif option.kind is float:
        found = st.floats(option.low, option.high)
    else:
        found = TEXT
    return st.none() | found if option.optional else found


def values_of(options):
    return st.fixed_dictionaries({}, optional={name: value_of(o) for name, o in options.items()})


def flags():
    """Settings by keyword, with a method's own options, of builds that can be made."""
    # a size goes with bits and a method of its own (tests/test_int4_layers.py)
    plain = {k: o for k, (_, _, o) in keywords().items() if o.kind is not dict and k not in ("method", "size")}
    whole = st.sampled_from(list(all_methods())).flatmap(
        lambda name: st.tuples(values_of(plain), st.just(name), values_of(method(name).options), TEXT, PATHS)
    )
    return whole.map(lambda t: {**t[0], "method": t[1], "options": t[2], "model": t[3], "images": t[4]}).map(
        lambda found: {**found, "bits": 8, "target": "litert"} if found.get("integer") is False else found
    )


@settings(max_examples=150, deadline=None)
@given(flags())
def test_flags_to_toml_and_back_are_the_same_build(tmp_path_factory, written):
    config = BuildConfig.from_cli(written)
    for keyword, (part, name, option) in keywords().items():
        if option.kind is not dict and written.get(keyword) is not None:
            assert getattr(getattr(config, part), name) == written[keyword], keyword
    for name, value in written["options"].items():
        assert config.method.options[name] == value
    path = tmp_path_factory.mktemp("t") / "build.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    again = BuildConfig.from_toml(path)
    assert again.method == config.method
    assert again.to_json(lambda p: str(p.relative_to(path.parent)) if p.is_relative_to(path.parent) else str(p)) == (
        config.to_json(lambda p: str(Path(p)))
    )
    assert BuildConfig.parse(json.loads(json.dumps(config.to_json())), "it") == config


@settings(max_examples=100, deadline=None)
@given(flags(), flags())
def test_a_flag_counts_before_the_file_and_the_file_before_the_default(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("t") / "build.toml"
    path.write_text(BuildConfig.from_cli({**first, "integer": True}).to_toml(), encoding="utf-8")
    file = BuildConfig.from_toml(path)
    found = BuildConfig.from_cli({**second, "integer": True}, path)
    alone = BuildConfig.from_cli({**second, "integer": True})
    for keyword, (part, name, option) in keywords().items():
        if option.kind is dict or keyword in ("integer", "target"):
            continue
        source = file if second.get(keyword) is None else alone
        assert getattr(getattr(found, part), name) == getattr(getattr(source, part), name), keyword
    kept = file.method.options if first["method"] == second["method"] else method(second["method"]).defaults
    assert found.method.options == {**kept, **{k: v for k, v in second["options"].items() if v is not None}}


def test_paths_of_a_file_are_relative_to_it(tmp_path):
    path = tmp_path / "deep" / "build.toml"
    path.parent.mkdir()
    more = '[model]\nname = "../net.py:make"\nweights = "w.pt"\n[data]\nimages = "/train"\n[output]\nout = "o"\n'
    path.write_text(more + '[target]\nname = "pi.json"\n')
    found = BuildConfig.from_toml(path)
    assert found.model.name == f"{path.parent}/../net.py:make"
    assert found.model.weights == path.parent / "w.pt"
    assert (found.data.images, found.output.out) == (Path("/train"), path.parent / "o")
    assert found.target.name == str(path.parent / "pi.json")
    flagged = BuildConfig.from_cli({"weights": "w.pt", "model": "a.py:f"}, path)
    assert (flagged.model.weights, flagged.model.name) == (Path("w.pt"), "a.py:f")


@pytest.mark.parametrize(("text", "words"), [
    ("[model\n", "is no TOML"),
    ("", "needs model"),
    ('model = "mobilevit_xxs"\n', "needs images: on the command line, or as images of [data]"),
    (LEAST + "[methods]\n", "b.toml has no option 'methods'; near: method"),
    (LEAST + "sed = 3\n", "b.toml: data has no option 'sed'"),
    (LEAST + "cuont = 3\n", "b.toml: data has no option 'cuont'; near: count"),
    (LEAST + "[method]\nsed = 3\n", "method has no option 'sed'; near: seed"),
    (LEAST + "[method]\nseed = -1\n", "option seed=-1: must be a whole number from 0 to 4294967295"),
    (LEAST + "[method]\nseed = true\n", "option seed=True"),
    (LEAST + "[method]\nname = 'qhvit'\n", "unknown method 'qhvit'; near: qhyvit"),
    (LEAST + "[method]\noptions = { ronds = 2 }\n", "method qhyvit has no option 'ronds'; near: rounds"),
    (LEAST + "[method]\noptions = { rounds = 0 }\n", "option rounds=0: must be a whole number from 1 to 100"),
    (LEAST + "[method]\noptions = 3\n", "option options=3: must be names with values"),
    (LEAST + "[method]\nbits = 6\n[target]\ninteger = false\n", "--bits 6 needs --integer"),
    (LEAST + "[target]\ninteger = 'maybe'\n", "must be true or false"),
    (LEAST + "[output]\nmin_agreement = 1.5\n", "option min_agreement=1.5: must be a number from 0 to 1"),
    (LEAST + "[output]\nout = 3\n", "option out=3: must be a path"),
    ("model = 3\n", "b.toml: model must be a table, got 3"),
    ("method = [1]\n" + LEAST, "b.toml: method must be a table"),
    ("output = true\n" + LEAST, "b.toml: output must be a table"),
])  # fmt: skip
def test_a_mistake_in_a_file_is_one_line(tmp_path, text, words):
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        BuildConfig.from_toml(tmp_path / "b.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("written", "meant"), [
    (64, (64, 64)), ("64", (64, 64)), ("256x128", (256, 128)), ((64, 32), (64, 32)), ([64, 32], (64, 32)),
    (" 64x 32 ", (64, 32)), ("64x32x3", None), ("64x", None), ("x", None), (31, None), ("31x64", None), (4097, None),
    (64.5, None), ("", None), ([], None), (True, None), ({}, None), ("3e1x64", None), ((64, "a"), None),
])  # fmt: skip
def test_an_input_size_is_one_number_or_height_by_width(written, meant):
    assert sides(written) == meant


@pytest.mark.parametrize(("written", "meant"), [
    (0.5, (0.5,)), ("0.5", (0.5,)), ("0.485, 0.456,0.406", (0.485, 0.456, 0.406)), ([1, 2], (1.0, 2.0)),
    ((0.5,) * 3, (0.5,) * 3), ("a", None), ("0.5,", None), ([], None), (float("nan"), None), ([True], None),
])  # fmt: skip
def test_means_are_numbers_with_commas(written, meant):
    assert numbers(written) == meant


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(keywords())), st.one_of(TEXT, st.integers(), st.floats(), st.booleans(), st.just([])))
def test_any_value_is_taken_in_its_type_or_refused_in_one_line(keyword, value):
    part, name, option = keywords()[keyword]
    found, refused = None, ""
    try:
        found = BuildConfig.from_cli({"model": "m", "images": "i", keyword: value})
    except QhyvitError as error:
        refused = str(error)
    taken = found is not None and isinstance(getattr(getattr(found, part), name), option.kind)
    assert taken or (refused and "\n" not in refused)


@settings(max_examples=100, deadline=None)
@given(st.text(string.ascii_lowercase + "_", min_size=1, max_size=8), st.sampled_from(["", *options_of(BuildConfig)]))
def test_an_unknown_key_is_named(tmp_path_factory, key, part):
    known = options_of(options_of(BuildConfig)[part].kind) if part else options_of(BuildConfig)
    if key in known:
        return
    raw = {"model": {"name": "m"}, "data": {"images": "i"}}
    raw = {**raw, part: {**raw.get(part, {}), key: 1}} if part else {**raw, key: 1}
    with pytest.raises(UsageError, match=f"has no option '{key}'; (near|known): "):
        BuildConfig.parse(raw, "it")


def test_a_setting_is_in_one_part_and_every_field_has_a_flag():
    parts = {part: option.kind for part, option in options_of(BuildConfig).items()}
    assert len(keywords()) == sum(len(options_of(kind)) for kind in parts.values())
    assert set(keywords("model")) == {
        "model", "weights", "pretrained", "random_weights", "classes", "input_size", "mean", "std", "channel_order",
        "task",
    }  # fmt: skip
    for _, _, about in keywords().values():
        assert about.help.endswith(".")
        assert len(about.help) > 10
    for kind in parts.values():
        assert {f.name for f in fields(kind)} - set(options_of(kind)) <= {"module"}


@pytest.mark.parametrize("wrong", [
    {"seed": -1}, {"seed": 2**32}, {"seed": "x"}, {"seed": 1.5}, {"count": 0}, {"count": -3}, {"count": "many"},
    {"bits": 3}, {"bits": 9}, {"bits": True}, {"resize_mode": "fold"}, {"resize_mode": 3}, {"target": "gpu"},
    {"profile": "cpu"},
    {"method": "none"}, {"method": 3}, {"options": {"rounds": "abc"}}, {"options": {"search_images": 0}},
    {"task": 3}, {"bits": 6, "integer": False}, {"sed": 3}, {"images": ""}, {"classes": 0}, {"task": "clasify"},
])  # fmt: skip
@pytest.mark.parametrize("call", [qhyvit.build, qhyvit.calibrate])
def test_a_wrong_setting_is_refused_before_any_work(call, wrong, tmp_path):
    (tmp_path / "images").mkdir()
    settings = {"images": tmp_path / "images", "out": tmp_path / "out", **wrong}
    with pytest.raises(QhyvitError) as caught:
        call(torch.nn.Linear(2, 2), **settings)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["images"]


def test_a_config_has_all_settings_and_none_stand_beside_it(tmp_path):
    config = BuildConfig.from_cli({"model": "net.py:make", "images": tmp_path / "none"})
    with pytest.raises(UsageError, match="seed cannot stand beside it"):
        qhyvit.calibrate(config, seed=3)
    with pytest.raises(UsageError, match="needs out"):
        qhyvit.build(config)
    with pytest.raises(QhyvitError, match="none does not exist"):
        qhyvit.calibrate(config)


def test_a_profile_has_its_bits_however_parts_come_together(tmp_path):
    method_, target, work = MethodConfig(bits=6), TargetConfig(integer=False), Work(tmp_path)
    for make in (lambda: check_bits(method_, target), lambda: stages.calibrate(work, None, method_, target),
                 lambda: BuildConfig(ModelConfig("m"), DataConfig("i"), method_, target)):  # fmt: skip
        with pytest.raises(UsageError, match="--bits 6 needs --integer"):
            make()


def test_the_file_in_the_readme_is_a_build(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)
    (tmp_path / "build.toml").write_text(text)
    found = BuildConfig.from_toml(tmp_path / "build.toml")
    assert (found.model.name, found.data.resize_mode) == ("mobilevitv2_075", "squash")
    assert found.method.options["rounds"] == 3
    assert found.output.out == tmp_path / "v2-int8"


# ---- a sweep is a product of configs


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["mobilevit_xxs", "mobilevitv2_050", "efficientformer_l1"]), min_size=1, unique=True),
    st.lists(st.sampled_from(list(all_methods())), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(4, 8), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
    st.integers(1, 99),
)
def test_a_sweep_is_the_product_of_its_lists(tmp_path_factory, models, methods, bits, seeds, count):
    place = tmp_path_factory.mktemp("s")
    names = ", ".join(f'{{ name = "{m}", random_weights = true }}' for m in models)
    (place / "s.toml").write_text(
        f"models = [{names}]\nmethods = {json.dumps(methods)}\nbits = {bits}\nseeds = {seeds}\n"
        f'[calibration]\nimages = "train"\ncount = {count}\n[evaluation]\nimages = "val"\n'
    )
    spec = read_spec(place / "s.toml")
    found = [config for model in spec.models for _, config in spec.builds(model)]
    common = {"random_weights": True, "images": place / "train", "count": count}
    expected = [
        BuildConfig.from_cli({"model": m, "method": w, "bits": b, "seed": s, **common})
        for m, w, b, s in itertools.product(models, methods, bits, seeds)
    ]
    assert found == expected


# ---- the command line


def test_print_config_is_the_build_that_file_and_flags_describe(tmp_path, capsys):
    path = tmp_path / "build.toml"
    path.write_text(LEAST + "count = 5\n[method]\nseed = 1\noptions = { rounds = 2, learn = 0 }\n")
    wanted = ("--seed", 3, "--set", "rounds=7", "--target", "litert-2.14", "--resize-mode", "squash",
              "--out", tmp_path / "o")  # fmt: skip
    code, out, _ = said(capsys, "build", "--config", path, *wanted, "--print-config")
    assert code == 0
    found = tomllib.loads(out)
    assert found["method"]["seed"] == 3
    assert found["method"]["options"] == {**method("qhyvit").defaults, "rounds": 7, "learn": 0}
    assert found["data"] == {"images": str(tmp_path / "train"), "count": 5, "resize_mode": "squash"}
    assert found["target"] == {"name": "litert-2.14", "integer": True}
    assert found["model"] == {"name": f"{tmp_path}/net.py:make", "random_weights": False, "pretrained": False}
    (tmp_path / "again.toml").write_text(out)
    assert said(capsys, "build", "--config", tmp_path / "again.toml", "--print-config")[1] == out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.toml", "build.toml"]
    code, out, _ = said(capsys, "build", "--config", path, "--method", "minmax", "--print-config")
    assert tomllib.loads(out)["method"]["options"] == method("minmax").defaults


@pytest.mark.parametrize("command", ["build", "calibrate", "export"])
def test_flags_of_a_command_are_the_settings_of_its_parts(command, capsys):
    parts = {"build": (), "calibrate": ("data", "method", "target"), "export": ("model",)}[command]
    _, out, _ = said(capsys, command, "--help")
    for keyword, (_, _, option) in keywords(*parts).items():
        name = (option.flag or keyword).replace("_", "-")
        negated = option.kind is bool and option.default is True
        if keyword != "model":
            assert f"--no-{name} " in out if negated else f"--{name} " in out, keyword


@pytest.mark.parametrize(("args", "words"), [
    (("--config", "none.toml"), "none.toml"),
    (("m", "--print-config"), "needs images"),
    (("m", "--images", "i"), "needs out"),
    (("--images", "i"), "either a model's name or --model-py"),
    (("m", "--model-py", "a.py:f", "--config", "none.toml"), "either a model's name or --model-py"),
])  # fmt: skip
def test_what_is_missing_is_one_line(args, words, capsys):
    code, out, lines = said(capsys, "build", *args)
    assert (code, out, len(lines)) == (2, "", 1)
    assert words in lines[0]


def test_settings_that_are_kept_are_made_anew_where_they_are_damaged(tmp_path):
    data = DataConfig(tmp_path / "train", 3)
    note(Work(tmp_path), data=data)
    note(Work(tmp_path), method=MethodConfig("minmax"))
    file = tmp_path / CONFIG
    assert set(json.loads(file.read_text())) == {"data", "method"}
    file.write_text("{half")
    with pytest.raises(InputError, match=r"config\.json is damaged .* with --force"):
        note(Work(tmp_path), data=data)
    note(Work(tmp_path, force=True), data=data)
    assert json.loads(file.read_text()) == {"data": {"images": "train", "count": 3, "resize_mode": None}}


def test_paths_are_kept_by_their_last_names(tmp_path):
    config = BuildConfig.from_cli({
        "model": str(tmp_path / "net.py:make"), "images": tmp_path / "train", "weights": tmp_path / "w.pt",
        "resize_mode": "squash",
    })  # fmt: skip
    kept = config.to_json(lambda path: path.name)
    assert str(tmp_path) not in json.dumps(kept)
    assert (kept["model"]["name"], kept["model"]["weights"]) == ("net.py:make", "w.pt")
    assert (kept["data"]["images"], kept["data"]["resize_mode"]) == ("train", "squash")
    assert replace(config.model, module=torch.nn.Linear(2, 2)).to_json() == config.model.to_json()

"""Typed options: what is written, what it means, and what is refused, for every option of every method."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit.errors import UsageError
from qhyvit.folds import all_folds
from qhyvit.methods import all_methods, method
from qhyvit.observers import all_observers
from qhyvit.sweep.spec import read_spec
from tests._commands import said

EVERY = [(m, name) for m in all_methods() for name in method(m).options]
SWITCHES, NUMBERS, TEXTS = (
    [(m, name) for m, name in EVERY if isinstance(method(m).defaults[name], kind) and (kind is bool) == (
        isinstance(method(m).defaults[name], bool))] for kind in (bool, int | float, str)
)  # fmt: skip
WRITTEN = {True: ("True", "true", "TRUE", "on", "On", "yes", "1"), False: ("False", "false", "off", "OFF", "no", "0")}


def test_each_option_is_of_one_kind():
    assert sorted(SWITCHES + NUMBERS + TEXTS) == sorted(EVERY)
    assert all((SWITCHES, NUMBERS, TEXTS))


@pytest.mark.parametrize(("name", "option"), SWITCHES)
def test_a_switch_is_what_is_written(name, option):
    found = method(name)
    for value, words in WRITTEN.items():
        for word in (*words, value, int(value)):
            assert found.parse({option: word}).to_json()[option] is value, word
    for wrong in ("maybe", "", "2", 2, -1, 0.0, 1.0, None, [], "None", "tru", b"1"):
        with pytest.raises(UsageError, match="true or false"):
            found.parse({option: wrong})


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_lies_in_its_bounds(name, option):
    found = method(name)
    about, default = found.options[option], found.defaults[option]
    kind = type(default)
    assert about.low is not None
    low = kind(about.low)
    for good in (default, str(default), low, str(low), f" {low} "):
        value = found.parse({option: good}).to_json()[option]
        assert type(value) is kind
        assert value == kind(good)
    wrong = ["abc", "", "nan", "inf", "-inf", "None", None, True, False, [], {}, float("nan"), float("inf"), low - 1,
             str(low - 1), "1e400", "9" * 5000, "\u0663", "1_0", "0x3", 10**400, complex(1, 1)]  # fmt: skip
    wrong += ["2.5", 2.5] if kind is int else []
    wrong += [about.high + 1] if about.high is not None else []
    for value in wrong:
        with pytest.raises(UsageError, match=f"option {option}=.*must be a") as caught:
            found.parse({option: value})
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("name", "option"), TEXTS)
def test_a_text_is_one_of_the_choices(name, option):
    found = method(name)
    about = found.options[option]
    assert found.parse({option: about.default}).to_json()[option] == about.default
    for choice in (*about.choices, *about.alone):
        assert found.parse({option: choice}).to_json()[option] == choice
    for wrong in ("", "nothing", about.choices[0] + ",", f",{about.choices[0]}", 3, None, True, "\n", "a\nb"):
        with pytest.raises(UsageError, match=about.choices[-1]) as caught:
            found.parse({option: wrong})
        assert "\n" not in str(caught.value)


def test_choices_are_what_there_is():
    assert set(method("minmax").options["observer"].choices) == set(all_observers())
    folds = method("qhyvit").options["folds"]
    assert set(folds.choices) == set(all_folds())
    two = list(all_folds())[:2]
    assert folds.parse("folds", f"{two[0]}, {two[1]}") == ",".join(two)
    for wrong in (f"all,{two[0]}", f"{two[0]},{two[0]}", "none,none"):
        with pytest.raises(UsageError):
            folds.parse("folds", wrong)


@pytest.mark.parametrize("name", all_methods())
def test_every_option_says_what_it_does(name):
    for option, about in method(name).options.items():
        assert len(about.help) > 10, option
        assert about.parse(option, about.default) == about.default


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(EVERY), st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.none(), st.booleans()))
def test_whatever_is_written_is_taken_in_its_type_or_refused_in_one_line(which, value):
    name, option = which
    found = method(name)
    taken, refused = None, ""
    try:
        taken = found.parse({option: value}).to_json()[option]
    except UsageError as error:
        refused = str(error)
    assert type(taken) is type(found.defaults[option]) or (refused and "\n" not in refused)


def test_a_wrong_name_and_what_is_no_mapping_are_refused():
    with pytest.raises(UsageError, match="has no option 'ronds'; near: rounds"):
        method("qhyvit").parse({"ronds": 2})
    for wrong in ([("rounds", 2)], "rounds=2", 3):
        with pytest.raises(UsageError, match="names with values"):
            method("qhyvit").parse(wrong)
    with pytest.raises(UsageError, match="has no option '3'"):
        method("minmax").parse({3: 4})


def test_an_option_is_checked_however_it_is_made():
    options = method("qhyvit").parse({"rounds": np.int64(3)})
    assert type(options.rounds) is int
    assert (options.rounds, options.learn) == (3, method("qhyvit").defaults["learn"])
    for make in (lambda: type(options)(rounds="0"), lambda: replace(options, rounds=0)):
        with pytest.raises(UsageError, match="option rounds=0: must be a whole number from 1 to 100"):
            make()


def test_a_unit_stands_behind_its_number():
    assert method("qhyvit").options["int16_ms"].allowed == "a number from 0 to 1000000 milliseconds"


def test_old_runtimes_get_no_int16_and_no_logarithm_whatever_the_method():
    for name in all_methods():
        options = method(name).parse({})
        assert type(options.without_int16()) is type(options.without_log()) is type(options)
    without = method("qhyvit").parse({"int16_ms": 3, "rounds": 2}).without_int16()
    assert (without.int16_ms, without.fast_softmax, without.rounds) == (0.0, True, 2)
    assert not without.without_log().fast_softmax


@pytest.mark.parametrize("wrong", [
    ("--set", "fast_gelu=perhaps"), ("--set", "rounds=abc"), ("--set", "search_images=0"), ("--set", "int16_ms=none"),
    ("--set", "ridge=-1"), ("--set", "ends=both"), ("--set", "folds=all,none"), ("--set", "rounds"), ("--set", "=3"),
    ("--seed", "-1"), ("--seed", str(2**32)), ("--count", "0"), ("--resize-mode", "fold"), ("--bits", "3"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["build", "calibrate"])
def test_the_command_line_refuses_in_one_line(command, wrong, tmp_path, capsys):
    place = ("--out", tmp_path / "o") if command == "build" else ("--work", tmp_path / "w")
    model = ("mobilevit_xxs", "--random-weights") if command == "build" else ()
    (tmp_path / "i").mkdir()
    code, _, lines = said(capsys, command, *model, "--images", tmp_path / "i", *place, *wrong)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("qhyvit: error: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i"]


def test_methods_lists_what_each_option_is(capsys):
    code, out, _ = said(capsys, "methods", "--json")
    assert code == 0
    found = {m["name"]: m["options"] for m in json.loads(out)["methods"]}
    assert found["qhyvit"]["rounds"] == {
        "default": 3, "allowed": method("qhyvit").options["rounds"].allowed,
        "help": method("qhyvit").options["rounds"].help,
    }  # fmt: skip
    code, out, _ = said(capsys, "methods")
    assert all(word in out for word in ("fast_gelu", "search_images", "true or false"))


@pytest.mark.parametrize(("line", "words"), [
    ('methods = [{ name = "qhyvit", options = { fast_gelu = "perhaps" } }]', "true or false"),
    ('methods = [{ name = "qhyvit", options = { rounds = "abc" } }]', "a whole number"),
    ('methods = [{ name = "qhyvit", options = { search_images = 0 } }]', "a whole number"),
    ('methods = [{ name = "qhyvit", options = { ridge = true } }]', "a number"),
    ('methods = ["qhyvit"]\nseeds = [-1]', "seeds"),
    ('methods = ["qhyvit"]\nseeds = [4294967296]', "seeds"),
])  # fmt: skip
def test_a_sweep_is_held_to_the_same(tmp_path, line, words):
    path = tmp_path / "s.toml"
    path.write_text(
        f'models = [{{ name = "mobilevit_xxs", random_weights = true }}]\n{line}\n'
        '[calibration]\nimages = "i"\n[evaluation]\nimages = "v"\n'
    )
    with pytest.raises(UsageError, match=words):
        read_spec(path)

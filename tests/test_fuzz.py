"""The kinds of ``python -m tests.fuzz`` on a few cases each, the cases that were findings once, and the run itself."""

import json
import os
import shutil
import signal
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhyvit.tflite import flatbuffer
from qhyvit.tflite.read import read
from qhyvit.verify.census import census
from qhyvit_device import flat
from qhyvit_device.errors import InputError
from qhyvit_device.preprocess import load_image
from tests.fuzz import corpus, place
from tests.fuzz import run as runs
from tests.fuzz import worker as fuzz_workers
from tests.fuzz.kind import FindingError, Kind, all_kinds, must
from tests.fuzz.place import NET
from tests.fuzz.programs import BUILD, REACHED, host
from tests.fuzz.run import Run, State, shrunk, table, tried
from tests.fuzz.shrink import smaller
from tests.fuzz.worker import case_random, workers

CASES = {"pictures": 300, "manifests": 300, "labels": 300, "bundles": 60, "models": 60}
FEW = 25
KEPT = [pytest.param(name, case, id=path.stem) for path, name, case in corpus.kept()]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    place.make(folder)
    return folder


@pytest.fixture(scope="module")
def inside(originals, tmp_path_factory):
    """The current folder is a copy of the place."""
    folder = tmp_path_factory.mktemp("inside") / "place"
    shutil.copytree(originals, folder)
    with place.stand_ins(folder):
        yield folder


@pytest.fixture(scope="module")
def worker(originals):
    with workers(originals, 1) as (found,):
        yield found


@pytest.mark.parametrize("name", sorted(all_kinds()))
def test_mutated_inputs_are_taken_or_refused(name, worker):
    outcomes = Counter()
    for number in range(CASES.get(name, FEW)):
        result = tried(worker, all_kinds()[name], None, 0, number)
        assert not result.finding, (number, result)
        outcomes[result.outcome] += 1
    assert len(outcomes) > 1, outcomes  # else nothing was tried


@pytest.mark.parametrize("name", sorted(all_kinds()))
def test_a_case_leaves_the_place_as_it_was(name, inside):
    if name == "models":
        pytest.skip("it forks, which a process with threads should not")
    before = {p for p in inside.rglob("*") if "__pycache__" not in p.parts}
    content = {p: p.read_bytes() for p in before if p.is_file()}
    kind = all_kinds()[name]
    for number in range(3):
        kind.run(kind.draw(case_random(1, number)))
    assert {p for p in inside.rglob("*") if "__pycache__" not in p.parts} == before
    assert all(path.read_bytes() == data for path, data in content.items())


@pytest.mark.parametrize(("name", "case"), KEPT)
def test_what_was_found_once_is_mended(name, case, worker):
    result = tried(worker, all_kinds()[name], case)
    assert not result.finding, result
    assert not result.outcome.startswith("SIG"), result  # of the interpreter's process


def test_the_corpus_is_small():
    assert len(KEPT) >= 5
    assert sum(path.stat().st_size for path, _, _ in corpus.kept()) < 300_000


def test_a_case_is_packed_and_unpacked():
    case = (b"a\n", b"\xff\0", b"")
    assert corpus.unpacked(json.loads(json.dumps(corpus.packed("k", "o", case)))) == case


def _sort(case):
    """What each word does."""
    word = case[0].decode(errors="replace")
    if "crash" in word:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in word:
        while True:
            pass
    if "grow" in word:
        bytearray(os.urandom(1) * (80 << 20))
    must("rule" not in word, "it does not hold | here")
    return {}["x"] if "raise" in word else "done"


WORDS = (b"fine", b"crash", b"rule")


def _draw(rng):
    return (rng.choice(WORDS),)


KIND = Kind("sorts", 1, _draw, _sort, seconds=1.0, megabytes=40)


@pytest.fixture
def kinds(monkeypatch):
    """One kind, of which a word says what happens."""
    for module in (runs, fuzz_workers):
        monkeypatch.setattr(module, "all_kinds", lambda: {KIND.name: KIND})


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.parametrize(("word", "starts"), [
    (b"fine", "done"), (b"crash", "crash: the process ended (SIGKILL)"), (b"hang", "hang: "), (b"grow", "memory: "),
    (b"rule", "rule: it does not hold"), (b"raise", "exception: "),
])  # fmt: skip
def test_whatever_a_case_does_the_run_goes_on(word, starts, kinds, empty):
    with workers(empty, 1) as (worker,):
        result = tried(worker, KIND, (word,))
        assert result.outcome.startswith(starts)
        assert result.finding == (word != b"fine")
        assert result.case == (word,)
        assert tried(worker, KIND, (b"fine",)).outcome == "done"


def figures(state):
    return {name: (f.cases, f.findings, f.outcomes) for name, f in state.kinds.items()}


def test_a_stopped_run_goes_on_and_counts_no_case_twice(kinds, empty, tmp_path, monkeypatch):
    told = []
    whole = Run(empty, tmp_path / "a", State(3), None, told.append).cases(24, 2)
    path = tmp_path / "state.json"
    first = Run(empty, tmp_path / "b", State.load(path, 3), path, lambda line: setattr(first, "stopped", True))
    done = first.cases(24, 2).done
    assert 0 < done < 24
    second = Run(empty, tmp_path / "b", State.load(path, 3), path, told.append).cases(24, 2)
    assert second.done == whole.done == 24
    assert figures(second) == figures(whole)
    assert whole.kinds["sorts"].cases == 24
    assert whole.kinds["sorts"].findings == 24 - whole.kinds["sorts"].outcomes["done"]
    crash = "crash: the process ended (SIGKILL)"
    assert set(whole.kinds["sorts"].outcomes) == {"done", crash, "rule: it does not hold"}
    assert len(list((tmp_path / "a").iterdir())) == 2  # the same case is one file
    assert "24 cases in" in table(whole)
    with pytest.raises(ValueError, match="--seed 3"):
        State.load(path, 4)


def test_a_finding_is_made_smaller(kinds, empty):
    case = (b"a crash behind",)
    with workers(empty, 1) as (worker,):
        found = tried(worker, KIND, case)
    assert shrunk(empty, KIND, found) == (b"crash",)
    assert smaller((b"abcdef", b"xyz"), lambda c: b"d" in c[0] and c[1].endswith(b"z")) == (b"d", b"z")


def test_a_rule_that_does_not_hold_says_what():
    must(True, "never")
    with pytest.raises(FindingError, match="why"):
        must([], "why")


@pytest.mark.parametrize("number", range(5))
def test_a_case_is_the_same_for_its_number(number, inside):
    drawn = [kind.draw(rng) for kind, rng in (fuzz_workers.kind_at(7, number) for _ in range(2))]
    assert drawn[0] == drawn[1]


FACTORIES = [
    "return Net()",
    "return None",
    "return 3",
    "return Net",
    "return [Net()]",
    "return 1 / 0",
    "return {}['x']",
    "return undefined",
    "sys.exit(3)",
    "sys.exit('bye')",
    "raise SystemExit",
    "raise RecursionError",
    "raise MemoryError",
    "raise StopIteration",
    "return make_one()",
    "import no_such_module",
    "print('x' * 9); return Net()",
    "return nn.Identity()",
    "return nn.Linear(3, 3)",
    "return Net().head",
    "net = Net(); net.forward = None; return net",
    "net = Net(); net.forward = lambda x: 3; return net",
    "net = Net(); net.forward = lambda x: x; return net",
    "net = Net(); net.forward = lambda x: sys.exit(5); return net",
    "net = Net(); net.forward = lambda: x; return net",
    "import argparse; p = argparse.ArgumentParser(); p.add_argument('x'); p.parse_args(); return Net()",
    "return torch.jit.script(nn.Conv2d(3, 4, 3))",
    "return Net().half()",
    "return Net().double()",
    "return Net().to('meta')",
    "def f(): return f()\n    return f()",
    "sys.stderr.write('noise\\n' * 3); return Net()",
    "sys.argv.clear(); return Net()",
    "sys.stdout.close(); return Net()",
    "return Net(0)",
    "return",
    "exit()",
    "quit(1)",
    "assert False",
    "yield Net()",
]
NUMBERS = count()


@pytest.mark.parametrize("body", FACTORIES)
def test_factories_that_give_odd_things(inside, body):
    path = inside / f"odd{next(NUMBERS)}.py"
    path.write_text(f"{NET}\ndef odd():\n    {body}\n")
    code, said = host(["build", f"{path.name}:odd", *BUILD[2:]])
    path.unlink()
    assert code == 2
    if "exit" in body.lower() or "quit" in body:
        assert path.name in said or "ended the program" in said


def test_the_way_to_the_exporter_is_free(inside):
    code, said = host(BUILD)
    assert code == 2
    assert REACHED in said


def model(change):
    found = flatbuffer.load_model(Path("models", "prelu.tflite").read_bytes())
    change(found.subgraphs[0])
    return flatbuffer.pack(found)


@pytest.mark.parametrize("change", [
    lambda g: setattr(g.tensors[int(g.operators[0].inputs[1])], "shape", [7, 5]),  # not that of its constant
    lambda g: setattr(g.tensors[int(g.operators[0].inputs[1])], "type", 8),  # COMPLEX64
    lambda g: setattr(g.tensors[int(g.operators[0].outputs[0])], "type", 99),
    lambda g: setattr(g.operators[0].builtinOptions, "padding", 77),
], ids=["shape", "complex", "no type", "padding"])  # fmt: skip
def test_whole_tables_that_contradict_each_other_are_one_line(inside, change):
    data = model(change)
    flat.check(data, "m")
    with pytest.raises(InputError, match="is damaged") as caught:
        read(data)
    assert "\n" not in str(caught.value)


def _no_scale(graph):
    graph.tensors[int(graph.operators[0].outputs[0])].quantization = None


def _scale(value):
    return lambda g: setattr(g.tensors[int(g.operators[0].outputs[0])].quantization, "scale", [value])


@pytest.mark.parametrize(("name", "change", "words"), [
    ("prelu", _no_scale, "have no scale"), ("prelu", _scale(0.0), "have no scale"), ("prelu", _scale(-1.0), "no scale"),
    ("prelu", _scale(float("nan")), "have no scale"), ("prelu", _scale(float("inf")), "have no scale"),
    ("every_second", lambda g: setattr(g.operators[1], "inputs", g.operators[1].inputs[:3]), "has 3 inputs"),
    ("softmax_attention", lambda g: [setattr(o, "inputs", o.inputs[:1]) for o in g.operators if len(o.inputs) == 2],
     "has 1 inputs"),
])  # fmt: skip
def test_what_ends_the_interpreter_is_refused_by_the_walk(inside, name, change, words):
    found = flatbuffer.load_model(Path("models", f"{name}.tflite").read_bytes())
    flat.check(flatbuffer.pack(found), "good")
    change(found.subgraphs[0])
    with pytest.raises(InputError, match=words):
        flat.check(flatbuffer.pack(found), "m")


def test_the_census_refuses_what_the_interpreter_refuses(inside):
    data = model(lambda g: setattr(g.tensors[int(g.operators[0].outputs[0])], "type", 3))
    with pytest.raises(InputError, match="is damaged") as caught:
        census(data)
    assert "\n" not in str(caught.value)


def test_names_that_are_no_text_become_escapes(inside):
    data = model(lambda g: setattr(g.tensors[0], "name", b"a\xff"))
    assert any("a\\xff" in name for name in (t.name for t in read(data).tensors.values()))


def test_a_tensor_that_claims_the_memory_of_the_machine_is_refused(inside):
    data = model(lambda g: setattr(g.tensors[0], "shape", [1, 1 << 15, 1 << 15, 3]))
    with pytest.raises(InputError, match="claims more than 256 million elements"):
        flat.check(data, "huge")


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "bomb.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)
    with pytest.raises(InputError, match="too many pixels"):
        load_image(path)

"""Models that mean harm: indices that name no tensor, tables shared without end, and what ends the interpreter."""

import struct

import numpy as np
import pytest

from qhyvit.tflite import flatbuffer
from qhyvit_device import flat, trial
from qhyvit_device.errors import InputError


@pytest.fixture(scope="module")
def network(bundle):
    return (bundle / "model.tflite").read_bytes()


def changed(data, change):
    model = flatbuffer.load_model(data)
    change(model)
    return flatbuffer.pack(model)


def test_the_network_itself_passes_as_do_float_files(network, small):
    flat.check(network, "whole")
    flat.check(small.tflite, "float")


BAD = (-1, -2, 10**6, 2**31 - 1)


def every_index(model):
    """(operator, whether of its inputs, place) of all operands but one bias, which may be left out."""
    graph = model.subgraphs[0]
    for number, operator in enumerate(graph.operators):
        for i in range(len(operator.inputs)):
            yield number, "inputs", i
        for i in range(len(operator.outputs)):
            yield number, "outputs", i


def test_no_op_of_a_network_takes_an_index_that_names_no_tensor(network):
    model = flatbuffer.load_model(network)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    biases = 0
    kinds = {}
    for number, part, i in every_index(model):  # each operand of each kind of op once
        operator = model.subgraphs[0].operators[number]
        kinds.setdefault((codes[operator.opcodeIndex], part, i), operator)
    for (code, part, i), operator in kinds.items():
        places = getattr(operator, part)
        before = places[i]
        for bad in BAD:
            places[i] = bad
            if part == "inputs" and bad == -1 and flat.OPTIONAL.get(code) == i:
                biases += 1
                flat.check(flatbuffer.pack(model), "no bias")
            else:
                with pytest.raises(InputError, match=rf"names tensor {bad}, and has"):
                    flat.check(flatbuffer.pack(model), "bad")
        places[i] = before
    assert biases
    assert len(kinds) > 30


@pytest.mark.parametrize("change", [
    lambda m: m.subgraphs[0].inputs.__setitem__(0, -1), lambda m: m.subgraphs[0].outputs.__setitem__(0, 10**6),
    lambda m: setattr(m.subgraphs[0].operators[3], "outputs", []),
    lambda m: setattr(m.subgraphs[0].operators[3], "inputs", []),
    lambda m: setattr(m.subgraphs[0].operators[3], "opcodeIndex", 999),
    lambda m: setattr(m.subgraphs[0].tensors[3], "type", 5), lambda m: setattr(m.subgraphs[0].tensors[3], "type", 13),
    lambda m: setattr(m.subgraphs[0].tensors[3], "buffer", 10**6),
    lambda m: setattr(m.subgraphs[0].tensors[3], "shape", [1] * 9),
    lambda m: m.subgraphs[0].operators.reverse(), lambda m: m.subgraphs[0].operators.pop(5),
    lambda m: m.subgraphs[0].operators.pop(), lambda m: m.subgraphs[0].operators.insert(1, m.subgraphs[0].operators[0]),
    lambda m: setattr(m.subgraphs[0].operators[3], "outputs", m.subgraphs[0].inputs[:1]),
    lambda m: setattr(m.subgraphs[0].operators[3], "outputs", m.subgraphs[0].operators[0].inputs[1:2]),
])  # fmt: skip
def test_other_harm_is_refused(network, change):
    def make(model):
        for name in ("inputs", "outputs"):
            setattr(model.subgraphs[0], name, list(getattr(model.subgraphs[0], name)))
        change(model)

    with pytest.raises(InputError, match="refused, "):
        flat.check(changed(network, make), "bad")


def test_a_model_without_a_subgraph_is_refused(network):
    with pytest.raises(InputError, match="refused, it has no subgraph"):
        flat.check(changed(network, lambda model: setattr(model, "subgraphs", [])), "bad")


def shared(graphs, tensors):
    """A model of lists that name one subgraph and one tensor again and again."""
    data = bytearray(struct.pack("<I4s", 0, b"TFL3"))

    def put(content):
        at = len(data)
        data.extend(content)
        data.extend(bytes(-len(data) % 4))
        return at

    def table(fields):
        """Fields by number, each the place of an offset that is filled in later."""
        last = max(fields, default=-1)
        slots = [4 + 4 * sorted(fields).index(i) if i in fields else 0 for i in range(last + 1)]
        vtable = put(struct.pack(f"<HH{last + 1}H", 6 + 2 * last, 4 + 4 * len(fields), *slots))
        at = put(struct.pack("<i", 0) + bytes(4 * len(fields)))
        struct.pack_into("<i", data, at, at - vtable)
        return at

    def link(slot, target):
        struct.pack_into("<I", data, slot, target - slot)

    root = table((2,))
    struct.pack_into("<I", data, 0, root)
    upper = put(struct.pack("<I", graphs) + bytes(4 * graphs))
    graph = table((0,))
    lower = put(struct.pack("<I", tensors) + bytes(4 * tensors))
    tensor = table(())
    link(root + 4, upper)
    link(graph + 4, lower)
    for at, count, target in ((upper, graphs, graph), (lower, tensors, tensor)):
        for slot in range(at + 4, at + 4 + 4 * count, 4):
            link(slot, target)
    return bytes(data)


@pytest.mark.parametrize(("graphs", "tensors"), [(3000, 3000), (100_000, 100_000), (3, 100), (1, 600_000)])
def test_a_table_is_visited_once_however_often_it_is_named(graphs, tensors, monkeypatch):
    visits = []
    count = flat._Reader.count
    monkeypatch.setattr(flat._Reader, "count", lambda self, n: (visits.append(n), count(self, n)))
    with pytest.raises(InputError, match="refused"):  # the tensor has no buffer; or there are too many
        flat.check(shared(graphs, tensors), "shared")
    assert len(visits) < 3 * flat.MOST_VISITS
    assert sum(visits[:-1]) <= flat.MOST_VISITS


HARMFUL = """
import numpy as np
from qhyvit_device import interpreter, trial
class Interpreter:
    def __init__(self, model_content, num_threads): pass
    def allocate_tensors(self): {harm}
    def get_input_details(self): return [dict(index=0, shape=np.array([1, 2, 2, 3]), dtype=np.int8)]
    get_output_details = get_input_details
    def set_tensor(self, index, array): pass
    def invoke(self): {later}
    def get_tensor(self, index): return np.zeros((1, 2, 2, 3), np.int8)
interpreter.find_interpreter = lambda: (Interpreter, "stub", "1")
raise SystemExit(trial.child())
"""


@pytest.mark.parametrize(("harm", "later", "words"), [
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "pass", r"ends the interpreter \(SIGSEGV\)"),
    ("pass", "import os; os.abort()", r"ends the interpreter \(SIGABRT\)"),
    ("import os; os._exit(1)", "pass", r"ends the interpreter \(exit code 1\)"),
    ("raise ValueError('no such op')", "pass", "m.tflite: stub refuses the model: no such op"),
    ("pass", "raise RuntimeError('null\\nmore')", "m.tflite: stub refuses the model: null$"),
    ("pass", "import time; time.sleep(60)", "did not run once in 3 s"),
])  # fmt: skip
def test_what_ends_the_interpreter_is_one_line(network, monkeypatch, harm, later, words):
    monkeypatch.setattr(trial, "CHILD", HARMFUL.format(harm=harm, later=later))
    monkeypatch.setattr(trial, "SECONDS", 3 if "sleep" in later else 120)
    with pytest.raises(InputError, match=words) as caught:
        trial.start_in_child(network, "m.tflite")
    assert "\n" not in str(caught.value)


def test_a_good_model_starts_in_a_child(network, monkeypatch):
    codes, run = [], trial.subprocess.run

    def noted(*args, **options):
        codes.append(run(*args, **options))
        return codes[-1]

    monkeypatch.setattr(trial.subprocess, "run", noted)
    trial.start_in_child(network, "m.tflite")
    assert [done.returncode for done in codes] == [0]


@pytest.mark.parametrize("seed", range(16))
def test_whatever_index_a_model_names_it_is_refused_or_runs(seed, network):
    """An index that names another tensor than it should, once its type and shape are looked at."""
    rng = np.random.default_rng(seed)
    model = flatbuffer.load_model(network)
    graph = model.subgraphs[0]
    number, part, i = list(every_index(model))[rng.integers(2000) % 500]
    getattr(graph.operators[number], part)[i] = int(rng.integers(-3, len(graph.tensors) + 2))
    refused = refusal(flatbuffer.pack(model))
    assert refused is None or "ends the interpreter" not in refused


def refusal(data):
    """What is said against a model; None where it runs."""
    try:
        trial.start_in_child(data, "m")
    except InputError as error:
        return str(error)
    return None

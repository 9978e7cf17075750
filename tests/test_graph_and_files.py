"""Reading, writing and running whole small models against the interpreter."""

import numpy as np
import pytest
import torch

from qhyvit.errors import GraphError, InputError
from qhyvit.graph.dump import dump
from qhyvit.sim.run import Executor
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.probe import every_tensor, make_interpreter, run
from qhyvit_device.errors import DeviceError


def test_every_tensor_is_the_interpreters(small, inputs):
    graph = small.graph
    interpreter = make_interpreter(serialize(graph), all_tensors=True)
    ids = [t.id for t in graph.activations()]
    found = Executor(graph).run(inputs[:2], None, ids)
    seen = 0
    for i, values in enumerate(every_tensor(interpreter, [inputs[k : k + 1].numpy() for k in range(2)])):
        for t in ids:
            name = graph.tensors[t].name
            # a mean of values that cancel is as exact as the values are: measure it by them
            producer = graph.producer(t)
            scale_of = [t, *(i for i in producer.inputs if i in found)] if producer and producer.op == "MEAN" else [t]
            largest = max(float(found[i].abs().max()) for i in scale_of)
            assert np.abs(values[name] - found[t][i].numpy()).max() < 1e-4 * largest + 1e-7, name
            seen += 1
    assert seen == 2 * len(ids)


def test_a_batch_is_its_images_one_by_one(small, inputs):
    executor = Executor(small.graph, torch.float64)
    together = executor.rows(inputs[:3])
    alone = torch.cat([executor.rows(x[None]) for x in inputs[:3]])
    assert torch.allclose(together, alone, rtol=1e-9)


def test_gradients_reach_the_input(small, inputs):
    x = inputs[:1].clone().requires_grad_()
    Executor(small.graph).rows(x).square().sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0


def test_written_and_read_again_is_the_same_graph(small, inputs):
    again = read(serialize(small.graph))
    assert dump(again) == dump(small.graph)
    assert torch.equal(Executor(again).rows(inputs[:1]), Executor(small.graph).rows(inputs[:1]))


def test_our_file_computes_what_the_exporters_does(small, inputs):
    theirs, ours = make_interpreter(small.tflite), make_interpreter(serialize(small.graph))
    x = inputs[:1].numpy()
    expected, found = run(theirs, x), run(ours, x)
    # long means are taken in two steps here: float32 sums in another order, so the largest logit is the measure
    assert np.abs(expected - found).max() < 1e-5 * np.abs(expected).max()


def test_names_are_short_unique_and_tell_the_module(small):
    names = [t.name for t in small.graph.tensors.values()]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 80
    named = [n.block for n in small.graph.nodes]
    assert sum(bool(b) for b in named) > 0.98 * len(named)


def test_bytes_that_are_no_model_are_refused(small):
    for bad in (b"", b"hello, this is a text file", small.tflite[:1000]):
        with pytest.raises((InputError, DeviceError), match="model"):
            read(bad)


def test_a_feed_of_another_size_is_refused(small):
    with pytest.raises(GraphError, match="input must be"):
        Executor(small.graph).rows(torch.zeros(1, 32, 32, 3))

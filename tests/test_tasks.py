"""Tasks beside closed forms written with other means, and what becomes of outputs that no task or another one reads."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from scipy.spatial import distance

from qhyvit.errors import InputError, UsageError
from qhyvit.tasks import all_tasks, fitting_task, task
from qhyvit.tasks.shared.correlation import FEW, correlations
from qhyvit.tasks.shared.divergence import kl_of_classes, kl_of_labels
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Alike
from qhyvit_device.tasks import TASKS as READ

LAYOUTS = {
    "classify": Layout(("logits",), ((7,),)),
    "multilabel": Layout(("logits",), ((5,),)),
    "one": Layout(("logit",), ((1,),)),
    "regress": Layout(("values",), ((3,),)),
    "embed": Layout(("vector",), ((6,),)),
    "segment": Layout(("map",), ((2, 3, 4),)),
    "mask": Layout(("map",), ((2, 3, 1),)),
    "raw": Layout(("map", "few", "lone"), ((2, 2, 3), (4,), (1,))),
}
TASKS = {**{name: name for name in LAYOUTS}, "one": "multilabel", "mask": "segment"}
KNOWN = [*LAYOUTS]  # of which this file has a closed form
for added in all_tasks().keys() - TASKS.values():
    LAYOUTS[added] = next(layout for layout in LAYOUTS.values() if not task(added).unfit(layout))
    TASKS[added] = added
OWN = sorted({TASKS[name] for name in KNOWN})


def rows(name, count=9, seed=0):
    """Reference and outputs, [count, N] float64."""
    size, rng = sum(LAYOUTS[name].sizes), np.random.default_rng(seed)
    reference = 3 * rng.standard_normal((count, size)) + rng.standard_normal(size)
    return reference, reference + 0.7 * rng.standard_normal((count, size))


def distance_of(name, reference, outputs, calibration=None):
    whole = torch.from_numpy(reference if calibration is None else calibration)
    measure = task(TASKS[name]).measure(LAYOUTS[name], whole)
    return measure.distance(torch.from_numpy(reference), torch.from_numpy(outputs)).numpy()


def kl_of_yes(a, b):
    p, q = special.expit(a), special.expit(b)
    return special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)


def expected_of(name, a, b):
    """The distance of each image by scipy and loops."""
    if name == "classify":
        return special.rel_entr(special.softmax(a, 1), special.softmax(b, 1)).sum(1)
    if name in ("multilabel", "one"):
        return kl_of_yes(a, b).mean(1)
    if name == "regress":
        return np.array([np.mean([(y[i] - x[i]) ** 2 / np.var(a[:, i]) for i in range(a.shape[1])])
                         for x, y in zip(a, b, strict=True)])  # fmt: skip
    if name == "embed":
        return np.array([distance.cosine(x, y) for x, y in zip(a, b, strict=True)])
    if name == "segment":
        p, q = (special.softmax(x.reshape(len(x), 6, 4), 2) for x in (a, b))
        return special.rel_entr(p, q).sum(2).mean(1)
    if name == "mask":
        return kl_of_yes(a, b).mean(1)
    ends = [(0, 12), (12, 16), (16, 17)]
    return np.mean([((b[:, i:j] - a[:, i:j]) ** 2).mean(1) / a[:, i:j].var() for i, j in ends], axis=0)


@pytest.mark.parametrize("name", KNOWN)
def test_a_distance_is_its_closed_form(name):
    a, b = rows(name)
    assert distance_of(name, a, b) == pytest.approx(expected_of(name, a, b), rel=1e-9)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_distance_is_0_where_outputs_are_equal_and_positive_where_not(name):
    a, b = rows(name, seed=1)
    assert distance_of(name, a, a) == pytest.approx(np.zeros(len(a)), abs=1e-14)
    assert (distance_of(name, a, b) > 0).all()


@pytest.mark.parametrize("name", ["classify", "multilabel"])
def test_a_distance_is_that_of_torchs_distributions(name):
    a, b = map(torch.from_numpy, rows(name, seed=2))
    kind = {"classify": torch.distributions.Categorical, "multilabel": torch.distributions.Bernoulli}[name]
    expected = torch.distributions.kl_divergence(kind(logits=a), kind(logits=b))
    expected = expected if name == "classify" else expected.mean(1)
    assert distance_of(name, a.numpy(), b.numpy()) == pytest.approx(expected.numpy(), rel=1e-9)


def test_one_logit_is_as_far_as_the_two_that_stand_for_it():
    a, b = map(torch.from_numpy, rows("one", 40, 3))
    two = [torch.cat([torch.zeros_like(x), x], 1) for x in (a, b)]
    assert torch.allclose(kl_of_labels(a, b)[:, 0], kl_of_classes(*two), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["regress", "raw"])
def test_a_spread_is_that_of_the_calibration_images_not_of_the_batch(name):
    a, b = rows(name, 12, 4)
    whole = distance_of(name, a, b)
    parts = [distance_of(name, a[i : i + 1], b[i : i + 1], a) for i in range(len(a))]
    assert np.concatenate(parts) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("name", ["regress", "raw"])
def test_units_of_a_value_do_not_count(name):
    """An output in millimetres is as far as the same in metres."""
    a, b = rows(name, seed=5)
    units = np.concatenate([np.full(n, 10.0 ** (3 * i - 3)) for i, n in enumerate(LAYOUTS[name].sizes)])
    units = units if name == "raw" else 10.0 ** np.arange(-1, 2)
    assert distance_of(name, a * units, b * units) == pytest.approx(distance_of(name, a, b), rel=1e-9)


def test_the_length_of_an_embedding_does_not_count():
    a, b = rows("embed", seed=6)
    expected = distance_of("embed", a, b)
    assert distance_of("embed", 1e-4 * a, 1e3 * b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LAYOUTS)
def test_gradients_are_those_of_finite_differences(name):
    a, b = (torch.from_numpy(x) for x in rows(name, 3, 7))
    measure = task(TASKS[name]).measure(LAYOUTS[name], a)
    assert torch.autograd.gradcheck(lambda y: measure.distance(a, y), b.clone().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e-30, -90.0, 200.0, 1e4])
@pytest.mark.parametrize("name", LAYOUTS)
def test_distances_and_gradients_are_finite_for_any_outputs(name, value, dtype):
    a = torch.from_numpy(rows(name, 3, 8)[0]).to(dtype)
    a[0] = 300 * a[0].sign()  # of which a network is very sure
    b = torch.full_like(a, value).requires_grad_()
    found = task(TASKS[name]).measure(LAYOUTS[name], a).distance(a, b)
    found.sum().backward()
    assert bool(found.isfinite().all())
    assert bool(b.grad.isfinite().all())


# what the integer file keeps


def r_squared(reference, outputs):
    """1 less the sum of squares that is left over the one that was there."""
    left = sum((x - y) ** 2 for x, y in zip(reference, outputs, strict=True))
    mean = sum(reference) / len(reference)
    return 1 - left / sum((x - mean) ** 2 for x in reference)


def alike_of(name, a, b):
    return task(TASKS[name]).alike(a, b, LAYOUTS[name])


def test_classes_alike_are_counted_among_those_that_float_is_sure_of():
    a, b = rows("classify", 200, 9)
    found = alike_of("classify", a, b)
    best = [(int(np.argmax(x)), int(np.argmax(y)), float(special.softmax(x).max())) for x, y in zip(a, b, strict=True)]
    sure = [(x, y) for x, y, share in best if share >= 0.5]
    assert found.figures == {
        "agree": sum(x == y for x, y, _ in best), "sure": len(sure), "sure_agree": sum(x == y for x, y in sure),
    }  # fmt: skip
    assert 0 < found.figures["sure_agree"] < len(sure) < 200
    assert found.share == found.figures["sure_agree"] / len(sure)
    assert (found.decisions, found.doubt) == (len(sure), "")
    unsure = alike_of("classify", a / 100, b / 100)
    assert "float is sure of 0% of the images only" in unsure.doubt


@pytest.mark.parametrize("name", ["multilabel", "one"])
def test_labels_alike_are_those_on_the_same_side_of_one_half(name):
    a, b = rows(name, 100, 10)
    found, flips, whole = alike_of(name, a, b), 0, 0
    for x, y in zip(a, b, strict=True):
        differ = sum((special.expit(p) > 0.5) != (special.expit(q) > 0.5) for p, q in zip(x, y, strict=True))
        flips, whole = flips + differ, whole + (differ == 0)
    assert found.figures == {"labels": a.size, "flips": flips, "images_alike": whole}
    assert 0 < flips < a.size
    assert (found.share, found.decisions) == ((a.size - flips) / a.size, a.size)


def test_a_value_is_alike_by_its_r_squared_and_the_lowest_counts():
    a, b = rows("regress", 60, 11)
    b[:, 1] = a[:, 1] + 2 * (b[:, 1] - a[:, 1])
    found = alike_of("regress", a, b)
    each = [r_squared(a[:, i], b[:, i]) for i in range(3)]
    assert np.argmin(each) == 1
    assert found.share == pytest.approx(each[1])
    error = math.sqrt(sum((x - y) ** 2 for x, y in zip(a[:, 1], b[:, 1], strict=True)) / 60)
    assert found.figures == pytest.approx({"rms_error": error, "spread": a[:, 1].std(), "r_squared": each[1]})
    assert found.doubt == ""
    a[:, 2] = 5
    assert alike_of("regress", a, b).doubt == "float gives nearly the same value for every image"


def test_embeddings_are_alike_by_their_cosines():
    a, b = rows("embed", 150, 12)
    each = sorted(1 - distance.cosine(x, y) for x, y in zip(a, b, strict=True))
    found = alike_of("embed", a, b)
    assert found.share == pytest.approx(np.mean(each))
    assert found.figures["cosine_lowest"] == pytest.approx(each[0])
    assert each[1] <= found.figures["cosine_percentile_1"] <= each[2]  # of 150: between the second and the third


@pytest.mark.parametrize("name", ["segment", "mask"])
def test_pixels_alike_are_those_of_one_class(name):
    a, b = rows(name, 50, 13)
    classes = LAYOUTS[name].shapes[0][2]
    each = []
    for x, y in zip(a, b, strict=True):
        pixels = zip(x.reshape(-1, classes), y.reshape(-1, classes), strict=True)
        each.append(np.mean([(p[0] > 0) == (q[0] > 0) if name == "mask" else p.argmax() == q.argmax()
                             for p, q in pixels]))  # fmt: skip
    found = alike_of(name, a, b)
    assert found.share == pytest.approx(np.mean(each))
    assert found.figures == pytest.approx({"pixels_alike": np.mean(each), "lowest_image": min(each)})
    assert min(each) < found.share < 1


def test_of_several_outputs_the_one_that_keeps_least_counts():
    a, b = rows("raw", 80, 14)
    b[:, :12] = a[:, :12] + 2 * (b[:, :12] - a[:, :12])
    found = alike_of("raw", a, b)
    ends = {"map": (0, 12), "few": (12, 16), "lone": (16, 17)}
    each = {n: r_squared(a[:, i:j].ravel(), b[:, i:j].ravel()) for n, (i, j) in ends.items()}
    assert found.figures == pytest.approx(each)
    assert found.share == found.figures["map"] == min(found.figures.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_is_alike_where_outputs_are_equal(name):
    a, _ = rows(name, 20, 15)
    assert alike_of(name, a, a.copy()).share == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 40, 100, 1000])
@pytest.mark.parametrize("limit", [0.9, 0.95, 0.98])
def test_few_decisions_may_lie_below_the_limit_as_chance_has_it(count, limit):
    """Two deviations of the binomial distribution: a file that is just good enough seldom lies below."""
    chance = stats.binom(count, limit)
    least = Alike(1.0, "", {}, count).least(limit)
    enough = [k for k in range(count + 1) if k >= chance.mean() - 2 * chance.std()]
    assert least == enough[0] / count
    assert chance.cdf(enough[0] - 1) <= (0.06 if count >= 40 else 0.1001)
    assert Alike(1.0, "").least(limit) == limit


@pytest.mark.parametrize("size", [1, FEW - 1, FEW, 50])
def test_correlations_are_pearsons(size):
    rng = np.random.default_rng(16)
    a = rng.standard_normal((11, size))
    b = a + rng.standard_normal((11, size))
    pairs = zip(a.T, b.T, strict=True) if size < FEW else zip(a, b, strict=True)
    assert correlations(a, b) == pytest.approx([stats.pearsonr(x, y).statistic for x, y in pairs])


# outputs


def test_parts_are_the_outputs_as_they_lie():
    layout = LAYOUTS["raw"]
    values = [np.random.default_rng(i).random((3, *shape)) for i, shape in enumerate(layout.shapes)]
    whole = np.concatenate([v.reshape(3, -1) for v in values], 1)
    assert all(np.array_equal(a, b) for a, b in zip(layout.parts(whole), values, strict=True))
    assert all(torch.equal(a, torch.from_numpy(b))
               for a, b in zip(layout.parts(torch.from_numpy(whole)), values, strict=True))  # fmt: skip
    assert Layout.of_facts(layout.to_facts()) == layout
    assert layout.described() == "3 outputs, [1, 2, 2, 3], [1, 4], [1, 1]"
    assert LAYOUTS["one"].described() == "[1, 1]"


@pytest.mark.parametrize("shape", [[2, 0], ["2"], [2.0], [-1], [None]])
def test_shapes_that_are_none_are_refused(shape):
    with pytest.raises(InputError, match="output 'x' has the shape"):
        Layout.of_facts([{"name": "x", "shape": shape}])


@pytest.mark.parametrize(("shapes", "name"), [
    (((1000,),), "classify"), (((2,),), "classify"), (((1,),), "multilabel"), (((4, 4, 3),), "segment"),
    (((4, 4, 1),), "segment"), (((1, 1, 6),), "segment"), (((4, 6),), "raw"), (((6,), (6,)), "raw"),
    (((4, 4, 3), (3,)), "raw"),
])  # fmt: skip
def test_without_a_task_the_shapes_of_the_outputs_say_it(shapes, name):
    layout = Layout(tuple(f"o{i}" for i in range(len(shapes))), shapes)
    found = fitting_task(None, layout)
    assert found.name == name
    assert found.unfit(layout) == ""


FITS = {
    "classify": {"classify", "multilabel", "regress", "embed", "raw"}, "one": {"multilabel", "regress", "raw"},
    "segment": {"segment", "raw"}, "mask": {"segment", "raw"}, "raw": {"raw"},
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("outputs", sorted(FITS))
def test_a_task_takes_its_outputs_and_refuses_others_in_a_line(outputs, name):
    if name in FITS[outputs]:
        assert fitting_task(name, LAYOUTS[outputs]) is task(name)
        return
    with pytest.raises(UsageError) as caught:
        fitting_task(name, LAYOUTS[outputs])
    said = str(caught.value)
    assert said.startswith(f"--task {name} needs one output [1, ")
    assert f"the model gives {LAYOUTS[outputs].described()}: it may be " in said
    assert {*said.partition("it may be ")[2].split(", ")} & {*OWN} == FITS[outputs]
    assert "\n" not in said


def test_a_task_that_there_is_not_is_named_with_what_is_near():
    with pytest.raises(UsageError, match=r"unknown task 'clasify'.*classify"):
        fitting_task("clasify", LAYOUTS["classify"])


def test_the_device_reads_every_task_of_ours():
    assert sorted(READ) == OWN


def test_every_task_says_what_people_need_to_choose():
    for found in all_tasks().values():
        assert found.summary
        assert found.kept
        assert 0.5 < found.limit < 1
        assert found.far > 0


def test_weights_of_outputs_are_their_shares_of_a_raw_distance():
    layout = LAYOUTS["raw"]
    a, b = (torch.from_numpy(x) for x in rows("raw", seed=11))
    each = [
        task("raw").measure(layout.weighted({n: float(n == name) for n in layout.names}), a).distance(a, b)
        for name in layout.names
    ]
    found = task("raw").measure(layout.weighted({"few": 3.0, "map": 0.5}), a).distance(a, b)
    assert torch.allclose(found, (0.5 * each[0] + 3 * each[1] + each[2]) / 4.5)
    assert layout.weighted({}) == layout


@pytest.mark.parametrize(("name", "weights"), [("raw", {"fewer": 1.0}), ("classify", {"logits": 2.0})])
def test_weights_of_outputs_that_cannot_be_are_refused(name, weights):
    with pytest.raises(UsageError, match="--output-weight"):
        LAYOUTS[name].weighted(weights)

"""Work that threads share out: order, tools, failures."""

import threading

import pytest
import torch

from qhyvit.methods.shared.problem import all_done, at_once
from qhyvit.threads import in_order, shared_out


def test_results_are_in_order_and_no_two_threads_have_one_tool():
    locks, both = [threading.Lock(), threading.Lock()], threading.Barrier(2)

    def do(tool, i):
        assert tool.acquire(blocking=False)
        if i < 2:
            both.wait(10)  # two are at work at once
        tool.release()
        return i * i

    told = []
    assert shared_out(do, 20, locks, "squares", lambda what, share: told.append((what, share))) == [
        i * i for i in range(20)
    ]
    assert told == [("squares", i / 20) for i in range(20)]


def test_a_failure_ends_the_work():
    done = []

    def do(_, i):
        if i == 3:
            raise ValueError("image 3")
        done.append(i)

    with pytest.raises(ValueError, match="image 3"):
        shared_out(do, 100_000, [None], "images", lambda what, share: None)
    assert len(done) < 100_000


def test_every_thread_is_started_once_before_its_work():
    started, worked = [], []
    shared_out(lambda _, i: worked.append(threading.get_ident()), 50, [None] * 3, "numbers",
               lambda what, share: None, lambda: started.append(threading.get_ident()))  # fmt: skip
    assert len(set(started)) == len(started) <= 3
    assert set(worked) <= set(started)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_items_and_few_are_begun_ahead(workers):
    begun = []

    def do(i):
        begun.append(i)
        return i * i

    for i, found in enumerate(in_order(do, range(30), workers)):
        assert found == i * i
        assert len(begun) <= i + workers + 1
    assert sorted(begun) == list(range(30))


def test_two_items_are_worked_on_at_once():
    both = threading.Barrier(2)
    assert [*in_order(lambda i: both.wait(10) >= 0, range(4), 2)] == [True] * 4


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_item_raises_comes_where_its_result_would(workers):
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(1 // (3 - i) for i in in_order(lambda i: i if i < 3 else 1 // 0, range(9), workers))
    assert found == [0, 0, 1]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_whoever_takes_results_has_one_thread_meanwhile_and_all_of_them_behind(two_threads):
    """Else a second thread of it spins on a core that a batch needs."""
    found = at_once(lambda i: (i, torch.get_num_threads()), range(5))
    for i, (number, own) in enumerate(found):
        assert (number, own) == (i, 1)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_threads_are_all_there_again_behind_a_failure(two_threads):
    def do(i):
        raise ValueError(i)

    with pytest.raises(ValueError, match="0"):
        next(at_once(do, range(5)))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("count", [0, 1, 5])
def test_small_items_are_done_once_each(count):
    done = []
    all_done(done.append, range(count))
    assert sorted(done) == [*range(count)]


def test_a_failure_among_small_items_is_told():
    with pytest.raises(ZeroDivisionError):
        all_done(lambda i: 1 // (3 - i), range(5))

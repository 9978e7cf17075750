"""Work on many items by several threads of this process, for calls that leave Python's lock: interpreters, torch."""

from __future__ import annotations

import os
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from qhyvit.progress import Progress

Tool = TypeVar("Tool")
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def shared_out(
    do: Callable[[Tool, int], Result], count: int, tools: Sequence[Tool], label: str, progress: Progress,
    start: Callable[[], None] | None = None,
) -> list[Result]:  # fmt: skip
    """``do(tool, i)`` for every i below ``count``, in their order.

    Args:
        tools: one for each thread; no two threads have the same one at once.
        label: what ``progress`` is told, from this thread.
        start: called once in each thread.

    Raises:
        Exception: what ``do`` raised first; items that were not begun are left.
    """
    free: queue.SimpleQueue[Tool] = queue.SimpleQueue()
    for tool in tools:
        free.put(tool)

    def one(i: int) -> Result:
        tool = free.get()
        try:
            return do(tool, i)
        finally:
            free.put(tool)

    found: list[Result] = []
    with ThreadPoolExecutor(len(tools), initializer=start) as pool:
        futures = [pool.submit(one, i) for i in range(count)]
        try:
            for i, future in enumerate(futures):
                progress(label, i / count)
                found.append(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def in_order(
    do: Callable[[Item], Result], items: Iterable[Item], workers: int, start: Callable[[], None] | None = None
) -> Iterator[Result]:
    """``do(item)`` of each item, in their order, by ``workers`` threads that are at most as many results ahead.

    Args:
        start: called once in each thread; with one worker there is none, and everything happens in the caller's.
    """
    if workers == 1:
        yield from map(do, items)
        return
    pool, begun = ThreadPoolExecutor(workers, initializer=start), deque[Future[Result]]()
    try:
        for item in items:
            if len(begun) == workers:
                yield begun.popleft().result()
            begun.append(pool.submit(do, item))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

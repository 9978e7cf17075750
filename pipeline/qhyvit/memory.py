"""What the C library does with freed memory, where it is glibc; elsewhere these do nothing.

glibc gives each thread a heap of its own, and what one thread frees stays with it: of activations, gigabytes.
"""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8  # glibc's malloc.h


def share_one_heap() -> None:
    """Have all threads take memory from one heap; of use only before the first thread is started."""
    _call("mallopt", M_ARENA_MAX, 1)


def give_back() -> None:
    """Give the system the memory that is free in all heaps."""
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        getattr(ctypes.CDLL(None), function)(*arguments)

"""One heap for all threads, where the C library is glibc."""

import ctypes
import platform
import subprocess
import sys

import pytest

from qhyvit import memory

# threads that hold memory at the same time; glibc then says how many heaps there are
HEAPS = """
import ctypes, sys, threading
from qhyvit import memory
if sys.argv[1] == "shared":
    memory.share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(4)
def hold():
    libc.malloc(ctypes.c_size_t(1000))
    together.wait(10)
threads = [threading.Thread(target=hold) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
memory.give_back()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_share_a_heap_only_where_that_is_asked_for(tmp_path):
    count = {}
    for way in ("shared", "own"):
        subprocess.run([sys.executable, "-c", HEAPS, way, str(tmp_path / way)], check=True)
        count[way] = (tmp_path / way).read_text().count("<heap nr=")
    assert count["shared"] == 1
    assert count["own"] > 1


@pytest.mark.parametrize("function", [memory.share_one_heap, memory.give_back])
def test_another_c_library_is_left_alone(function, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert function() is None

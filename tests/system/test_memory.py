"""Memory is measured in bytes, and malloc's arenas are limited in the process that asks for it."""

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from system.memory import (
    available_memory_bytes,
    peak_memory_bytes,
    resident_memory_bytes,
    resting_collector,
)

ROOT = Path(__file__).parents[2]

# Threads that allocate at the same time make an arena each, if they may. malloc_info tells how many.
PROGRAM = """
import ctypes, threading
from system.memory import limit_malloc_arenas
print(limit_malloc_arenas())
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(16)
def allocate():
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fdopen.restype = libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize(("environment", "acts"), [({}, True), ({"MALLOC_ARENA_MAX": "16"}, False)])
def test_threads_share_arenas_unless_the_user_has_decided(
    environment: dict[str, str], acts: bool
) -> None:
    mine = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=mine | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{acts}\n")
    most = max(2, (os.cpu_count() or 1) // 8)
    assert (done.stdout.count("<heap nr=") <= most) == acts


def test_available_memory_is_more_than_nothing_and_less_than_the_machines() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory_bytes() <= total


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_peak_stays_when_memory_is_released() -> None:
    before = resident_memory_bytes()
    block = np.ones(2**26, np.uint8)  # every page is touched
    held = resident_memory_bytes()
    assert held > before + 2**25
    del block
    assert resident_memory_bytes() < held
    assert peak_memory_bytes() > before + 2**25  # to a few pages: the kernel counts in batches


def test_the_collector_rests_and_runs_again_after_an_error() -> None:
    with contextlib.suppress(ValueError), resting_collector():
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with resting_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

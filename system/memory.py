"""Memory: available, resident and peak bytes, malloc's arenas, and Python's garbage collector."""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

M_ARENA_MAX = -8  # malloc.h


def available_memory_bytes() -> int:
    """Return the bytes that this process may still use, within its container's limit."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        free = min(free, int(limit[0]) - int(used[0]))
    return free


def resident_memory_bytes() -> int:
    """Return the bytes of physical memory that this process uses now (Linux)."""
    return int(_lines("/proc/self/statm")[0].split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory_bytes() -> int:
    """Return the most bytes of physical memory that this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def limit_malloc_arenas() -> bool:
    """Limit malloc to one arena for every eight cores, at least two, instead of eight for each core.

    Encoded images are allocated by one thread and freed by another. Every arena keeps freed memory
    for its own threads, which looks like a slow leak: docs/data.md has the measurements. Call it
    before TensorFlow starts its threads: existing arenas are not merged.

    Returns:
      Whether the limit was set: not where MALLOC_ARENA_MAX is set, nor without glibc.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    arenas = max(2, (os.cpu_count() or 1) // 8)
    return bool(mallopt(M_ARENA_MAX, arenas))


@contextlib.contextmanager
def resting_collector() -> Iterator[None]:
    """Keep the garbage collector from running: for work that makes many objects, all of which stay."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

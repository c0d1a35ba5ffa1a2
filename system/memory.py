"""Memory: what is available, what was used, and how much malloc keeps of what is freed."""

import ctypes
import os
import resource
import sys
from pathlib import Path

M_ARENA_MAX = -8  # malloc.h


def available_memory_bytes() -> int:
    """Return what this process may still use: free memory, within its container's limit."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        free = min(free, int(limit[0]) - int(used[0]))
    return free


def resident_memory_bytes() -> int:
    """Return the physical memory that this process has now (Linux)."""
    return int(_lines("/proc/self/statm")[0].split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory_bytes() -> int:
    """Return the most physical memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def limit_malloc_arenas() -> bool:
    """Let threads share a few of malloc's arenas instead of up to eight for each core.

    Encoded images are allocated by one thread and freed by another. Every arena keeps what was freed
    in it for its own threads, which looks like a slow leak: docs/data.md has the figures. Commands
    call it before TensorFlow starts its threads: arenas that threads already have stay.

    Returns:
      Whether it did anything: not where MALLOC_ARENA_MAX is set, nor without glibc.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    arenas = max(2, (os.cpu_count() or 1) // 8)
    return bool(mallopt(M_ARENA_MAX, arenas))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

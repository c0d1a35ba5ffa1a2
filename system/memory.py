"""Keeps glibc from hoarding what the input pipeline frees."""

import ctypes
import os

M_ARENA_MAX = -8  # malloc.h


def limit_malloc_arenas() -> bool:
    """Let threads share a few of malloc's arenas instead of up to eight for each core.

    Encoded images are allocated by one thread and freed by another. Every arena keeps what was freed
    in it for its own threads, which looks like a slow leak: docs/data.md has the figures. Call it before
    TensorFlow is put to work: arenas that threads already have stay.

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

"""Simulate a full disk for this process alone, without root."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """Make writes beyond this size of a file, in bytes, fail within the block as on a full disk.

    Python ignores SIGXFSZ, so the system call only returns an error.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

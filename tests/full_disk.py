"""A disk that is full from one moment on, for this process alone, without a root's rights."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """Within the block no file gets larger than so many bytes: writes beyond it fail as on a full disk.

    Python ignores the signal that comes with it, so that the system call fails with an error alone.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

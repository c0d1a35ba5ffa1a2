"""Errors that the user can fix: a message of one line and an exit status."""

import errno
import os

# How TensorFlow says that the disk or the table of open files is full, not the memory.
_NOT_MEMORY = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)))


class UserError(Exception):
    """A failure that the user can fix: the message is one line that names the fault and the fix.

    Attributes:
      status: exit status of the command.
    """

    status = 1


class UsageError(UserError):
    """A mistake in the command line or in an experiment, found before any work was done."""

    status = 2


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, Python's or TensorFlow's, reports that memory could not be allocated.

    TensorFlow raises the same class for a full disk. The class is compared by name, so that TensorFlow need
    not be imported.
    """
    if type(error).__name__ == "ResourceExhaustedError":
        return not any(reason in str(error) for reason in _NOT_MEMORY)
    return isinstance(error, MemoryError)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class without a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()

"""Errors that the user can fix: a message of one line and an exit status."""


class UserError(Exception):
    """A failure that the user can fix: the message is one line that names the fault and the fix.

    Attributes:
      status: exit status of the command.
    """

    status = 1


class UsageError(UserError):
    """A mistake in the command line or in an experiment, found before any work was done."""

    status = 2


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class without a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()

"""What a user can do something about: one line for each mistake, and the status to exit with."""


class UserError(Exception):
    """A failure that the user can fix: the message is one line with what is wrong and what to do.

    Attributes:
      status: the exit status of a command that ends with it.
    """

    status = 1


class UsageError(UserError):
    """A mistake in the command line or in an experiment, found before any work was done."""

    status = 2


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class without a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()

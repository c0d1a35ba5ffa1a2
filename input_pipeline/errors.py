"""Errors of data sets, in one line."""

import re

from system.errors import UserError


class DatasetError(UserError, ValueError):
    """A data set that cannot be used: one line that names the problem and the fix.

    Also a ValueError: raised inside tf.data it becomes an InvalidArgumentError, as broken data do.
    """


def plain_message(message: str) -> str:
    """Return TensorFlow's message on one line, without the names of graph nodes and iterators."""
    for noise in (
        r"\{\{[^}]*\}\}",
        r"\[\[.*?\]\]",
        r"\[Op:\w+\](?: name: ?\S*)?",
        r"Error in user-defined function passed to .*?iterator: [\w:\[\]]+: ",
    ):
        message = re.sub(noise, "", message)
    return " ".join(message.split())

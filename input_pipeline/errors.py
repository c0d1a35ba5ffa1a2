"""What goes wrong with data, in one clear line."""

import re

from system.errors import UserError


class DatasetError(UserError, ValueError):
    """A data set that cannot be used as it is: one line naming what, and what to do.

    A ValueError too: raised inside tf.data it arrives as InvalidArgumentError, as broken data do.
    """


def plain_message(message: str) -> str:
    """TensorFlow's message without the names of graph nodes and iterators, on one line."""
    for noise in (
        r"\{\{[^}]*\}\}",
        r"\[\[.*?\]\]",
        r"\[Op:\w+\](?: name: ?\S*)?",
        r"Error in user-defined function passed to .*?iterator: [\w:\[\]]+: ",
    ):
        message = re.sub(noise, "", message)
    return " ".join(message.split())

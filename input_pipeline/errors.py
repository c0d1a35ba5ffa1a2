"""What goes wrong with data, in one clear line."""

import re


class DatasetError(ValueError):
    """A data set that cannot be used as it is: one line naming what, and what to do."""


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

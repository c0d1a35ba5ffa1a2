"""What the commands of this package share: how they read their arguments."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """One that says a mistake in one line and leaves with status 2; names are given in full.

    Args:
      name: of the command's module, "serving.predict".
      description: the docstring of that module, which --help shows as it is.
    """

    def __init__(self, name: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m {name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._name = name

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        self.exit(2, f"{self._name}: {message} (--help tells more)\n")


def positive_number(text: str) -> int:
    """An int above 0, as an argument's `type`."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value

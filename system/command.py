"""Base of every `python -m ...` command: flag parsing, one-line errors and exit statuses."""

import argparse
import functools
import sys
from argparse import SUPPRESS, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from system.errors import UserError
from system.files import file_errors

__all__ = [
    "SUPPRESS",
    "ArgumentTypeError",
    "Namespace",
    "Parser",
    "command",
    "natural",
    "positive",
    "positives",
]

Main = Callable[[Sequence[str] | None], int]  # argv -> exit status
Command = Callable[..., int]  # the same, with argv optional


class Parser(argparse.ArgumentParser):
    """Parser of a command's flags: a mistake is one line and exit status 2.

    Args:
      program: name of the module, `serving.predict`.
      description: the module's docstring; --help prints it unchanged.
      options: passed to argparse.ArgumentParser, which also creates the parsers of subcommands.
    """

    def __init__(self, program: str = "", description: str | None = None, **options: Any) -> None:
        options.setdefault("prog", f"python -m {program}")
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit with status 2."""
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}; see --help\n")


def command(program: str) -> Callable[[Main], Command]:
    """Make `main(argv)` the main function of a command named `program`.

    A UserError or a file error is printed as one line `PROGRAM: message`, and its status returned;
    Ctrl-C returns 130. Any other exception is a bug and is raised with its traceback.
    """

    def decorate(main: Main) -> Command:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            try:
                with file_errors():
                    return main(argv)
            except UserError as error:
                print(f"{program}: {error}", file=sys.stderr)
                return error.status
            except KeyboardInterrupt:
                print(f"{program}: interrupted", file=sys.stderr)
                return 130

        return run

    return decorate


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _whole_number(text, 1)


def natural(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _whole_number(text, 0)


def positives(text: str) -> tuple[int, ...]:
    """Parse whole numbers of at least 1, separated by commas: `1,2,4`."""
    return tuple(positive(part) for part in text.split(","))


def _whole_number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)

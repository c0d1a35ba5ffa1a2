"""Base of every `python -m ...` command: flag parsing, one-line errors and exit statuses."""

import argparse
import difflib
import functools
import itertools
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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse flags; report an unknown one before those that are required and missing.

        A misspelled required flag is both, and only the misspelling names the mistake.
        """
        given = [*(sys.argv[1:] if args is None else args)]
        if self._subparsers is None:  # a subcommand checks its own
            self._check_known(given)
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit with status 2."""
        see = " See" if message.endswith("?") else "; see"
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}{see} --help\n")

    def _check_known(self, args: Sequence[str]) -> None:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for arg in itertools.takewhile(lambda arg: arg != "--", args):
            flag = arg.partition("=")[0]
            if flag.startswith("--") and " " not in flag and flag not in known:
                near = difflib.get_close_matches(flag, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.error(f"unknown flag {flag}{hint}")


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

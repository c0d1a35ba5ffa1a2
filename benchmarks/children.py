"""Measure programs side by side, each in a process of its own, in turns.

All processes of a measurement are started first; then each runs a turn while the others wait, round after
round, in an order that is drawn for each round. Ratios are taken within a round, so a machine whose speed
drifts affects all sides alike. Peak memory is that of the process.
"""

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.turn_server import Turn
from system.conditions import ROOT
from system.errors import UserError
from system.tensorflow_log import is_logging, log_level

TURN_SERVER = ROOT / "benchmarks/turn_server.py"
SUBJECTS = ROOT / "benchmarks/subjects"
ORDER_SEED = 1
LAST_WORDS = 400  # characters of what a failed process printed


class ChildError(UserError):
    """A measured process failed; the message ends with what it printed last."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A program to measure, as benchmarks.turn_server runs it.

    Attributes:
      file: with the function.
      function: called with `settings`; returns a function that runs a turn.
      settings: JSON values.
      checkout: root of the project whose modules it imports.
      renamed: present names of the project's modules and the earlier ones that `checkout` may still have.
      python: its interpreter.
      fresh: whether each turn is the first of a new process; else a process runs all, after one to warm up.
    """

    file: Path
    function: str
    settings: Mapping[str, Any]
    checkout: Path = ROOT
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    python: str = sys.executable
    fresh: bool = False

    def task(self) -> str:
        """Return what benchmarks.turn_server takes as its argument."""
        return json.dumps(
            {
                "file": str(self.file),
                "function": self.function,
                "settings": dict(self.settings),
                "renamed": dict(self.renamed),
            }
        )


def take_turns(subjects: Mapping[str, Subject], rounds: int) -> dict[str, list[Turn]]:
    """Measure every subject once in each of so many rounds.

    Raises:
      ChildError: a process failed.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in subjects}
    order, shuffle = list(subjects), random.Random(ORDER_SEED).shuffle
    with contextlib.ExitStack() as stack:
        running = {}
        for name, subject in subjects.items():
            if not subject.fresh:
                _progress(f"starting {name}")
                running[name] = stack.enter_context(_started(subject))
                running[name]()
        for number in range(rounds):
            shuffle(order)
            for name in order:
                _progress(f"round {number + 1} of {rounds}: {name}")
                if name in running:
                    turns[name].append(running[name]())
                else:
                    with _started(subjects[name]) as turn:
                        turns[name].append(turn())
    _progress("")
    return turns


@contextlib.contextmanager
def _started(subject: Subject) -> Iterator[Callable[[], Turn]]:
    """Run the subject's process within the block; yield a function that asks it for a turn.

    With EFFICIENTNET_TENSORFLOW_LOGS=1 what it printed is copied to stderr at the end.
    """
    paths = {
        "PYTHONPATH": str(subject.checkout)
    }  # nothing else: packages of two checkouts must not mix
    quiet = {"TF_CPP_MIN_LOG_LEVEL": log_level(), "CUDA_VISIBLE_DEVICES": "-1"}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [subject.python, "-P", str(TURN_SERVER), subject.task()],
            cwd=subject.checkout,
            env=os.environ | paths | quiet,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        requests, replies = process.stdin, process.stdout

        def reply() -> str:
            line = replies.readline()
            if not line:
                status = process.wait()
                log.seek(0)
                last_words = " ".join(log.read().split())[-LAST_WORDS:]
                raise ChildError(
                    f"{subject.file.name} {subject.function}: exit status {status}: {last_words}"
                )
            return line

        def turn() -> Turn:
            requests.write("turn\n")
            return Turn(**json.loads(reply()))

        try:
            reply()
            yield turn
        finally:
            process.kill()
            if is_logging():
                process.wait()
                log.seek(0)
                sys.stderr.write(log.read())


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line:<70.70}", end="" if line else "\r", file=sys.stderr, flush=True)

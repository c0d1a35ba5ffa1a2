"""Compare the processor time of this checkout with that of another one, in turns, in one run.

    python -m benchmarks.compare --base=DIR [--what=input,tracing,training] [--data_dir=DIR] [--rounds=16]
        [--output=benchmarks/results/compare.md]

DIR is a checkout of another commit (`git worktree add DIR COMMIT`). Each item runs from both checkouts, in
processes of their own with the packages of this interpreter, and is compared within a round: the command
prints the median ratio and its 95 % interval. The exit status is 1 when an interval reaches --limit.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.children import SUBJECTS, Subject, take_turns
from benchmarks.ratios import Ratio, ratio_interval
from system.command import ArgumentTypeError, Parser, command, positive
from system.conditions import ROOT, commit, conditions
from system.errors import UsageError
from system.tensorflow_log import quiet_tensorflow

THIS, BASE = "this", "base"
PROJECT = SUBJECTS / "project.py"
# Modules that benchmarks/subjects/project.py imports, by their present name, with that of commit 6e363b2.
RENAMED = {
    "input_pipeline.stream.pipeline": "input_pipeline.pipeline",
    "system.memory": "input_pipeline.arenas",
    "training.devices.distribution": "training.distribution",
    "training.optimizers.schedules": "training.schedules",
    "training.step.batch_norm": "training.batch_norm",
    "training.step.noise": "training.noise",
    "training.step.state": "training.state",
    "training.step.train_step": "training.step",
}
WHAT = ("input", "tracing", "training")
INTRODUCTION = """# This checkout and an earlier one

`python -m benchmarks.compare --base=DIR --output=benchmarks/results/compare.md` writes this page: the
processor seconds of this checkout, divided by those of another commit, in turns on one machine; medians
with their 95 % interval.
"""


class Item(NamedTuple):
    """What is compared: a function of benchmarks/subjects/project.py and its settings."""

    name: str
    function: str
    settings: Mapping[str, Any]
    fresh: bool = False  # each turn in a new process


def list_items(what: Sequence[str], records: str) -> list[Item]:
    """List all items of "input" (from the record files in `records`), "tracing" and "training"."""
    pipeline = {"records": records, "image_size": 224, "batch": 64, "batches": 3}
    pipeline["threads"] = os.cpu_count() or 1
    start = {"model": "efficientnet-b0", "image_size": 64}
    b0 = {"model": "efficientnet-b0", "image_size": 224, "batch": 16, "steps": 2}
    b2 = {"model": "efficientnet-b2", "image_size": 260, "batch": 8, "steps": 2}
    items = {
        "input": [
            Item("input, no augmentation", "input_batches", pipeline | {"augment": False}),
            Item("input, AutoAugment", "input_batches", pipeline | {"augment": True}),
        ],
        "tracing": [
            Item(
                f"trace and first step, B0, replicas: {replicas}",
                "first_step",
                start | {"batch": 2 * replicas, "replicas": replicas},
                fresh=True,
            )
            for replicas in (1, 2)
        ],
        "training": [
            Item("training step, B0", "training_step", b0),
            Item("training step, B2", "training_step", b2),
        ],
    }
    return [item for name in what for item in items[name]]


def compare(item: Item, base: Path, rounds: int, processes: int) -> Ratio:
    """Measure the ratio of processor seconds, this checkout to the base.

    Args:
      item: what to run.
      base: root of the other checkout.
      rounds: turns of each side, over all processes.
      processes: of each side, one after the other: a process keeps a speed of its own, by where its memory
        and its threads happen to be.

    Raises:
      ChildError: one of them failed.
    """
    subjects = {
        name: Subject(
            PROJECT, item.function, item.settings, checkout, renamed=RENAMED, fresh=item.fresh
        )
        for name, checkout in ((THIS, ROOT), (BASE, base))
    }
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for count in [rounds] if item.fresh else share_out(rounds, processes):
        for name, turns in take_turns(subjects, count).items():
            seconds[name] += [turn.processor_s for turn in turns]
    return ratio_interval(np.array(seconds[THIS]), np.array(seconds[BASE]))


def share_out(rounds: int, processes: int) -> list[int]:
    """Split rounds among processes as evenly as they divide; processes without a round are left out."""
    shares = [rounds // processes + (number < rounds % processes) for number in range(processes)]
    return [share for share in shares if share]


def verdict_line(name: str, ratio: Ratio, limit: float) -> str:
    """Render one row of the table in Markdown."""
    return f"| {name} | {ratio} | {'yes' if ratio.high < limit else 'no'} |"


@contextlib.contextmanager
def _record_files(data_dir: Path | None) -> Iterator[tuple[str, str]]:
    """Write record files of the images of a folder; yield their directory and a phrase for the images."""
    quiet_tensorflow()
    from benchmarks.input_pipeline import write_records
    from benchmarks.photographs import jpegs

    encoded, origin = jpegs(data_dir)
    with tempfile.TemporaryDirectory() as directory:
        write_records(encoded, directory)
        yield directory, f"{len(encoded)} {origin}"


def _what(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in WHAT:
            raise ArgumentTypeError(f"{name!r} is none of {', '.join(WHAT)}")
    return names


@command("benchmarks.compare")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 when an interval reaches the limit."""
    parser = Parser("benchmarks.compare", __doc__)
    parser.add_argument("--base", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--what", type=_what, default=list(WHAT), help=",".join(WHAT))
    parser.add_argument("--data_dir", type=Path, help="folder tree of JPEGs for the input")
    parser.add_argument("--rounds", type=positive, default=16, help="turns of each side of an item")
    parser.add_argument(
        "--processes", type=positive, default=4, help="the rounds are shared out to"
    )
    parser.add_argument("--limit", type=float, default=1.03, help="of the ratios' intervals")
    parser.add_argument("--output", type=Path, help="also write a page to this file")
    flags = parser.parse_args(argv)
    base = flags.base.resolve()
    if not (base / "efficientnet").is_dir():
        raise UsageError(f"--base={flags.base}: not a checkout of this project; give its root")

    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    report(f"{conditions('keras')}; base: commit {commit(base)}; {flags.rounds} rounds.")
    below = []
    with contextlib.ExitStack() as stack:
        records = ""
        if "input" in flags.what:
            records, origin = stack.enter_context(_record_files(flags.data_dir))
            report(f"Input: {origin}.")
        report(
            f"\n| processor seconds, this to base | ratio | below {flags.limit} |\n|---|---:|---|"
        )
        for item in list_items(flags.what, records):
            ratio = compare(item, base, flags.rounds, flags.processes)
            report(verdict_line(item.name, ratio, flags.limit))
            below.append(ratio.high < flags.limit)
    if flags.output:
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        flags.output.write_text("\n".join([INTRODUCTION, *lines, ""]))
    return 0 if all(below) else 1


if __name__ == "__main__":
    sys.exit(main())

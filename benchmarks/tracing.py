"""Measure the time to the first training step, by network and number of replicas.

    python -m benchmarks.tracing [--models=efficientnet-b0,efficientnet-b4] [--replicas=1,2,4]
        [--image_size=64] [--output=benchmarks/results/tracing.md]

builds each network, traces its training loop and runs one step on 1, 2 and 4 logical CPU devices with
batch norm statistics over all of them, each in a process of its own. Wall time is how long one waits,
processor time how much work there is, independent of the machine's load. All replicas share one
traced graph: batch norm that synchronises inside the graph of every replica
took 285 to 325 s for B0 on two.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from system.command import SUPPRESS, Parser, command, positive, positives
from system.conditions import ROOT, conditions
from system.errors import UserError
from system.tensorflow_log import quiet_tensorflow

EXAMPLES_PER_REPLICA = 2


# -- one measurement, in its own process --------------------------------------------------------


def measure(model: str, replicas: int, image_size: int) -> dict[str, float]:
    """Measure the seconds to build, trace and run the first step; call it once per process.

    Args:
      model: published name.
      replicas: logical CPU devices that train together.
      image_size: side of the images in pixels.

    Returns:
      For each of "build", "trace" and "first_step": seconds of wall time, and of processor time
      under the name with "_cpu".
    """
    from benchmarks.subjects.project import build_training

    stopwatch = _Stopwatch()
    training = build_training(model, image_size, replicas, batch=replicas * EXAMPLES_PER_REPLICA)
    stopwatch.lap("build")
    one_call = training.trace()
    stopwatch.lap("trace")
    one_call(1)
    stopwatch.lap("first_step")
    return stopwatch.seconds


class _Stopwatch:
    """Wall and processor time since the lap before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = (time.perf_counter(), time.process_time())

    def lap(self, name: str) -> None:
        now = (time.perf_counter(), time.process_time())
        self.seconds[name], self.seconds[f"{name}_cpu"] = (
            b - a for a, b in zip(self._last, now, strict=True)
        )
        self._last = now


# -- the table ----------------------------------------------------------------------------------

HEADER = (
    "model", "replicas", "trace, s", "of processor", "to one replica", "first step, s",
    "of processor", "trace + first step, to one replica",
)  # fmt: skip


def measure_all(
    models: Sequence[str], replicas: Sequence[int], image_size: int, timeout_seconds: float
) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Measure every model on every number of replicas, one process after the other.

    Raises:
      UserError: a measurement failed, with its last line, or took too long.
    """
    for model in models:
        for count in replicas:
            task = json.dumps([model, count, image_size])
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.tracing", "--measure", task],
                cwd=ROOT,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
                check=False,
            )
            if done.returncode:
                raise UserError(f"{model} on {count} replicas: {done.stderr.strip()[-300:]}")
            yield model, count, json.loads(done.stdout.strip().splitlines()[-1])


def table_lines(results: Sequence[tuple[str, int, dict[str, float]]]) -> list[str]:
    """Render the table in Markdown; ratios are of processor time, to the model's first row."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    first: dict[str, dict[str, float]] = {}
    for model, count, seconds in results:
        base = first.setdefault(model, seconds)
        whole, base_whole = (s["trace_cpu"] + s["first_step_cpu"] for s in (seconds, base))
        lines.append(
            _line(
                [
                    model,
                    f"{count}",
                    f"{seconds['trace']:.1f}",
                    f"{seconds['trace_cpu']:.1f}",
                    f"{seconds['trace_cpu'] / base['trace_cpu']:.2f}",
                    f"{seconds['first_step']:.1f}",
                    f"{seconds['first_step_cpu']:.1f}",
                    f"{whole / base_whole:.2f}",
                ]
            )
        )
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


PAGE = """# Time to the first step

`python -m benchmarks.tracing --output=benchmarks/results/tracing.md` writes this page.
{conditions}; {image_size} px, {images} images a replica.

Ratios are of processor time, which other work on the machine does not change.

{table}
"""


# -- the command --------------------------------------------------------------------------------


def _write_page(file: Path, results: Sequence[Any], image_size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = "\n".join(table_lines(results))
    page = PAGE.format(
        conditions=conditions("keras"),
        image_size=image_size,
        images=EXAMPLES_PER_REPLICA,
        table=table,
    )
    file.write_text(page)


@command("benchmarks.tracing")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    quiet_tensorflow()
    parser = Parser("benchmarks.tracing", __doc__)
    parser.add_argument("--models", default="efficientnet-b0,efficientnet-b4")
    parser.add_argument(
        "--replicas", type=positives, default=(1, 2, 4), help="compared with the first"
    )
    parser.add_argument("--image_size", type=positive, default=64, help="pixels")
    parser.add_argument("--timeout_seconds", type=float, default=900.0, help="of a measurement")
    parser.add_argument("--output", type=Path, help="file to write the table to")
    parser.add_argument("--measure", help=SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.measure:
        print(json.dumps(measure(*json.loads(flags.measure))))
        return 0
    results = []
    for result in measure_all(
        flags.models.split(","), flags.replicas, flags.image_size, flags.timeout_seconds
    ):
        results.append(result)
        print(table_lines(results)[-1], flush=True)
        if flags.output:
            _write_page(flags.output, results, flags.image_size)
    print("\n".join(["", *table_lines(results), "", conditions("keras")]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

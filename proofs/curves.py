"""Runs that are compared by the curves of their evaluations: several ways to train, several seeds of each."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.schema import Experiment
from system.errors import UsageError
from system.files import write_text
from training.devices.distribution import Distribution
from training.loop import train_and_evaluate


class Curve(NamedTuple):
    """A figure of a run in percent, by step, and the run's processor time in seconds."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    seconds: float


Curves = Mapping[str, Sequence[Curve]]  # way to train: a curve for each seed


def train(experiment: Experiment, distribution: Distribution, metric: str) -> Curve:
    """Train to the end, or read what a finished run has logged.

    Raises:
      UsageError: the evaluations have no such figure.
    """
    folder = Path(str(experiment.model_dir))
    seconds = folder / "processor_seconds"
    if not seconds.exists():
        start = time.process_time()
        train_and_evaluate(experiment, distribution)
        write_text(str(seconds), f"{time.process_time() - start:.1f}\n")
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    evaluations = [row for row in rows if row["kind"] == "eval"]
    figures = evaluations[-1].keys() - {"kind", "step"}
    if metric not in figures:
        raise UsageError(
            f"{metric} is no figure of {folder}'s evaluations; expected one of "
            f"{', '.join(sorted(figures))}"
        )
    steps, values = zip(*((row["step"], 100 * row[metric]) for row in evaluations), strict=True)
    return Curve(steps, values, float(seconds.read_text()))


def table(curves: Curves, figure: str) -> str:
    """Render a row for each way to train; `figure` is the name of what the curves show."""
    columns = (f"{figure} % after the last step", "mean ± deviation", "processor time of a run")
    lines = [f"| | {' | '.join(columns)} |", "|---|---|---:|---:|"]
    for way, of_seeds in curves.items():
        last = np.array([curve.values[-1] for curve in of_seeds])
        deviation = last.std(ddof=1) if len(last) > 1 else 0.0
        seconds = np.mean([curve.seconds for curve in of_seeds])
        each = " ".join(f"{value:.1f}" for value in last)
        lines.append(f"| {way} | {each} | {last.mean():.1f} ± {deviation:.1f} | {seconds:.0f} s |")
    return "\n".join(lines) + "\n"


def draw_curves(axes: Any, curves: Curves, *, x: str, y: str) -> None:
    """Draw each way's mean of the seeds and their range over the steps."""
    for way, of_seeds in curves.items():
        values = np.array([curve.values for curve in of_seeds])
        (line,) = axes.plot(of_seeds[0].steps, values.mean(axis=0), label=way)
        axes.fill_between(
            of_seeds[0].steps,
            values.min(axis=0),
            values.max(axis=0),
            color=line.get_color(),
            alpha=0.2,
        )
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()

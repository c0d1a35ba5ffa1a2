"""Charts of a report, as SVG images in data URIs."""

import base64
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from serving.report.timing import LogRow

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # "building the font cache", on stderr

TRAIN, EVALUATION, MARK = "#3465a4", "#cc5500", "#888888"
PHASES = ("#729fcf", "#ad7fa8", "#fcaf3e", "#3465a4", "#cc5500", "#8ae234")
MOST_NUMBERS = 12  # classes of a confusion matrix with numbers in its cells
MOST_NAMES = 40  # classes of a confusion matrix with class names

# Text stays text, and the same run gives the same bytes.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.4,
}


class Chart(NamedTuple):
    """A picture of the report.

    Attributes:
      title: the heading above it.
      uri: "data:image/svg+xml;base64,...".
      alt: alternative text.
    """

    title: str
    uri: str
    alt: str


def curves(
    rows: Sequence[LogRow], stages: Sequence[tuple[int, str]], best_step: int | None
) -> list[Chart]:
    """Draw a chart for each figure of the log, with training and evaluation together.

    Args:
      rows: of metrics.jsonl.
      stages: first step and name of each stage after the first one.
      best_step: step of the best checkpoint; None if there is none.
    """
    names = list(dict.fromkeys(name for row in rows for name in row if _has_curve(name)))
    charts = []
    for name in names:
        series = {
            kind: [(row["step"], row[name]) for row in rows if row["kind"] == kind and name in row]
            for kind in ("train", "eval")
        }
        with _chart(4.6, 2.5) as (figure, charted):
            axes = figure.add_subplot()
            _draw_curves(axes, series)
            _mark_steps(axes, stages, best_step)
            axes.set_xlabel("step")
        last = ", ".join(f"{kind} {points[-1][1]:.4g}" for kind, points in series.items() if points)
        title = name.replace("_", " ")
        charts.append(Chart(title, charted[0], f"{title} by step; at the end: {last}"))
    return charts


def _has_curve(name: str) -> bool:
    """Return whether a figure has a curve; figures of a single class, such as "iou/3", have none."""
    return name not in ("kind", "step", "finite") and "/" not in name


def speed(times: Sequence[LogRow], stages: Sequence[tuple[int, str]]) -> list[Chart]:
    """Draw the images per second of the calls of the training loop, without the first calls of stages."""
    calls = [row for row in times if row["phase"] == "train" and not row["first"]]
    if not calls:
        return []
    points = [(row["step"], row["images"] / max(row["seconds"], 1e-9)) for row in calls]
    with _chart(4.6, 2.5) as (figure, charted):
        axes = figure.add_subplot()
        _draw_curves(axes, {"train": points, "eval": []})
        axes.set_ylim(bottom=0)
        _mark_steps(axes, stages, None)
        axes.set_xlabel("step")
    return [Chart("images per second", charted[0], f"images per second; last {points[-1][1]:.4g}")]


def time_spent(seconds: Mapping[str, float]) -> Chart:
    """Draw the seconds of each part of a run as one bar."""
    total = sum(seconds.values()) or 1.0
    with _chart(9.4, 1.6) as (figure, charted):
        axes = figure.add_subplot()
        left = 0.0
        for (name, value), colour in zip(seconds.items(), PHASES, strict=False):
            axes.barh([0], [value], left=left, color=colour, label=f"{name} {value / total:.0%}")
            left += value
        axes.set_yticks([])
        axes.set_xlim(0, total)
        axes.set_xlabel("seconds")
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(seconds), frameon=False
        )
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())
    return Chart("where the time went", charted[0], shares)


def confusion_matrix(confusion: np.ndarray, names: Sequence[str]) -> Chart:
    """Draw a confusion matrix: rows true, columns predicted, coloured by the share of the row.

    Args:
      confusion: int [classes, classes].
      names: one for each class.
    """
    count = len(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(max(3.0, 0.42 * count), 8.0)
    with _chart(side + 1.5, side + 0.8) as (figure, charted):
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if count <= MOST_NAMES:
            # Matplotlib would read "$" as the start of a formula.
            shown = [name.replace("$", r"\$") for name in names]
            axes.set_xticks(range(count), shown, rotation=60, ha="right")
            axes.set_yticks(range(count), shown)
        if count <= MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(confusion):
                if value:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(value), ha="center", va="center", color=colour)
    wrong = int(confusion.sum() - np.trace(confusion))
    return Chart(
        "confusion", charted[0], f"confusion matrix; {wrong} of {confusion.sum()} are wrong"
    )


def _draw_curves(axes: Any, series: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    looks = {"train": (TRAIN, "training", ""), "eval": (EVALUATION, "evaluation", "o")}
    for kind, points in series.items():
        if points:
            colour, label, marker = looks[kind]
            few = "o" if len(points) == 1 else marker
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colour, label=label, marker=few, markersize=3)
    if all(series.values()):
        axes.legend(frameon=False)


def _mark_steps(axes: Any, stages: Sequence[tuple[int, str]], best_step: int | None) -> None:
    for step, name in stages:
        axes.axvline(step, color=MARK, linestyle="--", linewidth=0.8)
        axes.annotate(
            name, (step, 1), xycoords=("data", "axes fraction"), fontsize=7, rotation=90,
            ha="right", va="top", color=MARK,
        )  # fmt: skip
    if best_step is not None:
        axes.axvline(best_step, color=EVALUATION, linestyle=":", linewidth=0.9)


@contextmanager
def _chart(width: float, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """Yield a figure of this size in inches, and a list that gets its data URI after the block."""
    uris: list[str] = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Browsers draw class names in scripts that matplotlib's font lacks.
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, uris
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    uris.append("data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode("ascii"))

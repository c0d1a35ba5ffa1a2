"""Times of the parts of a run, from the rows of times.jsonl."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

LogRow = Mapping[str, Any]


def seconds_by_part(times: Sequence[LogRow]) -> dict[str, float]:
    """Add up the seconds of each part of a run; parts that took none are left out.

    The first call of a stage also compiles the step and prepares the first batch. Its time beyond the median
    of the stage's other calls counts as compiling; without other calls, all of it counts as steps.
    """
    parts = dict.fromkeys(("start", "tracing and compiling", "input", "step"), 0.0)
    parts |= dict.fromkeys(("evaluation", "checkpoints"), 0.0)
    names = {
        "start": "start",
        "trace": "tracing and compiling",
        "evaluation": "evaluation",
        "checkpoint": "checkpoints",
    }
    for row in times:
        if row["phase"] in names:
            parts[names[row["phase"]]] += row["seconds"]
    for stage in _stages(times):
        computing = [row["seconds"] - row["input_seconds"] for row in stage]
        later = [
            t / row["steps"] for t, row in zip(computing, stage, strict=True) if not row["first"]
        ]
        compiling = 0.0
        if later and stage[0]["first"]:
            compiling = max(computing[0] - stage[0]["steps"] * float(np.median(later)), 0.0)
        parts["input"] += sum(row["input_seconds"] for row in stage)
        parts["tracing and compiling"] += compiling
        parts["step"] += sum(computing) - compiling
    return {name: value for name, value in parts.items() if value > 0}


def images_per_second(times: Sequence[LogRow]) -> float | None:
    """Return the median speed of the calls of the training loop without first calls; None without calls."""
    calls = [row for row in times if row["phase"] == "train" and not row["first"]]
    return float(np.median([row["images"] / row["seconds"] for row in calls])) if calls else None


def _stages(times: Sequence[LogRow]) -> Iterator[list[LogRow]]:
    """Yield the calls of the training loop by stage: from each first call to the next."""
    group: list[LogRow] = []
    for row in times:
        if row["phase"] == "train":
            if row["first"] and group:
                yield group
                group = []
            group.append(row)
    if group:
        yield group

"""Progressive learning: expand a growing image size and regularisation to stages (arXiv 2104.00298)."""

from typing import Any

from configs.durations import Percentage
from configs.schema import Progressive, StageOverlay

# Where each field of `progressive` goes.
KEYS = {
    "magnitude": "augment.magnitude",
    "mixup_alpha": "augment.mixup_alpha",
    "cutmix_alpha": "augment.cutmix_alpha",
    "dropout": "model.dropout",
}


def expand(progressive: Progressive) -> tuple[StageOverlay, ...]:
    """Return the stages of a progressive training, all of one length.

    By the paper's rule (its algorithm 1) everything grows evenly from the first value to the last. The
    published code does that with the regularisation only: its sizes grow from the first value, which no
    stage has, in as many steps as there are stages. Sizes are rounded down and may be odd.
    """
    count = progressive.stages
    return tuple(
        StageOverlay(duration=Percentage(100 / count) if number < count - 1 else None, set=settings)
        for number, settings in enumerate(_settings(progressive, number) for number in range(count))
    )


def _settings(progressive: Progressive, number: int) -> dict[str, Any]:
    count = progressive.stages
    growth = (number + 1) / count if progressive.rule == "code" else number / (count - 1)
    settings: dict[str, Any] = {}
    if progressive.image_size:
        first, last = progressive.image_size
        settings["model.image_size"] = int(first + (last - first) * growth)
    for name, key in KEYS.items():
        if span := getattr(progressive, name):
            low, high = span
            settings[key] = low + (high - low) / (count - 1) * number
    return settings

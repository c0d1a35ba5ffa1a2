"""Targets: what a record holds beside its image. A new target is one file here and one row in TARGETS.

`TARGETS["classes"](max_labels=5)` makes a target by name, `parse_target("classes:max_labels=5")` from a flag.
"""

import inspect
from collections.abc import Callable, Mapping

from input_pipeline.errors import DatasetError
from input_pipeline.targets.boxes import Boxes
from input_pipeline.targets.class_label import ClassLabel
from input_pipeline.targets.class_labels import ClassLabels
from input_pipeline.targets.mask import Mask
from input_pipeline.targets.target import Target

__all__ = ["TARGETS", "TARGET_HELP", "Target", "parse_target"]

TARGETS: Mapping[str, Callable[..., Target]] = {
    "class": ClassLabel,
    "classes": ClassLabels,
    "mask": Mask,
    "boxes": Boxes,
}
TARGET_HELP = (
    "what to read beside the images: class, classes, mask or boxes, with options as in boxes:max_boxes=300 "
    "(default %(default)s)"
)


def parse_target(text: str) -> Target:
    """Make a target from NAME or NAME:OPTION=NUMBER,OPTION=NUMBER.

    Raises:
      DatasetError: the target or option is unknown, or its value is not a number.
    """
    name, _, rest = text.partition(":")
    if name not in TARGETS:
        raise DatasetError(f"--target={text}: no target {name!r}; known: {', '.join(TARGETS)}")
    known = inspect.signature(TARGETS[name]).parameters
    options = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in known or not value.isdigit():
            expected = ", ".join(f"{option}=NUMBER" for option in known) or "no option"
            raise DatasetError(f"--target={text}: invalid option {part!r}; expected {expected}")
        options[key] = int(value)
    return TARGETS[name](**options)

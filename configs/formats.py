"""Upgrade experiment files that older versions of this program saved.

A file that the program saves has `format: 2` and every field. Files written by hand have no format.
Neither have files of format 1. Those are recognised by their fields: each section has the fields of all
its kinds, which a user would not write together. The fields that the chosen kind did not use are dropped,
so that old runs resume, evaluate and export.
"""

import json
from collections.abc import Mapping
from typing import Any

FORMAT = 2

# What format 1 saved without using it: {section: (key, {kind: fields without effect})}.
_UNUSED: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "data": (
        "source",
        {
            "tfrecord": ("num_train_examples",),
            "image_folder": ("num_train_examples", "holdout_shards", "shuffle_buffer_mib"),
            "digits": ("num_train_examples", "holdout_shards"),
            "synthetic": ("data_dir", "holdout_shards", "shuffle_buffer_mib"),
            "tfds": ("num_train_examples",),
        },
    ),
    "augment": (
        "policy",
        {
            "none": ("layers", "magnitude", "magnitude_std", "quirks"),
            "autoaugment": ("layers", "magnitude", "magnitude_std"),
            "randaugment": (),
        },
    ),
    "train": ("on_nonfinite", {"stop": ("max_skipped_steps",), "skip": ()}),
    "optimizer": ("name", {"rmsprop": ("nesterov",), "sgd": ("decay", "epsilon")}),
    "schedule": (
        "name",
        {
            "exponential": (),
            "cosine": ("decay_every", "decay_rate"),
            "constant": ("decay_every", "decay_rate"),
        },
    ),
}


def upgrade(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an experiment file in the current format, without the key `format`.

    Raises:
      ValueError: this version does not read the file's `format`.
    """
    found = tree.get("format", FORMAT)
    if type(found) is not int or found != FORMAT:
        raise ValueError(
            f"format must be {FORMAT}, not {json.dumps(found, default=str)}:"
            " use the version that saved the file"
        )
    rest = {key: value for key, value in tree.items() if key != "format"}
    if "format" in tree or not _is_format_1(tree):
        return rest
    for name, (key, unused) in _UNUSED.items():
        section = rest[name]
        dropped = unused.get(str(section[key]).partition(":")[0], ())
        rest[name] = {field: value for field, value in section.items() if field not in dropped}
    if not _field(rest, "ema", "decay"):
        # Without an average "ema" was only the default, and had no effect.
        for name in ("eval", "export"):
            if _field(rest, name, "weights") == "ema":
                rest[name] = {key: value for key, value in rest[name].items() if key != "weights"}
    return rest


def _field(tree: Mapping[str, Any], section: str, name: str) -> object:
    values = tree.get(section)
    return values.get(name) if isinstance(values, Mapping) else None


def _is_format_1(tree: Mapping[str, Any]) -> bool:
    return all(
        isinstance(section := tree.get(name), Mapping)
        and {key, *(field for fields in unused.values() for field in fields)} <= section.keys()
        for name, (key, unused) in _UNUSED.items()
    )

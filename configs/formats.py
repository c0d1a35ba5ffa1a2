"""Experiment files as older versions of this program saved them.

A file that the program saves holds `format: 2` and every field. Files written by hand hold no format.
Neither do those saved before there was one; they are known by fields that a hand would not write
together: each section had the fields of all its kinds. Of those, the ones that the kind did not use
are dropped, so that old runs resume, evaluate and export.
"""

import json
from collections.abc import Mapping
from typing import Any

FORMAT = 2

# What format 1 saved without using it: {section: (key, {what it holds: fields without effect})}.
_UNUSED: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "data": (
        "source",
        {
            "tfrecord": ("num_train_examples",),
            "image_folder": ("num_train_examples", "holdout_shards"),
            "digits": ("num_train_examples", "holdout_shards"),
            "synthetic": ("data_dir", "holdout_shards"),
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


def upgraded(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The content of an experiment file in today's format, without the key `format`.

    Raises:
      ValueError: `format` is not one that this version reads.
    """
    found = tree.get("format", FORMAT)
    if type(found) is not int or found != FORMAT:
        raise ValueError(
            f"format must be {FORMAT}, not {json.dumps(found, default=str)}:"
            " read the file with the version that saved it"
        )
    rest = {key: value for key, value in tree.items() if key != "format"}
    if "format" in tree or not _is_format_1(tree):
        return rest
    for name, (key, unused) in _UNUSED.items():
        section = rest[name]
        dropped = unused.get(str(section[key]).partition(":")[0], ())
        rest[name] = {field: value for field, value in section.items() if field not in dropped}
    if not _field(rest, "ema", "decay"):
        # There was no average to use, and "ema" was only the default.
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

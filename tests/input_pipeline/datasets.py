"""Training and evaluation data sets by flat settings: each goes to the class that has it."""

import dataclasses
from typing import Any

import tensorflow as tf

from input_pipeline.images.framing import CenterCrop
from input_pipeline.images.view import EvalView, TrainView
from input_pipeline.sources import Source
from input_pipeline.stream import pipeline


def train_dataset(
    source: Source, *, image_size: Any, seed: int = 0, **settings: Any
) -> tf.data.Dataset:
    """make_train_dataset of `settings` of TrainView, Position and Reading, and its own."""
    settings["size"] = image_size
    return pipeline.make_train_dataset(
        source,
        take(TrainView, settings),
        seed=seed,
        position=take(pipeline.Position, settings),
        reading=take(pipeline.Reading, settings),
        **settings,
    )


def eval_dataset(
    source: Source,
    split: str = "validation",
    *,
    image_size: Any,
    crop_padding: Any = None,
    **settings: Any,
) -> tf.data.Dataset:
    """make_eval_dataset of `settings` of EvalView, Position and Reading, and its own."""
    framed = {"size": image_size, "framing": CenterCrop(crop_padding)}
    settings = {**framed, **settings}
    return pipeline.make_eval_dataset(
        source,
        take(EvalView, settings),
        split,
        position=take(pipeline.Position, settings),
        reading=take(pipeline.Reading, settings),
        **settings,
    )


def take(kind: Any, settings: dict[str, Any]) -> Any:
    """Build a `kind` from the settings that it has, and remove them."""
    names = {field.name for field in dataclasses.fields(kind)} & settings.keys()
    return kind(**{name: settings.pop(name) for name in names})

"""MODEL_DIR/evaluation.json: what the evaluation of a run's best checkpoint found, class by class."""

import dataclasses
import json
import math
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from system.errors import UserError
from system.files import write_text

FILE = "evaluation.json"
FORMAT_VERSION = 1


class ResultsError(UserError):
    """An evaluation.json that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Results:
    """The evaluation of a checkpoint.

    Attributes:
      step: of the checkpoint.
      num_examples: number of examples evaluated.
      figures: the task's metrics by name.
      shown: the same metrics, formatted.
      per_class: arrays [classes] by name; int counts, or float shares with NaN where there are none.
      confusion: int [classes, classes], rows true, columns predicted; None if the task counts none.
    """

    step: int
    num_examples: int
    figures: Mapping[str, float]
    shown: Mapping[str, str]
    per_class: Mapping[str, np.ndarray]
    confusion: np.ndarray | None = None


def write_results(model_dir: str, results: Results) -> None:
    """Write MODEL_DIR/evaluation.json atomically.

    Raises:
      OSError: it cannot be written.
    """
    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(results)}
    text = json.dumps(_plain(content), ensure_ascii=False)
    write_text(posixpath.join(model_dir, FILE), text + "\n")


def read_results(model_dir: str) -> Results | None:
    """Read MODEL_DIR/evaluation.json; None if there is none.

    Raises:
      ResultsError: it is of another version, or damaged.
    """
    path = posixpath.join(model_dir, FILE)
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            content = json.loads(file.read())
        if content.pop("format_version") != FORMAT_VERSION:
            raise ValueError(f"format_version must be {FORMAT_VERSION}")
        confusion = content.pop("confusion")
        per_class = {name: _array(values) for name, values in content.pop("per_class").items()}
        matrix = None if confusion is None else np.array(confusion, np.int64)
        return Results(**content, per_class=per_class, confusion=matrix)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"{path}: unusable ({error}); delete it, and the report leaves these figures out"
        ) from error


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: lists for arrays, null for NaN."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _array(values: list[Any]) -> np.ndarray:
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([math.nan if value is None else value for value in values], np.float64)

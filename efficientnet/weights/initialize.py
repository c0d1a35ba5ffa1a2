"""Initialise a network from a weights file: all of it, or all but the classifier."""

from dataclasses import dataclass
from pathlib import Path

import keras

from efficientnet.weights.keras_file import assign_weights, class_count, read_weights_file
from efficientnet.weights.matching import Weights, require_match

CLASSIFIER = ("classifier/kernel", "classifier/bias")


@dataclass(frozen=True)
class LoadReport:
    """The result of loading weights; its string is a one-line summary.

    Attributes:
      file: the source of the weights.
      loaded: paths of the variables that were set.
      fresh: paths of the model's variables that kept their initial values: the classifier's, or
        none.
      note: why the classifier was not loaded; empty if it was.
    """

    file: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    note: str

    def __str__(self) -> str:
        return f"initialised {len(self.loaded)} variables from {self.file}{self.note}"


def load_weights(model: keras.Model, file: str | Path) -> LoadReport:
    """Set a model's variables from a file; only the classifier may differ.

    Args:
      model: from `build_model`, with any options.
      file: `.weights.h5` that `convert` wrote, or `save_weights` of a model from `build_model`;
        local or gs://.

    Returns:
      A report of what was loaded. The classifier is not loaded if file and model have different
      numbers of classes or one of them has no classifier; the report has the reason.

    Raises:
      WeightsError: the file cannot be read, or its other variables are not exactly the model's; the
        model is unchanged.
    """
    return initialize(model, read_weights_file(file), str(file))


def initialize(model: keras.Model, weights: Weights, source: str) -> LoadReport:
    """Set a model's variables from weights by path; only the classifier may differ. See `load_weights`.

    Args:
      model: from `build_model`, with any options.
      weights: as `open.open_weights` returns them.
      source: name of their source, for the report and errors.
    """
    expected = {v.path: tuple(v.shape) for v in model.weights}
    note = _classifier_note(class_count(weights), expected)
    if note:
        weights = {path: array for path, array in weights.items() if path not in CLASSIFIER}
    fresh = tuple(path for path in expected if note and path in CLASSIFIER)
    require_match(
        {path: array.shape for path, array in weights.items()},
        {path: shape for path, shape in expected.items() if path not in fresh},
        source,
        model.name,
    )
    assign_weights(model, weights)
    return LoadReport(source, tuple(weights), fresh, note)


def _classifier_note(stored: int | None, expected: dict[str, tuple[int, ...]]) -> str:
    wanted = expected["classifier/bias"][0] if "classifier/bias" in expected else None
    if stored == wanted:
        return ""
    if wanted is None:
        return f"; its classifier of {stored} classes was dropped, the model has none"
    if stored is None:
        return f"; it has no classifier, the model's of {wanted} classes starts fresh"
    return f"; its classifier of {stored} classes was dropped, the model has {wanted}"

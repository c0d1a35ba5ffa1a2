"""Initialise a network from a weights file: all of it, or all but the classifier."""

from dataclasses import dataclass
from pathlib import Path

import keras

from efficientnet.network import is_backbone
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
    """Set a model's variables from weights by path; see `load_weights`.

    Only the classifier may differ. In a network with layers of another task in its place, such as a decoder,
    those of them start fresh that the weights lack or have in another shape; a head and a classifier that
    only the weights have are dropped.

    Args:
      model: from `build_model`, with any options.
      weights: as `open.open_weights` returns them.
      source: name of their source, for the report and errors.
    """
    expected = {v.path: tuple(v.shape) for v in model.weights}
    if any(not is_backbone(path) and path not in CLASSIFIER for path in expected):
        return _initialize_backbone(model, weights, source, expected)
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


def _initialize_backbone(
    model: keras.Model, weights: Weights, source: str, expected: dict[str, tuple[int, ...]]
) -> LoadReport:
    """Set what is not specific to a task, and of the rest what fits."""
    own = [path for path in expected if not is_backbone(path)]
    fresh = tuple(p for p in own if p not in weights or weights[p].shape != expected[p])
    dropped = [
        path for path in weights if path in fresh or (path not in expected and _is_optional(path))
    ]
    kept = {path: array for path, array in weights.items() if path not in dropped}
    require_match(
        {path: array.shape for path, array in kept.items()},
        {path: shape for path, shape in expected.items() if path not in fresh},
        source,
        model.name,
    )
    assign_weights(model, kept)
    note = f"; {len(fresh)} variables of the task's own layers start fresh" if fresh else ""
    return LoadReport(source, tuple(kept), fresh, note)


def _is_optional(path: str) -> bool:
    """Return whether a network of another task may lack the variable: the head, and what is above it."""
    return path.startswith("head_") or not is_backbone(path)


def _classifier_note(stored: int | None, expected: dict[str, tuple[int, ...]]) -> str:
    wanted = expected["classifier/bias"][0] if "classifier/bias" in expected else None
    if stored == wanted:
        return ""
    if wanted is None:
        return f"; its classifier of {stored} classes was dropped, the model has none"
    if stored is None:
        return f"; it has no classifier, the model's of {wanted} classes starts fresh"
    return f"; its classifier of {stored} classes was dropped, the model has {wanted}"

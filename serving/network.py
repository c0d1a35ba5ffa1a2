"""Build the network that is served: float32, trained weights, no random layers' seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec, Size
from efficientnet.blocks import Node
from efficientnet.builder import build_network
from efficientnet.network import network_layers
from run_folder.experiment import EXPERIMENT_FILE
from system.errors import UsageError, UserError


class ExportError(UserError):
    """An export that cannot be written or cannot be read."""


class NoRunError(ExportError):
    """A folder that was given as a run holds none: a mistake in the command line."""

    status = UsageError.status

    def __init__(self, model_dir: str) -> None:
        super().__init__(f"{model_dir}: no run here (no {EXPERIMENT_FILE}); train first")


# From logits to probabilities, by the name that the task gives.
ACTIVATIONS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "softmax": tf.nn.softmax,
    "sigmoid": tf.sigmoid,
}


def build_inference_network(
    spec: ModelSpec,
    *,
    num_classes: int,
    image_size: Size,
    weights: Sequence[np.ndarray],
    statistics: Sequence[np.ndarray],
    layers: Sequence[Node] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> keras.Model:
    """Build the network outside of any distribution strategy and assign its values.

    Args:
      spec: the network.
      num_classes: units of the classifier.
      image_size: side of square images or (height, width), in pixels.
      weights: values of `trainable_variables`, in the model's order.
      statistics: values of `non_trainable_variables`: batch norm's moving averages.
      layers: list of the network's layers; None: those of a classifier.
      outputs: as `build_network` takes them.

    Returns:
      A model from normalised float32 images [batch, H, W, 3] to float32 logits [batch, num_classes], or to
      what the layers compute.

    Raises:
      ExportError: the values are not those of this network.
    """
    if layers is None:
        layers = network_layers(spec, num_classes=num_classes, include="logits")
    model = build_network(
        layers, name=spec.name, outputs=outputs, image_size=image_size, uniform=_forbid_noise
    )
    _assign(model.trainable_variables, weights, "weights", spec)
    _assign(model.non_trainable_variables, statistics, "statistics", spec)
    return model


def by_name(outputs: Any) -> dict[str, Any]:
    """Return the outputs of a network by name; one alone is "logits"."""
    return dict(outputs) if isinstance(outputs, Mapping) else {"logits": outputs}


def _assign(
    variables: Sequence[keras.Variable],
    values: Sequence[np.ndarray],
    noun: str,
    spec: ModelSpec,
) -> None:
    if len(variables) != len(values):
        raise ExportError(
            f"{spec.name} has {len(variables)} {noun}, {len(values)} were given: "
            "they belong to another network"
        )
    for variable, value in zip(variables, values, strict=True):
        if tuple(variable.shape) != np.shape(value):
            raise ExportError(
                f"{spec.name}: {variable.path} is {list(variable.shape)}, its value "
                f"{list(np.shape(value))}: it belongs to another network"
            )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _forbid_noise(shape: tuple[Any, ...], index: int) -> Any:
    """Replace the source of noise, so that the network holds no seeds; raise when called."""
    raise AssertionError(f"random layer {index} drew a mask of shape {shape} in inference")

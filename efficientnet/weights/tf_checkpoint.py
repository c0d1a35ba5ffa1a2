"""Open a TensorFlow checkpoint, of either layout, for reading its arrays by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from efficientnet.complexity import complexity
from efficientnet.spec import ModelSpec
from efficientnet.weights.containers import identify
from efficientnet.weights.matching import Weights, WeightsError
from system.errors import first_line


class StoredWeights(NamedTuple):
    """A checkpoint: its prefix, its reader, and the shape of each of its arrays by name."""

    prefix: str
    reader: Any
    shapes: dict[str, tuple[int, ...]]

    def read(self, names: Mapping[str, str]) -> Weights:
        """Read arrays: {our path: stored name} -> {our path: array}.

        Raises:
          WeightsError: the file is damaged.
        """
        try:
            return {path: self.reader.get_tensor(name) for path, name in names.items()}
        except (tf.errors.OpError, RuntimeError, IndexError, ValueError) as error:
            raise WeightsError(f"cannot read {self.prefix}: {first_line(error)}") from error


def name_variables_by_layer(
    spec: ModelSpec, num_classes: int, layers: Mapping[str, str]
) -> dict[str, str]:
    """Map every variable of a network to its layer's stored name and its own: `blocks_1/conv2d/kernel`.

    Args:
      spec: the network.
      num_classes: units of the classifier.
      layers: stored name of each of our layers that has variables.

    Raises:
      WeightsError: the network has a layer that no published checkpoint has.
    """
    names = {}
    for path in complexity(spec, num_classes=num_classes).variable_shapes:
        layer, variable = path.split("/")
        if layer not in layers:
            raise WeightsError(f"{spec.name}: no published checkpoint has a layer like {layer}")
        if layer.endswith("_depthwise_conv"):
            variable = "depthwise_kernel"
        names[path] = f"{layers[layer]}/{variable}"
    return names


def open_checkpoint(checkpoint: str | Path) -> StoredWeights:
    """Open a checkpoint: a directory that holds one, or the prefix of one; local or gs://.

    Raises:
      WeightsError: there is no checkpoint, several, or it cannot be read.
    """
    prefix = _checkpoint_prefix(str(checkpoint))
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, RuntimeError, IndexError, ValueError) as error:
        raise WeightsError(f"cannot read {prefix}: {first_line(error)}") from error
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    return StoredWeights(prefix, reader, shapes)


def _what_it_is(path: str) -> str:
    return f", which is {identify(path)}" if tf.io.gfile.exists(path) else ""


def _checkpoint_prefix(checkpoint: str) -> str:
    """Return a prefix as it is, or the latest or only one of a directory."""
    if tf.io.gfile.exists(f"{checkpoint}.index"):
        return checkpoint
    if not tf.io.gfile.isdir(checkpoint):
        raise WeightsError(
            f"no checkpoint at {checkpoint}{_what_it_is(checkpoint)}; expected a directory or a prefix with "
            "a .index file"
        )
    latest = tf.train.latest_checkpoint(checkpoint)
    if latest is not None:
        return latest
    # There may be no `checkpoint` file, or one that names a path of the machine that wrote it.
    indices = tf.io.gfile.glob(f"{checkpoint}/*.index")
    if not indices:
        raise WeightsError(
            f"{checkpoint} holds neither a run nor a checkpoint; expected the folder of one of the two, or "
            "a weights file"
        )
    if len(indices) > 1:
        raise WeightsError(
            f"{checkpoint} holds {len(indices)} checkpoints; give the prefix of one of them"
        )
    return indices[0].removesuffix(".index")

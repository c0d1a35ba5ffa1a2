"""Read and write weights files, Keras' `.weights.h5`, by the names of layers.

Keras itself matches layers by class and order (`layers/conv2d_3/vars/0`), so another class of batch
norm or a missing classifier shifts all of them. It also stores each layer's name; our names are explicit
and stable, so this module matches by name. `model.load_weights` reads the same files.
"""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from efficientnet.builder import build_model
from efficientnet.spec import ModelSpec
from efficientnet.weights.containers import HDF5, identify
from efficientnet.weights.expectations import Expectations
from efficientnet.weights.matching import Weights, WeightsError, require_weights
from system.errors import first_line
from system.files import is_remote, write_bytes

EXTENSION = ".weights.h5"
EXPECTATIONS = "expectations"  # attribute of a file of ours
# The names of a layer's variables by their number, in the order in which Keras numbers them.
VARIABLES: dict[int, tuple[str, ...]] = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}
LayerVariables = Mapping[str, Sequence[Any]]
"""The variables of each layer in Keras' order, by the layer's name."""


def read_weights_file(file: str | Path) -> Weights:
    """Read every layer's variables, without the optimizer's state.

    Args:
      file: `.weights.h5` of a model from `build_model`; local or gs://.

    Returns:
      Arrays by the variable's path.

    Raises:
      WeightsError: the file does not exist, or Keras did not write it.
    """
    return name_variables(read_layers(file))


def read_layers(file: str | Path, content: bytes | None = None) -> LayerVariables:
    """Read the arrays of each layer from any HDF5 file of Keras, by the layer's name.

    Args:
      file: `.weights.h5`, or `.h5` as older versions wrote it; local or gs://.
      content: the HDF5 file inside `file` if that is an archive.

    Raises:
      WeightsError: the file does not exist, or Keras did not write it.
    """
    if content is None and (found := identify(file)) != HDF5:
        raise WeightsError(f"cannot read {file} as a Keras weights file: it is {found}")
    try:
        with h5py.File(_local(str(file)) if content is None else io.BytesIO(content), "r") as h5:
            layers = _read_groups(h5)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"cannot read {file} as a Keras weights file: {first_line(error)}"
        ) from error
    if not layers:
        raise WeightsError(f"{file} names no layers; expected a file that Keras 3 wrote")
    return layers


def name_variables(layers: LayerVariables) -> dict[str, Any]:
    """Return variables by path, `LAYER/gamma`; those of an unknown kind of layer keep their number."""
    return {
        f"{layer}/{name}": variable
        for layer, variables in layers.items()
        for name, variable in zip(
            VARIABLES.get(len(variables), map(str, range(len(variables)))), variables, strict=True
        )
    }


def stored_expectations(file: str | Path) -> Expectations | None:
    """Return what the weights of a file expect; None if it was not written with the weights.

    Raises:
      WeightsError: the file cannot be read.
    """
    try:
        with h5py.File(_local(str(file)), "r") as h5:
            text = h5.attrs.get(EXPECTATIONS)
        return None if text is None else Expectations.from_json(str(text))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {file}: {first_line(error)}") from error


def write_weights_file(
    file: str | Path,
    spec: ModelSpec,
    weights: Weights,
    expectations: Expectations | None = None,
) -> None:
    """Write the weights of a network, with or without classifier; replace an existing file.

    Args:
      file: local name that ends in `.weights.h5`.
      spec: the network.
      weights: arrays by the variable's path.
      expectations: what the weights expect, kept in the file; None if it is not known.

    Raises:
      WeightsError: the weights are not exactly the network's, or the name is remote or has another
        extension.
      OSError: the file cannot be written.
    """
    path = Path(file)
    if not path.name.endswith(EXTENSION):
        raise WeightsError(f"{file} must end in {EXTENSION}")
    if is_remote(str(file)):
        raise WeightsError(f"{file} must be a local file; write it locally, then copy it")
    num_classes = class_count(weights)
    require_weights(weights, spec, num_classes)

    model = build_model(spec, num_classes=num_classes)
    assign_weights(model, weights)
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / path.name  # Keras wants a name with this ending
        model.save_weights(written)
        if expectations:
            with h5py.File(written, "r+") as h5:
                h5.attrs[EXPECTATIONS] = expectations.to_json()
        write_bytes(str(path), written.read_bytes())


def assign_weights(model: Any, weights: Weights) -> None:
    """Set the variables of a model that are in `weights`; keep all others."""
    for variable in model.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])


def class_count(weights: Weights) -> int | None:
    """Return the number of the classifier's units; None if there is no classifier."""
    return len(weights["classifier/bias"]) if "classifier/bias" in weights else None


def _read_groups(h5: h5py.File) -> dict[str, list[np.ndarray]]:
    layers = {}
    if "layers" in h5:  # Keras 3: layers/CLASS_NUMBER/vars has 0, 1, ... and the layer's name
        for group in h5["layers"].values():
            if "vars" in group and "name" in group["vars"].attrs:
                variables = group["vars"]
                arrays = [_read(variables[str(i)]) for i in range(len(variables))]
                layers[variables.attrs["name"]] = arrays
        return layers
    # Keras 2, and `.h5` files to this day: a group for each layer, with its arrays' names.
    for name, group in h5.get("model_weights", h5).items():
        if "weight_names" in group.attrs:
            layers[name] = [_read(group[array]) for array in group.attrs["weight_names"]]
    return layers


def _read(dataset: Any) -> np.ndarray:
    """Return an array; a forged file may describe one that is larger than itself or in another file."""
    if dataset.is_virtual or dataset.external or dataset.nbytes > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} is not stored in the file")
    return np.array(dataset)


def _local(file: str) -> str | io.BytesIO:
    if not is_remote(file):
        return file
    import tensorflow as tf  # only for remote files

    try:
        with tf.io.gfile.GFile(file, "rb") as remote:
            return io.BytesIO(remote.read())
    except tf.errors.OpError as error:
        raise OSError(error.message) from error

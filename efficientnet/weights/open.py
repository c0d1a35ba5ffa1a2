"""Read weights of any known format, recognised by content, with what they expect.

| what | read by |
| --- | --- |
| run folder, or a checkpoint of one | `run` |
| TensorFlow 1 checkpoint of the published code | `tf1` |
| TensorFlow 1 checkpoint of EfficientDet | `efficientdet` |
| TensorFlow 2 checkpoint of V2's script | `tf2` |
| `.weights.h5` and `.keras` of ours | `keras_file` |
| `.h5`, `.weights.h5` and `.keras` of keras.applications | `keras_applications` |
| `.safetensors` and `.pth` of timm | `timm` |
| `.pth` of efficientnet_pytorch and its fork for Lite | `lukemelas` |
| names of published weights, such as `imagenet` | `published` |
"""

import io
import posixpath
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from efficientnet.spec import ModelSpec
from efficientnet.weights import containers
from efficientnet.weights.containers import exists, identify, is_folder, read_bytes
from efficientnet.weights.expectations import Expectations, published_expectations
from efficientnet.weights.keras_applications import from_layers
from efficientnet.weights.keras_file import (
    LayerVariables,
    name_variables,
    read_layers,
    stored_expectations,
)
from efficientnet.weights.lukemelas import from_lukemelas, lukemelas_expectations
from efficientnet.weights.matching import Weights, WeightsError
from efficientnet.weights.published import expected_names, is_published, published_file
from efficientnet.weights.timm import from_timm, timm_expectations
from efficientnet.weights.torch_pickle import read_torch_file

EXPERIMENT = "experiment.yaml"  # in the folder of a run
MOST_NAMES = 3  # in a message


class Opened(NamedTuple):
    """Weights by our paths, and what they expect."""

    weights: Weights
    expectations: Expectations


def open_weights(where: str | Path, spec: ModelSpec, *, raw: bool = False) -> Opened:
    """Read weights of any format that the module lists.

    Args:
      where: a file, a folder or the prefix of a TensorFlow checkpoint, local or gs://; or the name of
        published weights, such as imagenet or hf-hub:timm/tf_efficientnet_b0.in1k, which are downloaded.
      spec: the network that the weights are of.
      raw: whether to read the last weights of a checkpoint that has moving averages too.

    Returns:
      float32 arrays by path, with the classifier that is stored, whatever its number of classes.

    Raises:
      WeightsError: there is nothing, the format is not known, or the arrays are not the network's.
      CheckpointError: a run without a checkpoint.
    """
    path = str(where)
    if is_published(path):
        path = str(published_file(path, spec.name))
    path = _inside(path)
    if not (exists(path) or exists(f"{path}.index")):
        raise WeightsError(f"no weights at {where}; {expected_names(str(where))}")
    found = identify(path)
    if found == containers.CHECKPOINT:
        return _open_checkpoint(path, spec, raw)
    if found not in _READERS:
        raise WeightsError(
            f"{where} is {found}; expected a run, a checkpoint, or a file of Keras, timm or "
            "efficientnet_pytorch"
        )
    if raw:
        raise WeightsError(f"{where} is {found}, which holds one set of weights: leave raw out")
    return _READERS[found](path, spec)


def _inside(where: str) -> str:
    """Return the file of timm in a folder from the Hugging Face hub, or the path itself."""
    if is_folder(where):
        for name in ("model.safetensors", "pytorch_model.bin"):
            if exists(posixpath.join(where, name)):
                return posixpath.join(where, name)
    return where


# -- TensorFlow's checkpoints --------------------------------------------------------------------------


def _open_checkpoint(path: str, spec: ModelSpec, raw: bool) -> Opened:
    from efficientnet.weights.tf_checkpoint import open_checkpoint  # loads TensorFlow

    if exists(posixpath.join(path, EXPERIMENT)):
        return _open_run(path, spec, raw)
    if exists(posixpath.join(path, "saved_model.pb")):
        raise WeightsError(
            f"{path} is a SavedModel, which names no layers. Fix: give the run that it was exported from"
        )
    names = open_checkpoint(path).shapes
    if any(name.startswith("network/") for name in names):
        return _open_run(path, spec, raw)
    if any(name.endswith(".ATTRIBUTES/VARIABLE_VALUE") for name in names):
        from efficientnet.weights.tf2 import read_tf2_checkpoint

        if raw:
            raise WeightsError(f"{path} holds one set of weights: leave raw out")
        weights = read_tf2_checkpoint(path, spec)
        return Opened(weights, published_expectations(spec, "a TensorFlow 2 checkpoint"))
    from efficientnet.weights.efficientdet import is_efficientdet, read_efficientdet_checkpoint
    from efficientnet.weights.tf1 import read_tf1_checkpoint

    if is_efficientdet(names):
        weights = read_efficientdet_checkpoint(path, spec, raw=raw)
        expected = published_expectations(spec, "a checkpoint of EfficientDet")
        return Opened(weights, replace(expected, image_size=None, crop_fraction=None, resize=None))

    weights = read_tf1_checkpoint(path, spec, raw=raw)
    return Opened(weights, published_expectations(spec, "a TensorFlow 1 checkpoint"))


def _open_run(path: str, spec: ModelSpec, raw: bool) -> Opened:
    try:
        from efficientnet.weights.run import open_run
    except ModuleNotFoundError as error:  # the installed package has the networks alone
        raise WeightsError(
            f"{path} is of a run, which the trainer's repository reads. Fix: convert it there with "
            "python -m efficientnet.weights.convert"
        ) from error
    return Opened(*open_run(path, spec, raw=raw))


# -- Keras' files --------------------------------------------------------------------------------------


def _open_hdf5(path: str, spec: ModelSpec) -> Opened:
    return _from_keras(read_layers(path), spec, path, stored_expectations(path))


def _open_keras(path: str, spec: ModelSpec) -> Opened:
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            if archive.getinfo(containers.KERAS_WEIGHTS).compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"{path} is compressed; Keras does not compress its archives")
            content = archive.read(containers.KERAS_WEIGHTS)
    except (zipfile.BadZipFile, EOFError) as error:
        raise WeightsError(f"cannot read {path} as a .keras archive: {error}") from error
    return _from_keras(read_layers(path, content), spec, path, None)


def _from_keras(
    layers: LayerVariables, spec: ModelSpec, path: str, stored: Expectations | None
) -> Opened:
    if "top_conv" in layers or "block1a_project_conv" in layers:
        expected = published_expectations(spec, "a file of keras.applications")
        # The file's normalisation becomes that of the network.
        given = replace(expected, normalization=(spec.mean_rgb, spec.stddev_rgb))
        return Opened(from_layers(layers, spec, path), given)
    return Opened(name_variables(layers), stored or Expectations("a weights file of ours"))


# -- PyTorch's files -----------------------------------------------------------------------------------


def _open_torch(path: str, spec: ModelSpec) -> Opened:
    return _from_tensors(read_torch_file(read_bytes(path), path), spec, path, {})


def _open_safetensors(path: str, spec: ModelSpec) -> Opened:
    from efficientnet.weights.safetensors_file import read_safetensors  # for such files alone

    tensors, metadata = read_safetensors(read_bytes(path), path)
    return _from_tensors(tensors, spec, path, metadata)


def _from_tensors(
    tensors: Mapping[str, np.ndarray], spec: ModelSpec, path: str, metadata: Mapping[str, str]
) -> Opened:
    if "conv_stem.weight" in tensors:
        expected = timm_expectations(path, spec, metadata)
        return Opened(from_timm(tensors, spec, path), expected)
    if "_conv_stem.weight" in tensors:
        return Opened(from_lukemelas(tensors, spec, path), lukemelas_expectations(path, spec))
    if "features.0.0.weight" in tensors:
        raise WeightsError(
            f"{path} is of torchvision, which pads symmetrically; expected timm's tf_{spec.name}"
        )
    names = ", ".join(list(tensors)[:MOST_NAMES])
    raise WeightsError(
        f"{path} holds tensors of another network ({names}, ...); expected timm's or "
        "efficientnet_pytorch's names"
    )


_READERS: Mapping[str, Callable[[str, ModelSpec], Opened]] = {
    containers.HDF5: _open_hdf5,
    containers.KERAS: _open_keras,
    containers.TORCH: _open_torch,
    containers.SAFETENSORS: _open_safetensors,
}

"""Convert the weights of keras.applications' EfficientNets, live or from a file, to ours and back.

The networks differ only in where images are normalised. Ours take normalised images; theirs
take 0..255 and normalise inside, by `Rescaling(1/255)`, `Normalization` and, in a model built with
ImageNet weights, one more `Rescaling`, because the published weights file stores the standard
deviation in place of the variance. EfficientNetV2's normalisation is fixed: that of V1 in the b models,
x / 128 - 1 in the others. A different standard deviation can be folded exactly into the first
convolution; a different mean cannot, because the convolution pads with zeros after the normalisation.

In training the V2 networks of keras.applications differ from the published ones: stochastic depth is
divided by the number of blocks before scaling (the last block of b3 is dropped with .295, not .194), and
dropout is .2 in all of them (.3 in b2, b3 and m, .4 in l).
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from efficientnet.catalog import get_spec
from efficientnet.complexity import complexity
from efficientnet.spec import ModelSpec
from efficientnet.weights.keras_file import (
    LayerVariables,
    class_count,
    name_variables,
    read_layers,
)
from efficientnet.weights.matching import Weights, WeightsError, require_match, require_weights
from system.files import write_bytes

STEM = "stem_conv/kernel"
# What keras.applications has: no b8, l2, v2-xl and Lite.
NAMES = (
    *(f"efficientnet-b{number}" for number in range(8)),
    *(f"efficientnetv2-{name}" for name in ("b0", "b1", "b2", "b3", "s", "m", "l")),
)
# The published files' `Normalization` variance: ImageNet's standard deviation on the scale 0..1.
QUIRKY_VARIANCE = (0.229, 0.224, 0.225)


class Normalization(NamedTuple):
    """(images - mean_rgb) / stddev_rgb for images on the scale 0..255; two arrays [3]."""

    mean_rgb: np.ndarray
    stddev_rgb: np.ndarray


def keras_applications_layers(spec: ModelSpec) -> dict[str, str]:
    """Map the names of our layers that have variables to theirs.

    `block_1_expand_bn` is `block2a_expand_bn`; their variables have the same names and shapes.
    """
    layers = {
        "stem_conv": "stem_conv",
        "stem_bn": "stem_bn",
        "head_conv": "top_conv",
        "head_bn": "top_bn",
        "classifier": "predictions",
    }
    parts = {
        "expand_conv": "expand_conv",
        "expand_bn": "expand_bn",
        "depthwise_conv": "dwconv2" if _is_v2(spec) else "dwconv",
        "depthwise_bn": "bn",
        "se_reduce": "se_reduce",
        "se_expand": "se_expand",
        "project_conv": "project_conv",
        "project_bn": "project_bn",
    }
    for number, stage in enumerate(spec.stages, start=1):
        for repeat, block in enumerate(stage):
            place = f"block{number}{chr(ord('a') + repeat)}"
            layers |= {
                f"{block.name}_{ours}": f"{place}_{theirs}" for ours, theirs in parts.items()
            }
    return layers


def from_keras_applications(source: keras.Model, spec: ModelSpec) -> Weights:
    """Read the weights of a live keras.applications model.

    Args:
      source: EfficientNetB0..B7 or EfficientNetV2B0..B3, S, M, L of keras.applications, with or
        without top.
      spec: the same network of ours.

    Returns:
      Weights with which our network, on images normalised by `spec`, computes the outputs of the
      source on images on the scale 0..255.

    Raises:
      WeightsError: the variables are not the network's, or the source subtracts another mean.
    """
    layers = {
        layer: [np.array(variable) for variable in variables]
        for layer, variables in _network_layers(source).items()
    }
    return _to_ours(layers, normalization(source), spec, f"keras.applications' {source.name}")


def read_keras_applications_file(file: str | Path, spec: ModelSpec) -> Weights:
    """Read a weights file of keras.applications, published or saved.

    Args:
      file: `.h5` (weights or whole model) or `.weights.h5`; local or gs://.
      spec: the same network of ours.

    Returns:
      As `from_keras_applications`. The file does not record whether the model had the additional
      rescaling; it had if the variance is that of the published files, (.229, .224, .225).

    Raises:
      WeightsError: the file does not exist, its variables are not the network's, or the model
        subtracted another mean.
    """
    return from_layers(read_layers(file), spec, str(file))


def from_layers(stored: LayerVariables, spec: ModelSpec, file: str) -> Weights:
    """Convert the arrays of each layer of a file; see `read_keras_applications_file`."""
    layers = dict(stored)
    inside = next((name for name in layers if name.startswith("normalization")), None)
    kept = layers.pop(inside) if inside is not None else []
    if _is_v2(spec):
        # Constants of the code, not of the file.
        fixed = Normalization(*map(np.asarray, (spec.mean_rgb, spec.stddev_rgb)))
        return _to_ours(layers, fixed, spec, file)
    if not kept:
        raise WeightsError(
            f"{file} has no normalization layer; expected a file of keras.applications"
        )
    mean, variance, _ = kept
    quirky = np.allclose(variance, QUIRKY_VARIANCE, atol=1e-6)
    stddev = variance if quirky else np.sqrt(variance)
    return _to_ours(layers, Normalization(mean * 255.0, stddev * 255.0), spec, file)


def to_keras_applications(weights: Weights, spec: ModelSpec, target: keras.Model) -> None:
    """Assign our weights and our normalisation to a live keras.applications model.

    Args:
      weights: arrays by the path of our variable; see `keras_file.read_weights_file`.
      spec: our network.
      target: the same network of keras.applications, with top if there is a classifier. On images
        on the scale 0..255 it then computes the outputs of ours on normalised ones. Functions that
        are already traced, such as `predict`'s, keep the old normalisation.

    Raises:
      WeightsError: the variables are not the network's, or the target's normalisation is fixed and
        subtracts another mean.
    """
    variables = _rename(name_variables(_network_layers(target)), spec)
    require_match(
        {path: array.shape for path, array in weights.items()},
        {path: tuple(variable.shape) for path, variable in variables.items()},
        "this set of weights",
        f"keras.applications' {target.name}",
    )
    if any(
        isinstance(layer, keras.layers.Normalization) and layer.weights for layer in target.layers
    ):
        _set_normalization(target, spec)
    else:
        theirs = normalization(target)
        _require_mean(theirs, spec, f"keras.applications' {target.name}")
        factor = theirs.stddev_rgb / np.asarray(spec.stddev_rgb)
        weights = {**weights, STEM: _fold(weights[STEM], factor)}
    for path, variable in variables.items():
        variable.assign(weights[path])


def write_keras_applications_file(file: str | Path, spec: ModelSpec, weights: Weights) -> None:
    """Write our weights and our normalisation as an `.h5` file of keras.applications.

    `EfficientNetB0(weights=file, classes=...)` and the like load it: theirs have one class or more.

    Args:
      file: to write, atomically; an existing one is replaced.
      spec: our network, of a name that keras.applications has.
      weights: arrays by the path of our variable.

    Raises:
      WeightsError: keras.applications has no such network, the weights are not exactly the network's, or
        the normalisation there is fixed and subtracts another mean.
      OSError: the file cannot be written.
    """
    if spec.name not in NAMES:
        raise WeightsError(f"keras.applications has no {spec.name}; it has {', '.join(NAMES)}")
    require_weights(weights, spec, class_count(weights))
    layers: dict[str, dict[str, np.ndarray]] = {}
    mean, stddev = np.asarray(spec.mean_rgb), np.asarray(spec.stddev_rgb)
    if _is_v2(spec):
        original = get_spec(spec.name)
        fixed = Normalization(*map(np.asarray, (original.mean_rgb, original.stddev_rgb)))
        _require_mean(fixed, spec, "keras.applications")
        weights = {**weights, STEM: _fold(weights[STEM], fixed.stddev_rgb / stddev)}
    else:
        layers["normalization"] = {
            "mean": (mean / 255.0).astype("float32"),
            "variance": ((stddev / 255.0) ** 2).astype("float32"),
            "count": np.zeros((), "int64"),
        }
    theirs = keras_applications_layers(spec)
    for path, array in weights.items():
        layer, variable = path.split("/")
        layers.setdefault(theirs[layer], {})[variable] = array
    write_bytes(str(file), _published_layout(layers))


def _published_layout(layers: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """Return an HDF5 file with a group for each layer, which lists its arrays, as Keras 2 wrote it."""
    content = io.BytesIO()
    with h5py.File(content, "w") as h5:
        h5.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, variables in layers.items():
            group = h5.create_group(layer)
            names = [f"{layer}/{name}:0" for name in variables]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, variables.values(), strict=True):
                group[name] = array
    return content.getvalue()


def normalization(model: keras.Model) -> Normalization:
    """Return the normalisation that a live keras.applications model applies before its first layer."""
    scale, offset = np.ones(3), np.zeros(3)  # images * scale + offset
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = scale * layer.scale, offset * layer.scale + layer.offset
        elif isinstance(layer, keras.layers.Normalization):
            stddev = np.sqrt(np.ravel(layer.variance))
            scale, offset = scale / stddev, (offset - np.ravel(layer.mean)) / stddev
        elif layer.name == "stem_conv":
            break
    return Normalization((0.0 - offset) / scale, 1.0 / scale)


def _to_ours(
    layers: LayerVariables, theirs: Normalization, spec: ModelSpec, source: str
) -> Weights:
    weights: Weights = _rename(name_variables(layers), spec)
    require_match(
        {path: array.shape for path, array in weights.items()},
        complexity(spec, num_classes=class_count(weights)).variable_shapes,
        source,
        spec.name,
    )
    _require_mean(theirs, spec, source)
    weights[STEM] = _fold(weights[STEM], np.asarray(spec.stddev_rgb) / theirs.stddev_rgb)
    return weights


def _fold(kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Multiply the kernel [3, 3, in, out] of the first convolution by a factor for each input."""
    if np.allclose(factor, 1.0, rtol=0, atol=1e-6):  # equal but for float32's rounding
        return kernel
    return kernel * factor[:, None].astype("float32")


def _require_mean(theirs: Normalization, spec: ModelSpec, source: str) -> None:
    if not np.allclose(theirs.mean_rgb, spec.mean_rgb, atol=0.01):
        raise WeightsError(
            f"{source} subtracts a mean of {_format_rgb(theirs.mean_rgb)}, {spec.name} one of "
            f"{_format_rgb(spec.mean_rgb)}. Fix: set the specification's mean_rgb to the source's"
        )


def _is_v2(spec: ModelSpec) -> bool:
    return any(block.block == "fused_mbconv" for block in spec.blocks)


def _rename(named: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """Rename variables to our paths; those that our network lacks keep their names."""
    ours = {theirs: layer for layer, theirs in keras_applications_layers(spec).items()}
    pairs = ((path.split("/"), variable) for path, variable in named.items())
    return {f"{ours.get(layer, layer)}/{name}": variable for (layer, name), variable in pairs}


def _network_layers(model: keras.Model) -> dict[str, list[Any]]:
    """Return the variables of every layer except the normalisation."""
    return {
        layer.name: layer.weights
        for layer in model.layers
        if not isinstance(layer, keras.layers.Normalization)
    }


def _set_normalization(model: keras.Model, spec: ModelSpec) -> None:
    """Set the layer's mean and variance so that the whole model normalises by `spec`."""
    layer = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    mean, variance = np.asarray(spec.mean_rgb) / 255.0, (np.asarray(spec.stddev_rgb) / 255.0) ** 2
    _set_statistics(layer, mean, variance)
    off_by = spec.stddev_rgb / normalization(model).stddev_rgb  # 1 unless another rescaling follows
    _set_statistics(layer, mean, variance * off_by**2)


def _set_statistics(layer: Any, mean: np.ndarray, variance: np.ndarray) -> None:
    layer.set_weights([mean, variance, np.zeros(())])  # the third counts adapted images: unused
    layer.finalize_state()


def _format_rgb(values: Any) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values) + ")"

"""Convert arrays between our layout and PyTorch's, by a map from our names to theirs.

Convolutions are [out, in, height, width] there, depthwise ones [channels, 1, height, width], and the
classifier [classes, features].
"""

from collections.abc import Iterable, Mapping

import numpy as np

from efficientnet.complexity import complexity
from efficientnet.spec import ModelSpec
from efficientnet.weights.matching import Weights, WeightsError, require_match, require_weights

# Names of a layer's variables there; a scale and a kernel have the same.
VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
IGNORED = "num_batches_tracked"


def torch_names(
    spec: ModelSpec, layers: Mapping[str, str], num_classes: int | None
) -> dict[str, str]:
    """Map every variable of a network to its name in PyTorch, by a map of the names of layers.

    Raises:
      WeightsError: a layer of the network is not in `layers`.
    """
    names = {}
    for path in complexity(spec, num_classes=num_classes).variable_shapes:
        layer, variable = path.split("/")
        if layer not in layers:
            raise WeightsError(f"{spec.name}: the PyTorch networks have no layer like {layer}")
        names[path] = f"{layers[layer]}.{VARIABLES[variable]}"
    return names


def from_torch(
    tensors: Mapping[str, np.ndarray],
    spec: ModelSpec,
    layers: Mapping[str, str],
    source: str,
) -> Weights:
    """Convert the tensors of a state dict to our names and layout.

    Args:
      tensors: by their names; counters of batches are ignored.
      spec: the network.
      layers: their names of our layers.
      source: name of the file, for the error.

    Returns:
      float32 arrays by our path, with the classifier that the file has.

    Raises:
      WeightsError: the tensors are not exactly the network's.
    """
    bias = tensors.get(f"{layers['classifier']}.bias")
    num_classes = None if bias is None or bias.ndim != 1 else len(bias)
    names = torch_names(spec, layers, num_classes)
    shapes = complexity(spec, num_classes=num_classes).variable_shapes
    expected = {name: _their_shape(path, shapes[path]) for path, name in names.items()}
    found = {name: array.shape for name, array in tensors.items() if not name.endswith(IGNORED)}
    require_match(found, expected, source, spec.name)
    return {
        path: _contiguous(_to_ours(path, tensors[name]).astype(np.float32))
        for path, name in names.items()
    }


def to_torch(
    weights: Weights, spec: ModelSpec, layers: Mapping[str, str], num_classes: int | None
) -> dict[str, np.ndarray]:
    """Convert our weights to their names and layout; the counters of batches are 0.

    Raises:
      WeightsError: the weights are not exactly the network's.
    """
    names = torch_names(spec, layers, num_classes)
    require_weights(weights, spec, num_classes)
    tensors = {
        name: _contiguous(weights[path].transpose(_axes(path, weights[path].ndim, to_torch=True)))
        for path, name in names.items()
    }
    counters = _batch_norms(names.values())
    return tensors | {f"{layer}.{IGNORED}": np.zeros((), np.int64) for layer in counters}


def _batch_norms(names: Iterable[str]) -> list[str]:
    return [name.removesuffix(".running_var") for name in names if name.endswith(".running_var")]


def _to_ours(path: str, array: np.ndarray) -> np.ndarray:
    return array.transpose(_axes(path, array.ndim, to_torch=False))


def _axes(path: str, rank: int, *, to_torch: bool) -> tuple[int, ...]:
    if rank == 4 and path.endswith("_depthwise_conv/kernel"):
        return (2, 3, 0, 1)  # its own inverse
    if rank == 4:
        return (3, 2, 0, 1) if to_torch else (2, 3, 1, 0)
    return tuple(reversed(range(rank)))


def _their_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _axes(path, len(shape), to_torch=True))


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array)

"""What a network costs, layer by layer, computed from its specification alone: nothing is built.

The functions below mirror those of `blocks` and `builder`; a test holds every layer's name, output
shape and variables to those of the built model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod

from efficientnet.spec import BlockSpec, Include, ModelSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCost:
    """One layer, for one image.

    Attributes:
      name: of the Keras layer.
      output_shape: without the batch: (H, W, C) or (C,).
      weights: shape of every trainable variable, by its name in the layer.
      statistics: the same for batch norm's moving statistics.
      multiply_adds: of convolutions and of the classifier; nothing else is counted, as in the
        paper.
    """

    name: str
    output_shape: Shape
    weights: dict[str, Shape] = field(default_factory=dict)
    statistics: dict[str, Shape] = field(default_factory=dict)
    multiply_adds: int = 0

    def activation_bytes(self, bytes_per_element: int = 4) -> int:
        """Size of the output: 4 bytes an element in float32, 2 in bfloat16 and float16."""
        return prod(self.output_shape) * bytes_per_element


@dataclass(frozen=True)
class Complexity:
    """Costs of a whole network, for one image."""

    layers: tuple[LayerCost, ...]

    @cached_property
    def variable_shapes(self) -> dict[str, Shape]:
        """Shape of every variable by its path, such as `stem_bn/moving_mean`, in Keras' order."""
        return {
            f"{layer.name}/{variable}": shape
            for layer in self.layers
            for variable, shape in {**layer.weights, **layer.statistics}.items()
        }

    @property
    def trainable_parameters(self) -> int:
        """Number of trained values: what papers call parameters."""
        return sum(prod(shape) for layer in self.layers for shape in layer.weights.values())

    @property
    def all_parameters(self) -> int:
        """Number of trained values and of batch norm's moving statistics."""
        return sum(prod(shape) for shape in self.variable_shapes.values())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image: what the paper calls FLOPs."""
        return sum(layer.multiply_adds for layer in self.layers)

    def activation_bytes(self, bytes_per_element: int = 4) -> int:
        """Bytes of all layers' outputs together: an upper bound of what training keeps."""
        return sum(layer.activation_bytes(bytes_per_element) for layer in self.layers)


def complexity(
    spec: ModelSpec,
    *,
    num_classes: int | None = 1000,
    image_size: int | None = None,
    include: Include = "logits",
) -> Complexity:
    """Measures a network without building it.

    Args:
      spec: from `get_spec`.
      num_classes: as in `build_model`.
      image_size: side of the square image in pixels; None means the specification's resolution.
      include: as in `build_model`.

    Returns:
      The costs of one image.
    """
    side = spec.resolution if image_size is None else image_size
    return Complexity(tuple(_network(spec, side, num_classes, include)))


def _network(
    spec: ModelSpec, side: int, num_classes: int | None, include: Include
) -> Iterator[LayerCost]:
    side = ceil(side / 2)
    yield from _conv_bn("stem", 3, 3, spec.stem_filters, side, activation=True)
    for block in spec.blocks:
        yield from BLOCK_COSTS[block.block](block, side)
        side = ceil(side / block.stride)
    if include == "features":
        return

    yield from _conv_bn(
        "head", 1, spec.blocks[-1].output_filters, spec.head_filters, side, activation=True
    )
    yield LayerCost("pooled", (spec.head_filters,))
    if include == "pooled" or num_classes is None:
        return

    if spec.dropout > 0.0:
        yield LayerCost("dropout", (spec.head_filters,))
    kernel = (spec.head_filters, num_classes)
    yield LayerCost(
        "classifier",
        (num_classes,),
        weights={"kernel": kernel, "bias": (num_classes,)},
        multiply_adds=prod(kernel),
    )


def _mbconv(block: BlockSpec, side: int) -> Iterator[LayerCost]:
    name, expanded = block.name, block.expanded_filters
    if block.expand_ratio != 1:
        yield from _conv_bn(
            f"{name}_expand", 1, block.input_filters, expanded, side, activation=True
        )
    side = ceil(side / block.stride)
    kernel = (block.kernel_size, block.kernel_size, expanded, 1)
    yield LayerCost(
        f"{name}_depthwise_conv",
        (side, side, expanded),
        weights={"kernel": kernel},
        multiply_adds=side * side * prod(kernel),
    )
    yield _batch_norm(f"{name}_depthwise_bn", expanded, side)
    yield LayerCost(f"{name}_depthwise_activation", (side, side, expanded))
    if block.squeeze_filters:
        yield from _squeeze_excite(f"{name}_se", expanded, block.squeeze_filters, side)
    yield from _conv_bn(f"{name}_project", 1, expanded, block.output_filters, side)
    if block.has_skip:
        output_shape = (side, side, block.output_filters)
        if block.survival_probability < 1.0:
            yield LayerCost(f"{name}_stochastic_depth", output_shape)
        yield LayerCost(f"{name}_add", output_shape)


def _squeeze_excite(
    name: str, filters: int, squeeze_filters: int, side: int
) -> Iterator[LayerCost]:
    yield LayerCost(f"{name}_squeeze", (1, 1, filters))
    yield _conv(f"{name}_reduce", 1, filters, squeeze_filters, 1, use_bias=True)
    yield LayerCost(f"{name}_activation", (1, 1, squeeze_filters))
    yield _conv(f"{name}_expand", 1, squeeze_filters, filters, 1, use_bias=True)
    yield LayerCost(f"{name}_gate", (1, 1, filters))
    yield LayerCost(f"{name}_excite", (side, side, filters))


def _conv_bn(
    name: str,
    kernel_size: int,
    input_filters: int,
    filters: int,
    side: int,
    *,
    activation: bool = False,
) -> Iterator[LayerCost]:
    yield _conv(f"{name}_conv", kernel_size, input_filters, filters, side)
    yield _batch_norm(f"{name}_bn", filters, side)
    if activation:
        yield LayerCost(f"{name}_activation", (side, side, filters))


def _conv(
    name: str,
    kernel_size: int,
    input_filters: int,
    filters: int,
    side: int,
    *,
    use_bias: bool = False,
) -> LayerCost:
    kernel = (kernel_size, kernel_size, input_filters, filters)
    return LayerCost(
        name,
        (side, side, filters),
        weights={"kernel": kernel} | ({"bias": (filters,)} if use_bias else {}),
        multiply_adds=side * side * prod(kernel),
    )


def _batch_norm(name: str, filters: int, side: int) -> LayerCost:
    return LayerCost(
        name,
        (side, side, filters),
        weights={"gamma": (filters,), "beta": (filters,)},
        statistics={"moving_mean": (filters,), "moving_variance": (filters,)},
    )


# One entry for every kind in `blocks.BLOCKS`.
BLOCK_COSTS: dict[str, Callable[[BlockSpec, int], Iterator[LayerCost]]] = {"mbconv": _mbconv}

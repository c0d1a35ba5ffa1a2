"""Compute the cost of a network, layer by layer, from its specification without building it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from efficientnet.blocks import IMAGES, Node
from efficientnet.layer_kinds import Endpoint, LayerCost, Shape
from efficientnet.network import network_layers
from efficientnet.spec import IMAGE_CHANNELS, Include, ModelSpec, Size, height_width


@dataclass(frozen=True)
class Complexity:
    """The cost of a whole network, for one image."""

    layers: tuple[LayerCost, ...]

    @cached_property
    def variable_shapes(self) -> dict[str, Shape]:
        """The shape of every variable by its path, such as `stem_bn/moving_mean`, in Keras' order."""
        return {
            f"{layer.name}/{variable}": shape
            for layer in self.layers
            for variable, shape in {**layer.weights, **layer.statistics}.items()
        }

    @property
    def trainable_parameters(self) -> int:
        """The number of trained values, which papers call parameters."""
        return self.trained_parameters()

    def trained_parameters(self, frozen: Collection[str] = ()) -> int:
        """Return the number of trained values without those of the variables at the paths `frozen`."""
        return sum(
            prod(shape)
            for layer in self.layers
            for name, shape in layer.weights.items()
            if f"{layer.name}/{name}" not in frozen
        )

    @property
    def all_parameters(self) -> int:
        """The number of trained values and of batch norm's moving statistics."""
        return sum(prod(shape) for shape in self.variable_shapes.values())

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of one image, which the paper calls FLOPs."""
        return sum(layer.multiply_adds for layer in self.layers)

    def training_multiply_adds(self, frozen: Collection[str] = ()) -> int:
        """Return the multiply-adds of a training step for one image.

        The forward pass, the gradient of the weights of each layer that trains, and the gradient of the
        inputs of each layer above the first one that trains.

        Args:
          frozen: paths of the variables that do not train.
        """
        total, below_trains = self.multiply_adds, False
        for layer in self.layers:
            trains = layer.trains(frozen)
            total += layer.multiply_adds * (trains + below_trains)
            below_trains |= trains
        return total

    def activation_bytes(self, bytes_per_element: int = 4, frozen: Collection[str] = ()) -> int:
        """Return an upper bound of the bytes of one image's activations that a training step holds at a time.

        From the first layer that trains on, every output is kept for the backward pass, and so is what these
        layers read. Below it, an output is held until the last layer that reads it has run.

        Args:
          bytes_per_element: 4 in float32, 2 in 16-bit types.
          frozen: paths of the variables that do not train.
        """
        held, largest, keeps = 0, 0, False
        for layer in self.layers:
            keeps |= layer.trains(frozen)
            held += layer.activation_bytes(bytes_per_element)
            largest = max(largest, held)
            if not keeps:
                held -= layer.released_elements * bytes_per_element
        return largest


def complexity(
    spec: ModelSpec,
    *,
    num_classes: int | None = 1000,
    image_size: Size | None = None,
    include: Include = "logits",
) -> Complexity:
    """Compute the cost of a network without building it.

        >>> from efficientnet import get_spec
        >>> f"{complexity(get_spec('efficientnet-b0')).multiply_adds:,}"
        '385,814,752'

    Args:
      spec: from `get_spec`.
      num_classes: as in `build_model`.
      image_size: side of the square image or (height, width), in pixels; None means the
        specification's resolution.
      include: as in `build_model`.

    Returns:
      The cost for one image.

    Raises:
      SpecError: a block is of an unknown kind.
    """
    size = spec.resolution if image_size is None else image_size
    return count(network_layers(spec, num_classes=num_classes, include=include), size)


def count(nodes: Iterable[Node], image_size: Size) -> Complexity:
    """Compute the cost of a list of layers; a layer that is used several times has its variables once.

    Args:
      nodes: in the order in which they are built.
      image_size: side of the square image or (height, width), in pixels.
    """
    shapes: dict[str, Shape] = {IMAGES: (*height_width(image_size), IMAGE_CHANNELS)}
    costs: list[LayerCost] = []
    seen = set[str]()
    computed = _without_endpoints(nodes)
    last_reader = {name: place for place, node in enumerate(computed) for name in node.inputs}
    for place, (layer, inputs, output) in enumerate(computed):
        cost = layer.cost(*(shapes[name] for name in inputs))
        shapes[output] = cost.output_shape
        if layer.name in seen:
            cost = replace(cost, weights={}, statistics={})
        seen.add(layer.name)
        released = {name for name in inputs if last_reader[name] == place} - {IMAGES}
        costs.append(replace(cost, released_elements=sum(prod(shapes[name]) for name in released)))
    return Complexity(tuple(costs))


def _without_endpoints(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes that compute something; readers of an endpoint read the tensor that it names."""
    named: dict[str, str] = {}
    computed = []
    for node in nodes:
        inputs = tuple(named.get(name, name) for name in node.inputs)
        if isinstance(node.layer, Endpoint):
            named[node.output] = inputs[0]
        else:
            computed.append(node._replace(inputs=inputs))
    return computed

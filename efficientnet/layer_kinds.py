"""The kinds of layers, each with its Keras layer, its output shape and its cost.

A block lists layers of these kinds once (see `blocks`); `builder` creates Keras layers from the list and
`complexity` adds up their costs.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Literal

import keras

from efficientnet.layers import (
    BatchNormFactory,
    Dropout,
    NearestUpsampling,
    StochasticDepth,
    UniformNoise,
    conv_initializer,
    dense_initializer,
)
from efficientnet.spec import HeadPooling

Shape = tuple[int, ...]
"""Shape of one image's tensor, without the batch: (H, W, C) or (C,)."""
ConvPadding = Literal["same", "valid"]


@dataclass(frozen=True)
class BuildOptions:
    """The options that all Keras layers of one network share.

    Attributes:
      dtype: Keras dtype policy of every layer.
      batch_norm: creates batch norm layers.
      uniform: source of noise for dropout and stochastic depth, or None for Keras' own.
    """

    dtype: str
    batch_norm: BatchNormFactory
    uniform: UniformNoise | None


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer, for one image.

    Attributes:
      name: name of the Keras layer.
      output_shape: without the batch: (H, W, C) or (C,).
      weights: shape of every trainable variable, by its name in the layer.
      statistics: the same for batch norm's moving statistics.
      multiply_adds: of convolutions and of the classifier; nothing else is counted, as in the
        paper.
      released_elements: of the outputs of other layers whose last reader it is.
    """

    name: str
    output_shape: Shape
    weights: dict[str, Shape] = field(default_factory=dict)
    statistics: dict[str, Shape] = field(default_factory=dict)
    multiply_adds: int = 0
    released_elements: int = 0

    def trains(self, frozen: Collection[str]) -> bool:
        """Return whether it has a trainable variable whose path is not among `frozen`."""
        return any(f"{self.name}/{name}" not in frozen for name in self.weights)

    def activation_bytes(self, bytes_per_element: int = 4) -> int:
        """Return the size of the output: 4 bytes an element in float32, 2 in 16-bit types."""
        return prod(self.output_shape) * bytes_per_element


@dataclass(frozen=True)
class LayerKind:
    """A layer as data. By default it keeps the shape of its first input and costs nothing."""

    name: str

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer, which is called with one tensor or a list of several."""
        raise NotImplementedError

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost of the layer on inputs of these shapes."""
        return LayerCost(self.name, inputs[0])


@dataclass(frozen=True)
class Pad(LayerKind):
    """Zeros around the image: (H, W, C) -> (H + 2 pixels, W + 2 pixels, C)."""

    pixels: int

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.ZeroPadding2D(self.pixels, dtype=options.dtype, name=self.name)

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        height, width, channels = inputs[0]
        return LayerCost(self.name, (height + 2 * self.pixels, width + 2 * self.pixels, channels))


@dataclass(frozen=True)
class Conv(LayerKind):
    """Convolution, by default with 'same' padding: (H, W, C) -> (H/stride, W/stride, filters)."""

    filters: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = False
    padding: ConvPadding = "same"
    initializer: Callable[[], keras.initializers.Initializer] = conv_initializer
    dtype: str | None = None  # None: the network's policy

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Conv2D(
            self.filters,
            self.kernel_size,
            strides=self.stride,
            padding=self.padding,
            use_bias=self.use_bias,
            kernel_initializer=self.initializer(),
            dtype=self.dtype or options.dtype,
            name=self.name,
        )

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost; a bias adds no multiplication."""
        height, width, channels = _conv_shape(self, inputs[0])
        kernel = (self.kernel_size, self.kernel_size, channels, self.filters)
        return LayerCost(
            self.name,
            (height, width, self.filters),
            weights={"kernel": kernel} | ({"bias": (self.filters,)} if self.use_bias else {}),
            multiply_adds=height * width * prod(kernel),
        )


@dataclass(frozen=True)
class DepthwiseConv(LayerKind):
    """Convolution of each filter by itself: (H, W, C) -> (H/stride, W/stride, C)."""

    kernel_size: int
    stride: int = 1
    padding: ConvPadding = "same"

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.DepthwiseConv2D(
            self.kernel_size,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            depthwise_initializer=conv_initializer(),
            dtype=options.dtype,
            name=self.name,
        )

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        height, width, channels = shape = _conv_shape(self, inputs[0])
        kernel = (self.kernel_size, self.kernel_size, channels, 1)
        return LayerCost(
            self.name,
            shape,
            weights={"kernel": kernel},
            multiply_adds=height * width * prod(kernel),
        )


@dataclass(frozen=True)
class BatchNorm(LayerKind):
    """Batch norm over the last axis; keeps the shape."""

    momentum: float
    epsilon: float

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the layer with the network's factory."""
        return options.batch_norm(
            name=self.name, momentum=self.momentum, epsilon=self.epsilon, dtype=options.dtype
        )

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        filters = inputs[0][-1:]
        return LayerCost(
            self.name,
            inputs[0],
            weights={"gamma": filters, "beta": filters},
            statistics={"moving_mean": filters, "moving_variance": filters},
        )


@dataclass(frozen=True)
class Activation(LayerKind):
    """An activation by its name in Keras; keeps the shape."""

    function: str

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Activation(self.function, name=self.name, dtype=options.dtype)


_GLOBAL_POOLING: Mapping[HeadPooling, type[keras.Layer]] = {
    "average": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}


@dataclass(frozen=True)
class GlobalPooling(LayerKind):
    """Pooling over the whole feature map: (H, W, C) -> (C,), or (1, 1, C) with `keepdims`."""

    pooling: HeadPooling = "average"
    keepdims: bool = False

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return _GLOBAL_POOLING[self.pooling](
            keepdims=self.keepdims, dtype=options.dtype, name=self.name
        )

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        filters = inputs[0][-1]
        return LayerCost(self.name, (1, 1, filters) if self.keepdims else (filters,))


@dataclass(frozen=True)
class MaxPooling(LayerKind):
    """3x3 max pooling of stride 2 with 'same' padding: (H, W, C) -> (H/2, W/2, C)."""

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.MaxPooling2D(
            3, strides=2, padding="same", dtype=options.dtype, name=self.name
        )

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        return LayerCost(self.name, _strided_shape(inputs[0], 2))


@dataclass(frozen=True)
class Multiply(LayerKind):
    """The first input times the second, which broadcasts."""

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Multiply(name=self.name, dtype=options.dtype)


@dataclass(frozen=True)
class Add(LayerKind):
    """The sum of inputs of one shape."""

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Add(name=self.name, dtype=options.dtype)


@dataclass(frozen=True)
class Concatenate(LayerKind):
    """The channels of all inputs, which have one height and width."""

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Concatenate(name=self.name, dtype=options.dtype)

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        height, width, _ = inputs[0]
        return LayerCost(self.name, (height, width, sum(shape[-1] for shape in inputs)))


@dataclass(frozen=True)
class NearestUpsample(LayerKind):
    """Enlargement of the first input to the nearest pixels, cropped to the size of the second."""

    factor: int

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return NearestUpsampling(self.factor, name=self.name, dtype=options.dtype)

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        (_, _, channels), (height, width, _) = inputs
        return LayerCost(self.name, (height, width, channels))


@dataclass(frozen=True)
class DropBranch(LayerKind):
    """Stochastic depth; `index` numbers the network's random layers."""

    survival_probability: float
    index: int

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return StochasticDepth(
            self.survival_probability,
            index=self.index,
            uniform=options.uniform,
            dtype=options.dtype,
            name=self.name,
        )


@dataclass(frozen=True)
class DropElements(LayerKind):
    """Dropout; `index` numbers the network's random layers."""

    rate: float
    index: int

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return Dropout(
            self.rate,
            index=self.index,
            uniform=options.uniform,
            dtype=options.dtype,
            name=self.name,
        )


@dataclass(frozen=True)
class Endpoint(LayerKind):
    """A name for an output of the network; computes nothing, and `complexity` does not list it."""

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Identity(name=self.name, dtype=options.dtype)


@dataclass(frozen=True)
class Dense(LayerKind):
    """The classifier: (C,) -> (units,), in float32 under every policy.

    Softmax and cross entropy need the precision.
    """

    units: int

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Dense(
            self.units,
            kernel_initializer=dense_initializer(self.units),
            dtype="float32",
            name=self.name,
        )

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        kernel = (inputs[0][-1], self.units)
        return LayerCost(
            self.name,
            (self.units,),
            weights={"kernel": kernel, "bias": (self.units,)},
            multiply_adds=prod(kernel),
        )


def _conv_shape(layer: Conv | DepthwiseConv, shape: Shape) -> Shape:
    height, width, channels = shape
    if layer.padding == "valid":
        height, width = height - layer.kernel_size + 1, width - layer.kernel_size + 1
    return _strided_shape((height, width, channels), layer.stride)


def _strided_shape(shape: Shape, stride: int) -> Shape:
    height, width, channels = shape
    return ceil(height / stride), ceil(width / stride), channels

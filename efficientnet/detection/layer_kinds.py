"""The kinds of layers that only detectors have; see `efficientnet.layer_kinds`."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import keras

from efficientnet.detection.layers import FastFusion
from efficientnet.layer_kinds import BuildOptions, LayerCost, LayerKind, Shape


@dataclass(frozen=True)
class SeparableConv(LayerKind):
    """3x3 depthwise, then directly a 1x1 convolution with bias: (H, W, C) -> (H, W, filters).

    Attributes:
      filters: of the output.
      initializer: of both kernels, as published: "glorot_uniform" in the BiFPN, in the heads
        "variance_scaling" (Keras' default: truncated normal of variance 1 / fan_in).
      bias: initial value of the bias.
    """

    filters: int
    initializer: Literal["glorot_uniform", "variance_scaling"]
    bias: float = 0.0

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.SeparableConv2D(
            self.filters,
            3,
            padding="same",
            depthwise_initializer=self.initializer,
            pointwise_initializer=self.initializer,
            bias_initializer=keras.initializers.Constant(self.bias),
            dtype=options.dtype,
            name=self.name,
        )

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        height, width, channels = inputs[0]
        kernels = {
            "depthwise_kernel": (3, 3, channels, 1),
            "pointwise_kernel": (1, 1, channels, self.filters),
        }
        return LayerCost(
            self.name,
            (height, width, self.filters),
            weights={**kernels, "bias": (self.filters,)},
            multiply_adds=height * width * sum(map(prod, kernels.values())),
        )


@dataclass(frozen=True)
class Fuse(LayerKind):
    """The average of inputs of one shape with learned weights."""

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return FastFusion(dtype=options.dtype, name=self.name)

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost; only convolutions count."""
        return LayerCost(
            self.name, inputs[0], weights={f"weight_{i}": () for i in range(len(inputs))}
        )


@dataclass(frozen=True)
class PerAnchor(LayerKind):
    """The outputs of a level by anchor: (H, W, anchors * values) -> (H * W * anchors, values)."""

    values: int

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Reshape((-1, self.values), dtype=options.dtype, name=self.name)

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        return LayerCost(self.name, (prod(inputs[0]) // self.values, self.values))


@dataclass(frozen=True)
class JoinLevels(LayerKind):
    """The outputs of all levels one after the other, in float32 under every policy.

    Losses and the decoding of boxes need the precision.
    """

    def make(self, options: BuildOptions) -> keras.Layer:
        """Create the Keras layer."""
        return keras.layers.Concatenate(axis=1, dtype="float32", name=self.name)

    def cost(self, *inputs: Shape) -> LayerCost:
        """Return the cost."""
        return LayerCost(self.name, (sum(shape[0] for shape in inputs), inputs[0][1]))

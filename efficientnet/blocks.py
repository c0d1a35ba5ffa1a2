"""The building blocks, from the small to the large: convolutions, squeeze-and-excite, MBConv."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from efficientnet.layers import (
    BatchNormFactory,
    StochasticDepth,
    UniformNoise,
    conv_initializer,
)
from efficientnet.spec import BlockSpec, ModelSpec


@dataclass(frozen=True)
class Style:
    """What all blocks of one network share.

    Attributes:
      spec: of the network; gives activation and batch norm's constants.
      dtype: Keras dtype policy of every layer.
      batch_norm: makes batch norm layers.
      uniform: source of noise for stochastic depth, or None for Keras' own.
    """

    spec: ModelSpec
    dtype: str
    batch_norm: BatchNormFactory
    uniform: UniformNoise | None

    def normalize(self, x: Any, name: str) -> Any:
        """Batch norm."""
        return self.batch_norm(
            name=name,
            momentum=self.spec.batch_norm_momentum,
            epsilon=self.spec.batch_norm_epsilon,
            dtype=self.dtype,
        )(x)

    def activate(self, x: Any, name: str) -> Any:
        """The network's activation."""
        return keras.layers.Activation(self.spec.activation, name=name, dtype=self.dtype)(x)


def conv(
    x: Any,
    filters: int,
    kernel_size: int,
    style: Style,
    name: str,
    *,
    stride: int = 1,
    use_bias: bool = False,
) -> Any:
    """'Same' padding: [batch, H, W, C] -> [batch, H/stride, W/stride, filters]."""
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=use_bias,
        kernel_initializer=conv_initializer(),
        dtype=style.dtype,
        name=name,
    )(x)


def depthwise_conv(x: Any, kernel_size: int, style: Style, name: str, *, stride: int = 1) -> Any:
    """Each filter by itself: [batch, H, W, C] -> [batch, H/stride, W/stride, C]."""
    return keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=conv_initializer(),
        dtype=style.dtype,
        name=name,
    )(x)


def squeeze_excite(x: Any, squeeze_filters: int, style: Style, name: str) -> Any:
    """Gates each filter by what the whole image shows (arXiv 1709.01507); keeps the shape.

    The only two convolutions of the network that have a bias.
    """
    gate = keras.layers.GlobalAveragePooling2D(
        keepdims=True, dtype=style.dtype, name=f"{name}_squeeze"
    )(x)  # [batch, 1, 1, C]
    gate = conv(gate, squeeze_filters, 1, style, f"{name}_reduce", use_bias=True)
    gate = style.activate(gate, f"{name}_activation")
    gate = conv(gate, x.shape[-1], 1, style, f"{name}_expand", use_bias=True)
    gate = keras.layers.Activation("sigmoid", name=f"{name}_gate", dtype=style.dtype)(gate)
    return keras.layers.Multiply(name=f"{name}_excite", dtype=style.dtype)([x, gate])


def mbconv(inputs: Any, block: BlockSpec, style: Style) -> Any:
    """Mobile inverted bottleneck: expand 1x1, depthwise k x k, squeeze-excite, project 1x1, skip.

    [batch, H, W, input_filters] -> [batch, H/stride, W/stride, output_filters].
    """
    x, name = inputs, block.name
    if block.expand_ratio != 1:
        x = conv(x, block.expanded_filters, 1, style, f"{name}_expand_conv")
        x = style.normalize(x, f"{name}_expand_bn")
        x = style.activate(x, f"{name}_expand_activation")

    x = depthwise_conv(x, block.kernel_size, style, f"{name}_depthwise_conv", stride=block.stride)
    x = style.normalize(x, f"{name}_depthwise_bn")
    x = style.activate(x, f"{name}_depthwise_activation")

    if block.squeeze_filters:
        x = squeeze_excite(x, block.squeeze_filters, style, f"{name}_se")

    x = conv(x, block.output_filters, 1, style, f"{name}_project_conv")
    x = style.normalize(x, f"{name}_project_bn")
    return residual(x, inputs, block, style)


def residual(branch: Any, inputs: Any, block: BlockSpec, style: Style) -> Any:
    """Adds the block's input where it has a skip; in training the branch may be left out."""
    if not block.has_skip:
        return branch
    if block.survival_probability < 1.0:
        branch = StochasticDepth(
            block.survival_probability,
            index=block.index,
            uniform=style.uniform,
            dtype=style.dtype,
            name=f"{block.name}_stochastic_depth",
        )(branch)
    return keras.layers.Add(name=f"{block.name}_add", dtype=style.dtype)([branch, inputs])


# The kinds that a StageSpec may name.
BLOCKS: dict[str, Callable[[Any, BlockSpec, Style], Any]] = {"mbconv": mbconv}

"""The building blocks, each written once: squeeze-and-excite, MBConv, Fused-MBConv, shortcuts.

A block is a function that adds its layers to a `Layers` and returns the name of the last. Keras
layers, variables, multiply-adds and activations all follow from that list.
"""

from collections.abc import Callable
from typing import NamedTuple

from efficientnet.layer_kinds import (
    Activation,
    Add,
    BatchNorm,
    Conv,
    ConvPadding,
    DepthwiseConv,
    DropBranch,
    GlobalPooling,
    LayerKind,
    Multiply,
    Pad,
)
from efficientnet.spec import BlockSpec, ModelSpec

IMAGES = "images"
"""Name of the network's input."""


class Node(NamedTuple):
    """One use of a layer: the tensors that feed it, and the name of what it computes.

    Nodes of the same layer share its variables.
    """

    layer: LayerKind
    inputs: tuple[str, ...]
    output: str


class Layers:
    """The layers of one network, in the order in which they are built.

    Attributes:
      spec: specification of the network; it has the activation, batch norm's constants and the survival
        probabilities.
      nodes: the layers added so far.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.nodes: list[Node] = []

    def add(self, layer: LayerKind, *inputs: str, output: str | None = None) -> str:
        """Add a layer that is fed by `inputs`; return the name of its output.

        Args:
          layer: one that was added before is used again, with the same variables.
          inputs: names of tensors.
          output: name of the result; the layer's own unless the layer is used several times.
        """
        node = Node(layer, inputs, output or layer.name)
        self.nodes.append(node)
        return node.output

    def normalize(self, x: str, name: str) -> str:
        """Add batch norm."""
        spec = self.spec
        return self.add(BatchNorm(name, spec.batch_norm_momentum, spec.batch_norm_epsilon), x)

    def activate(self, x: str, name: str) -> str:
        """Add the network's activation."""
        return self.add(Activation(name, self.spec.activation), x)

    def pad(self, x: str, name: str, kernel_size: int, stride: int) -> tuple[str, ConvPadding]:
        """Add the padding of a convolution where it is a layer; return what to convolve, and how."""
        if self.spec.padding == "same" or stride == 1 or kernel_size == 1:
            return x, "same"
        return self.add(Pad(f"{name}_pad", (kernel_size - 1) // 2), x), "valid"

    def conv(self, x: str, name: str, filters: int, kernel_size: int, stride: int = 1) -> str:
        """Add a convolution and batch norm: `name`_conv, `name`_bn."""
        x, padding = self.pad(x, name, kernel_size, stride)
        x = self.add(Conv(f"{name}_conv", filters, kernel_size, stride, padding=padding), x)
        return self.normalize(x, f"{name}_bn")

    def conv_activation(
        self, x: str, name: str, filters: int, kernel_size: int, stride: int = 1
    ) -> str:
        """Add a convolution, batch norm and the activation."""
        return self.activate(self.conv(x, name, filters, kernel_size, stride), f"{name}_activation")


def squeeze_excite(layers: Layers, x: str, block: BlockSpec) -> str:
    """Scale each filter by a gate computed from the whole image (arXiv 1709.01507); keep the shape.

    The only convolutions of a network that have a bias.
    """
    if not block.squeeze_filters:
        return x
    name = f"{block.name}_se"
    gate = layers.add(GlobalPooling(f"{name}_squeeze", keepdims=True), x)
    gate = layers.add(Conv(f"{name}_reduce", block.squeeze_filters, 1, use_bias=True), gate)
    gate = layers.activate(gate, f"{name}_activation")
    gate = layers.add(Conv(f"{name}_expand", block.inner_filters, 1, use_bias=True), gate)
    gate = layers.add(Activation(f"{name}_gate", "sigmoid"), gate)
    return layers.add(Multiply(f"{name}_excite"), x, gate)


def mbconv(layers: Layers, inputs: str, block: BlockSpec) -> str:
    """Mobile inverted bottleneck: expand 1x1, depthwise k x k, squeeze-excite, project 1x1.

    (H, W, input_filters) -> (H/stride, W/stride, output_filters).
    """
    x, name = inputs, block.name
    if block.expanded_filters is not None:
        x = layers.conv_activation(x, f"{name}_expand", block.expanded_filters, 1)
    x, padding = layers.pad(x, f"{name}_depthwise", block.kernel_size, block.stride)
    depthwise = DepthwiseConv(f"{name}_depthwise_conv", block.kernel_size, block.stride, padding)
    x = layers.normalize(layers.add(depthwise, x), f"{name}_depthwise_bn")
    x = layers.activate(x, f"{name}_depthwise_activation")
    x = squeeze_excite(layers, x, block)
    x = layers.conv(x, f"{name}_project", block.output_filters, 1)
    return add_shortcut(layers, x, inputs, block)


def fused_mbconv(layers: Layers, inputs: str, block: BlockSpec) -> str:
    """Fused-MBConv (arXiv 2104.00298): expand k x k, squeeze-excite, project 1x1.

    Without an expansion it is one k x k convolution with batch norm and activation, as published.
    (H, W, input_filters) -> (H/stride, W/stride, output_filters).
    """
    x, name = inputs, block.name
    if block.expanded_filters is None:
        x = squeeze_excite(layers, x, block)
        x = layers.conv_activation(
            x, f"{name}_project", block.output_filters, block.kernel_size, block.stride
        )
    else:
        x = layers.conv_activation(
            x, f"{name}_expand", block.expanded_filters, block.kernel_size, block.stride
        )
        x = squeeze_excite(layers, x, block)
        x = layers.conv(x, f"{name}_project", block.output_filters, 1)
    return add_shortcut(layers, x, inputs, block)


def add_shortcut(layers: Layers, branch: str, inputs: str, block: BlockSpec) -> str:
    """Add the block's input to its branch; training drops the branch at random."""
    if block.shortcut == "none":
        return branch
    survival_probability = layers.spec.block_survival_probability(block.index)
    if survival_probability < 1.0:
        drop = DropBranch(f"{block.name}_stochastic_depth", survival_probability, block.index)
        branch = layers.add(drop, branch)
    if block.shortcut == "projection":
        inputs = layers.conv(
            inputs, f"{block.name}_shortcut", block.output_filters, 1, block.stride
        )
    return layers.add(Add(f"{block.name}_add"), branch, inputs)


# The kinds that a BlockSpec may name.
BLOCKS: dict[str, Callable[[Layers, str, BlockSpec], str]] = {
    "mbconv": mbconv,
    "fused_mbconv": fused_mbconv,
}

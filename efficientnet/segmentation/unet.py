"""U-Net (arXiv 1505.04597) on a backbone's feature maps, one decoder for every family.

Two forms, after two published libraries:

- "reductions": from the last block, without the head, up to the image, with the output of the last block
  at each stride as skip connection, as in segmentation_models.pytorch 0.5, commit 5006616. Deviations: that
  library takes the stem's output at stride 2 (here: reduction_1), and for B0 the first block of three at
  stride 16 (here: the last, as the library does for B1 to B7).
- "expanded": from the head's convolution, with the expanded maps before each strided depthwise
  convolution as skip connections, as in segmentation_models, commit 5d24bbf. For a block without expansion
  before its strided convolution (Fused-MBConv, expand ratio 1), its input is the skip connection.

Both take any image size: maps are enlarged to the nearest pixels of twice the size and cropped to the size
of the skip connection. segmentation_models needs multiples of 32, for which the two agree.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

import keras

from efficientnet.blocks import IMAGES, Layers, Node
from efficientnet.layer_kinds import Activation, Concatenate, Conv, NearestUpsample
from efficientnet.network import backbone_layers
from efficientnet.spec import ModelSpec, SpecError

Skips = Literal["reductions", "expanded"]

FILTERS = (256, 128, 64, 32, 16)
LOGITS = "segmentation_logits"


@dataclass(frozen=True)
class UNet:
    """A decoder.

    Attributes:
      filters: of each block, coarsest first; one block for each time that the backbone halves the image,
        five in the published models.
      skips: the backbone's feature maps that it takes; see above.
    """

    filters: tuple[int, ...] = FILTERS
    skips: Skips = "reductions"


def unet_layers(spec: ModelSpec, decoder: UNet, num_classes: int) -> tuple[Node, ...]:
    """List the layers of a U-Net in the order in which they are built; the last gives the logits.

    Each block enlarges, concatenates the skip connection if there is one, and has two 3x3 convolutions with
    batch norm and relu, or relu6 if the backbone has it, as Lite does for 8 bits. The last convolution, in
    float32 under every policy, gives [H, W, num_classes].

    Args:
      spec: the backbone.
      decoder: the decoder.
      num_classes: channels of the result.

    Raises:
      SpecError: the decoder has another number of blocks than the backbone has strides, or a block of the
        backbone is of an unknown kind.
    """
    strides = _strides(spec)
    if len(decoder.filters) != len(strides):
        raise SpecError(
            f"the decoder has filters {list(decoder.filters)}, but {spec.name} has {len(strides)} strides: "
            f"expected {len(strides)} numbers"
        )
    layers, x = backbone_layers(spec)
    if decoder.skips == "expanded" and spec.head.filters is not None:
        x = layers.conv_activation(x, "head", spec.head.filters, spec.head.kernel_size)
    skips = [*reversed(_skips(spec, decoder.skips)), None]
    rows = zip(decoder.filters, skips, reversed(strides), strict=True)
    for number, (filters, skip, stride) in enumerate(rows):
        name = f"decoder_{number}"
        if stride > 1:
            x = layers.add(NearestUpsample(f"{name}_upsample", stride), x, skip or IMAGES)
        if skip is not None:
            x = layers.add(Concatenate(f"{name}_concatenate"), x, skip)
        for part in ("a", "b"):
            x = _conv_activation(layers, x, f"{name}_{part}", filters)
    layers.add(
        Conv(
            LOGITS,
            num_classes,
            3,
            use_bias=True,
            initializer=keras.initializers.GlorotUniform,
            dtype="float32",
        ),
        x,
    )
    return tuple(layers.nodes)


def _conv_activation(layers: Layers, x: str, name: str, filters: int) -> str:
    x = layers.add(Conv(f"{name}_conv", filters, 3, initializer=keras.initializers.HeUniform), x)
    x = layers.normalize(x, f"{name}_bn")
    activation = "relu6" if layers.spec.activation == "relu6" else "relu"
    return layers.add(Activation(f"{name}_activation", activation), x)


def _strides(spec: ModelSpec) -> tuple[int, ...]:
    """Return the stride of each map relative to the one before, from the image to the last block."""
    *others, _ = spec.reductions
    stem = spec.stem.stride * (2 if spec.stem.pooling == "max" else 1) if spec.stem else 1
    to_first = stem * prod(block.stride for block in spec.blocks[: spec.reductions[0] + 1])
    return (to_first, *(spec.blocks[index + 1].stride for index in others))


def _skips(spec: ModelSpec, skips: Skips) -> tuple[str, ...]:
    """Return the names of the layers of all maps but the coarsest, finest first."""
    names = []
    for number, index in enumerate(spec.reductions[:-1], start=1):
        block = spec.blocks[index + 1]
        expands = block.block == "mbconv" and block.expanded_filters is not None
        if skips == "expanded" and expands:
            names.append(f"{block.name}_expand_activation")
        else:
            names.append(f"reduction_{number}")
    return tuple(names)

"""Build a detector: a backbone, the BiFPN, and the heads."""

import keras

from efficientnet.blocks import Node
from efficientnet.builder import build_network
from efficientnet.complexity import Complexity, count
from efficientnet.detection.bifpn import bifpn
from efficientnet.detection.catalog import DetectorSpec
from efficientnet.detection.heads import box_head, class_head
from efficientnet.layers import BatchNormFactory, UniformNoise
from efficientnet.network import backbone_layers
from efficientnet.spec import ModelSpec, Size

OUTPUTS = {"classes": "class_outputs", "boxes": "box_outputs"}
"""The tensor of each output."""


def build_detector(
    spec: DetectorSpec,
    backbone: ModelSpec,
    *,
    num_classes: int,
    image_size: Size | None = None,
    dtype: str = "float32",
    batch_norm: BatchNormFactory = keras.layers.BatchNormalization,
    uniform: UniformNoise | None = None,
) -> keras.Model:
    """Build a detector with newly initialised weights.

    Args:
      spec: BiFPN, heads and anchors.
      backbone: any network with five reductions; it also sets the activation and batch norm's constants.
      num_classes: classes of the objects; there is no background class.
      image_size: as in `efficientnet.build_model`, like the arguments below.
      dtype: of the layers.
      batch_norm: makes a batch-norm layer.
      uniform: source of the noise of stochastic depth.

    Returns:
      A model from normalised float images [batch, H, W, 3] to float32 {"classes": [batch, anchors,
      num_classes] logits, "boxes": [batch, anchors, 4] (ty, tx, th, tw)}; anchors in the order of
      `anchor_boxes`.

    Raises:
      SpecError: the backbone does not have five reductions, or has a block of an unknown kind.
    """
    return build_network(
        detector_layers(spec, backbone, num_classes),
        name=f"{spec.name}_{backbone.name}",
        outputs=OUTPUTS,
        image_size=image_size,
        dtype=dtype,
        batch_norm=batch_norm,
        uniform=uniform,
    )


def detector_complexity(
    spec: DetectorSpec, backbone: ModelSpec, *, num_classes: int, image_size: Size | None = None
) -> Complexity:
    """Compute the cost of a detector for one image without building it; see `complexity`."""
    size = spec.resolution if image_size is None else image_size
    return count(detector_layers(spec, backbone, num_classes), size)


def detector_layers(spec: DetectorSpec, backbone: ModelSpec, num_classes: int) -> tuple[Node, ...]:
    """List the layers of a detector in the order in which they are built."""
    layers, _ = backbone_layers(backbone)
    features = bifpn(layers, spec)
    class_head(layers, features, spec, num_classes)
    box_head(layers, features, spec)
    return tuple(layers.nodes)

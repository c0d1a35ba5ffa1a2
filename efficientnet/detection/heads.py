"""The heads of a detector: convolutions shared by all levels, with a batch norm for each level."""

import math
from collections.abc import Sequence

from efficientnet.blocks import Layers
from efficientnet.detection.bifpn import Feature
from efficientnet.detection.catalog import DetectorSpec
from efficientnet.detection.layer_kinds import JoinLevels, PerAnchor, SeparableConv

# Initial probability of every class (arXiv 1708.02002, section 4.1).
PRIOR = 0.01
PRIOR_LOGIT = -math.log((1 - PRIOR) / PRIOR)


def class_head(
    layers: Layers, features: Sequence[Feature], spec: DetectorSpec, num_classes: int
) -> str:
    """Add the class head: (anchors, num_classes) logits, anchors of the finest level first."""
    return _head(layers, features, spec, "class", num_classes, PRIOR_LOGIT)


def box_head(layers: Layers, features: Sequence[Feature], spec: DetectorSpec) -> str:
    """Add the box head: (anchors, 4), boxes relative to their anchors."""
    return _head(layers, features, spec, "box", 4, 0.0)


def _head(
    layers: Layers,
    features: Sequence[Feature],
    spec: DetectorSpec,
    name: str,
    values: int,
    bias: float,
) -> str:
    convs = [
        SeparableConv(f"{name}_{repeat}_conv", spec.filters, "variance_scaling")
        for repeat in range(spec.head_repeats)
    ]
    filters = spec.anchors.per_place * values
    predict = SeparableConv(f"{name}_predict", filters, "variance_scaling", bias)
    outputs = []
    for feature in features:
        x, level = feature.name, f"level_{feature.level}"
        for repeat, conv in enumerate(convs):
            x = layers.add(conv, x, output=f"{conv.name}_{level}")
            x = layers.normalize(x, f"{name}_{repeat}_bn_{level}")
            x = layers.activate(x, f"{name}_{repeat}_activation_{level}")
        x = layers.add(predict, x, output=f"{name}_predict_{level}")
        outputs.append(layers.add(PerAnchor(f"{name}_anchors_{level}", values), x))
    return layers.add(JoinLevels(f"{name}_outputs"), *outputs)

"""BiFPN: cells that mix the levels of a pyramid, from coarse to fine and back."""

from typing import NamedTuple

import keras

from efficientnet.blocks import Layers
from efficientnet.detection.anchors import MIN_LEVEL
from efficientnet.detection.catalog import DetectorSpec
from efficientnet.detection.layer_kinds import Fuse, SeparableConv
from efficientnet.layer_kinds import Add, Conv, MaxPooling, NearestUpsample
from efficientnet.spec import ModelSpec, SpecError

BACKBONE_LEVELS = 5  # reduction_5 is the coarsest output of a backbone


class Feature(NamedTuple):
    """A feature map: the name of its tensor, its level and its filters."""

    name: str
    level: int
    filters: int


class CellNode(NamedTuple):
    """A node of a cell.

    Attributes:
      level: of its output.
      sources: indices of the features that it fuses: first the inputs of the cell, the finest first, then
        the outputs of the nodes in order.
    """

    level: int
    sources: tuple[int, ...]


def cell_nodes(levels: range) -> tuple[CellNode, ...]:
    """List the nodes of a cell: from the coarsest level down, then up again (arXiv 1911.09070, figure 2d)."""
    given = {level: i for i, level in enumerate(levels)}
    last, nodes = dict(given), list[CellNode]()

    def add(level: int, *sources: int) -> None:
        last[level] = len(levels) + len(nodes)
        nodes.append(CellNode(level, sources))

    for level in reversed(levels[:-1]):
        add(level, given[level], last[level + 1])
    for level in levels[1:]:
        between = [last[level]] if level != levels[-1] else []
        add(level, given[level], *between, last[level - 1])
    return tuple(nodes)


def pyramid(layers: Layers, spec: DetectorSpec) -> list[Feature]:
    """Add the levels that a backbone lacks; return the inputs of the first cell, the finest first.

    Raises:
      SpecError: the backbone does not halve images five times.
    """
    backbone = layers.spec
    if len(backbone.reductions) != BACKBONE_LEVELS:
        raise SpecError(
            f"{backbone.name} halves its images {len(backbone.reductions)} times, expected "
            f"{BACKBONE_LEVELS} for a detector"
        )
    features = [
        Feature(f"reduction_{level}", level, _filters(backbone, level))
        for level in range(MIN_LEVEL, BACKBONE_LEVELS + 1)
    ]
    for level in range(BACKBONE_LEVELS + 1, spec.anchors.max_level + 1):
        features.append(_resample(layers, features[-1], features[-1], level, spec, f"p{level}"))
    return features[: len(spec.anchors.levels)]


def bifpn(layers: Layers, spec: DetectorSpec) -> list[Feature]:
    """Add all cells on top of a backbone; return one feature for each level, the finest first."""
    inputs = pyramid(layers, spec)
    nodes = cell_nodes(spec.anchors.levels)
    for cell in range(spec.cells):
        features = list(inputs)
        for number, node in enumerate(nodes):
            features.append(_node(layers, features, node, spec, f"bifpn_{cell}_node_{number}"))
        newest = {feature.level: feature for feature in features}
        inputs = [newest[level] for level in spec.anchors.levels]
    return inputs


def _node(
    layers: Layers, features: list[Feature], node: CellNode, spec: DetectorSpec, name: str
) -> Feature:
    like = next(feature for feature in features if feature.level == node.level)
    sources = [
        _resample(layers, features[source], like, node.level, spec, f"{name}_input_{i}").name
        for i, source in enumerate(node.sources)
    ]
    fuse = Fuse(f"{name}_fuse") if spec.fusion == "fast" else Add(f"{name}_fuse")
    x = layers.activate(layers.add(fuse, *sources), f"{name}_activation")
    x = layers.add(SeparableConv(f"{name}_conv", spec.filters, "glorot_uniform"), x)
    return Feature(layers.normalize(x, f"{name}_bn"), node.level, spec.filters)


def _resample(
    layers: Layers, feature: Feature, like: Feature, level: int, spec: DetectorSpec, name: str
) -> Feature:
    """Convert a feature to the BiFPN's filters and to an adjacent level, of the size of `like`."""
    x = feature.name
    if feature.filters != spec.filters:
        x = layers.add(
            Conv(
                f"{name}_conv",
                spec.filters,
                1,
                use_bias=True,
                initializer=keras.initializers.GlorotUniform,
            ),
            x,
        )
        x = layers.normalize(x, f"{name}_bn")
    if level > feature.level:
        x = layers.add(MaxPooling(f"{name}_pooling"), x)
    elif level < feature.level:
        x = layers.add(NearestUpsample(f"{name}_upsampling", 2), x, like.name)
    return Feature(x, level, spec.filters)


def _filters(backbone: ModelSpec, level: int) -> int:
    return backbone.blocks[backbone.reductions[level - 1]].output_filters

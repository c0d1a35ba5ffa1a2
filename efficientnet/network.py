"""List the layers of a ModelSpec: stem, blocks, head, classifier."""

import re
from collections.abc import Iterable

from efficientnet.blocks import BLOCKS, IMAGES, Layers, Node
from efficientnet.layer_kinds import (
    Dense,
    DropBranch,
    DropElements,
    Endpoint,
    GlobalPooling,
    MaxPooling,
)
from efficientnet.spec import Include, ModelSpec, SpecError

_BACKBONE = re.compile(r"(stem|block_\d+|head)_")


def network_layers(
    spec: ModelSpec, *, num_classes: int | None, include: Include
) -> tuple[Node, ...]:
    """List the layers of a network in the order in which they are built; the last is its output.

    Args:
      spec: the network.
      num_classes: units of the classifier; None omits it.
      include: where the network ends.

    Raises:
      SpecError: a block is of an unknown kind.
    """
    layers, x = backbone_layers(spec)
    if include != "features":
        x = _head(layers, x)
        if include == "logits" and num_classes is not None:
            _classifier(layers, x, num_classes)
    return tuple(layers.nodes)


def backbone_layers(spec: ModelSpec) -> tuple[Layers, str]:
    """List stem and blocks, with the endpoints reduction_1, reduction_2, ...; more can be added to the list.

    Returns:
      The layers, and the name of the last one's output.

    Raises:
      SpecError: a block is of an unknown kind.
    """
    layers = Layers(spec)
    return layers, _blocks(layers, _stem(layers, IMAGES))


def is_backbone(path: str) -> bool:
    """Return whether a variable is of the stem, a block or the head, not of the classifier or a decoder."""
    return bool(_BACKBONE.match(path))


def keep_probabilities(nodes: Iterable[Node]) -> dict[str, float]:
    """Return the probability with which each random layer of a network keeps, by the layer's name."""
    kept: dict[str, float] = {}
    for layer, _, _ in nodes:
        if isinstance(layer, DropBranch):
            kept[layer.name] = layer.survival_probability
        elif isinstance(layer, DropElements):
            kept[layer.name] = 1.0 - layer.rate
    return kept


def _stem(layers: Layers, x: str) -> str:
    stem = layers.spec.stem
    if stem is None:
        return x
    x = layers.conv_activation(x, "stem", stem.filters, stem.kernel_size, stem.stride)
    return layers.add(MaxPooling("stem_pooling"), x) if stem.pooling == "max" else x


def _blocks(layers: Layers, x: str) -> str:
    reductions = layers.spec.reductions
    for block in layers.spec.blocks:
        if block.block not in BLOCKS:
            raise SpecError(
                f"blocks[{block.index}].block is {block.block!r}, expected {', '.join(BLOCKS)}"
            )
        x = BLOCKS[block.block](layers, x, block)
        if block.index in reductions:
            x = layers.add(Endpoint(f"reduction_{reductions.index(block.index) + 1}"), x)
    return x


def _head(layers: Layers, x: str) -> str:
    head = layers.spec.head
    if head.filters is not None:
        x = layers.conv_activation(x, "head", head.filters, head.kernel_size)
    return layers.add(GlobalPooling("pooled", head.pooling), x)


def _classifier(layers: Layers, x: str, num_classes: int) -> str:
    rate = layers.spec.dropout
    if rate > 0.0:
        # The lower indices belong to the blocks' stochastic depth.
        x = layers.add(DropElements("dropout", rate, index=len(layers.spec.blocks)), x)
    return layers.add(Dense("classifier", num_classes), x)

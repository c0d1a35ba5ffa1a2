"""Convert a network to plain data (mappings, lists, text, numbers), as in a model file, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import keras

from efficientnet.blocks import BLOCKS
from efficientnet.spec import (
    IMAGE_CHANNELS,
    BlockSpec,
    HeadSpec,
    ModelSpec,
    Size,
    SpecError,
    StageSpec,
    StemSpec,
    changes_shape,
    expand_stages,
    resolve_shortcut,
)

# Fields that follow from a block's position, so they are not saved.
_DERIVED = ("index", "input_filters")


def to_plain(spec: ModelSpec) -> dict[str, Any]:
    """Return a network as plain data that `from_plain` turns back into the same network.

    >>> from efficientnet import get_spec
    >>> spec = get_spec("efficientnet-b0")
    >>> from_plain(to_plain(spec)) == spec
    True
    """
    return {
        "name": spec.name,
        "resolution": _plain_size(spec.resolution),
        "eval_resolution": _plain_size(spec.eval_resolution),
        "stem": asdict(spec.stem) if spec.stem else None,
        "blocks": [
            {key: value for key, value in asdict(block).items() if key not in _DERIVED}
            for block in spec.blocks
        ],
        "head": asdict(spec.head),
        "activation": spec.activation,
        "dropout": spec.dropout,
        "survival_probability": spec.survival_probability,
        "batch_norm_momentum": spec.batch_norm_momentum,
        "batch_norm_epsilon": spec.batch_norm_epsilon,
        "padding": spec.padding,
        "normalization": [list(spec.mean_rgb), list(spec.stddev_rgb)],
    }


def from_plain(tree: Mapping[str, Any]) -> ModelSpec:
    """Return the network that plain data describes.

    Args:
      tree: as `to_plain` returns it. Instead of `blocks` it may have `stages`, mappings of the
        fields of `StageSpec`. A block without `stage` begins a new one if it changes the shape.

    Raises:
      SpecError: the network cannot be built.
    """
    stem = StemSpec(**tree["stem"]) if tree["stem"] else None
    filters = stem.filters if stem else IMAGE_CHANNELS
    if tree.get("stages"):
        blocks = expand_stages([StageSpec(**stage) for stage in tree["stages"]], filters)
    else:
        blocks = _chain(tree["blocks"], filters)
    for block in blocks:
        if block.block not in BLOCKS:
            raise SpecError(
                f"blocks[{block.index}].block is {block.block!r}, expected {', '.join(BLOCKS)}"
            )
    _check_activation(tree["activation"])
    mean_rgb, stddev_rgb = map(tuple, tree["normalization"])
    resolution = _size(tree["resolution"])
    return ModelSpec(
        name=tree["name"],
        stem=stem,
        blocks=blocks,
        head=HeadSpec(**tree["head"]),
        resolution=resolution,
        eval_resolution=_size(tree.get("eval_resolution") or resolution),
        padding=tree.get("padding", "same"),
        mean_rgb=mean_rgb,
        stddev_rgb=stddev_rgb,
        **{
            key: tree[key]
            for key in (
                "activation",
                "dropout",
                "survival_probability",
                "batch_norm_momentum",
                "batch_norm_epsilon",
            )
        },
    )


def _chain(rows: Sequence[Mapping[str, Any]], filters: int) -> tuple[BlockSpec, ...]:
    """Set each block's index, its input filters, and the fields it leaves to its position."""
    blocks: list[BlockSpec] = []
    stage = 0
    for index, row in enumerate(rows):
        changes = changes_shape(row["stride"], filters, row["output_filters"])
        begins = int(bool(index) and changes)
        stage = stage + begins if row.get("stage") is None else row["stage"]
        shortcut = resolve_shortcut(row["shortcut"], changes)
        placed = {"index": index, "stage": stage, "input_filters": filters, "shortcut": shortcut}
        blocks.append(BlockSpec(**{**row, **placed}))
        filters = row["output_filters"]
    return tuple(blocks)


def _check_activation(name: str) -> None:
    try:
        keras.activations.get(name)
    except ValueError as error:
        raise SpecError(
            f"activation is {name!r}, expected an activation of Keras, such as silu"
        ) from error


def _size(size: int | Sequence[int]) -> Size:
    if isinstance(size, int):
        return size
    height, width = size
    return height, width


def _plain_size(size: Size) -> int | list[int]:
    return size if isinstance(size, int) else list(size)

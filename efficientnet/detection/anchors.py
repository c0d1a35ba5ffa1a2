"""Anchors: the boxes to which the boxes of a detector are relative."""

from dataclasses import dataclass

import numpy as np

from efficientnet.spec import Size, SpecError, height_width

MIN_LEVEL = 3
"""The finest level of the pyramid: 1/8 of the image."""


@dataclass(frozen=True)
class Anchors:
    """The shapes of the anchors at every place of every level.

    Attributes:
      max_level: the coarsest level; level l is the image halved l times.
      scale: side of the square anchor of octave 0 in strides of its level; one number, or one per level.
      octaves: number of sizes at each place; size i is 2^(i / octaves) times the first.
      ratios: width / height of each shape, or (x factor, y factor) of the sides.
    """

    max_level: int = 7
    scale: float | tuple[float, ...] = 4.0
    octaves: int = 3
    ratios: tuple[float | tuple[float, float], ...] = (1.0, 2.0, 0.5)

    def __post_init__(self) -> None:
        if self.max_level <= MIN_LEVEL:
            raise SpecError(f"max_level is {self.max_level}, expected {MIN_LEVEL + 1} or more")
        if isinstance(self.scale, tuple) and len(self.scale) != len(self.levels):
            raise SpecError(f"scale has {len(self.scale)} numbers, expected {len(self.levels)}")

    @property
    def levels(self) -> range:
        """The levels of the pyramid, the finest first."""
        return range(MIN_LEVEL, self.max_level + 1)

    @property
    def per_place(self) -> int:
        """Number of anchors at each place."""
        return self.octaves * len(self.ratios)

    def count(self, image_size: Size) -> int:
        """Return the number of anchors of an image."""
        sizes = level_sizes(image_size, self.max_level)[MIN_LEVEL:]
        return self.per_place * sum(height * width for height, width in sizes)


def level_sizes(image_size: Size, max_level: int) -> list[tuple[int, int]]:
    """Return height and width of levels 0 to `max_level`; each is half of the last, rounded up."""
    sizes = [height_width(image_size)]
    for _ in range(max_level):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def anchor_boxes(anchors: Anchors, image_size: Size) -> np.ndarray:
    """Compute all anchors of an image.

    Strides are fractions if the size is not a multiple of the coarsest level's stride. Anchors may reach
    outside the image.

    Args:
      anchors: shapes of the anchors.
      image_size: side of the square image or (height, width), in pixels.

    Returns:
      float32 [anchors, 4], [ymin, xmin, ymax, xmax] in pixels; by level (the finest first), row, column,
      octave, ratio.
    """
    image = np.array(height_width(image_size), np.float64)
    sizes = level_sizes(image_size, anchors.max_level)
    boxes = []
    for number, level in enumerate(anchors.levels):
        scale = anchors.scale[number] if isinstance(anchors.scale, tuple) else anchors.scale
        stride = image / sizes[level]
        rows, columns = (
            (np.arange(size) + 0.5) * step for size, step in zip(sizes[level], stride, strict=True)
        )
        centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)[:, :, None]
        half = _sides(anchors) * scale * stride / 2
        boxes.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
    return np.concatenate(boxes).astype(np.float32)


def _sides(anchors: Anchors) -> np.ndarray:
    """Return height and width of the anchors of one place, in units: [anchors, 2]."""
    sides = []
    for octave in range(anchors.octaves):
        size = 2.0 ** (octave / anchors.octaves)
        for ratio in anchors.ratios:
            x, y = ratio if isinstance(ratio, tuple) else (np.sqrt(ratio), 1 / np.sqrt(ratio))
            sides.append((size * y, size * x))
    return np.array(sides)

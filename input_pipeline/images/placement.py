"""Placement: where the pixels of a source image are in the result.

Coordinates are (y, x), continuous, in pixels: (0, 0) is the outer corner of the first pixel, whose centre is
at (0.5, 0.5). Labels that name places (boxes, masks) are mapped forward, and answers of the network back.
"""

from typing import NamedTuple

import tensorflow as tf

Size = int | tuple[int, int]
"""Size of images in pixels: the side of a square, or (height, width)."""


def height_width(size: Size) -> tuple[int, int]:
    """Return `size` as (height, width)."""
    return (size, size) if isinstance(size, int) else size


class Placement(NamedTuple):
    """An affine map from a source image to a result, and the part of the result that shows the source.

    Attributes:
      scale: float32 [2], pixels of the result for each pixel of the source; negative where mirrored.
      offset: float32 [2], where the corner (0, 0) of the source is in the result, in pixels.
      source_size: int32 [2], height and width of the source.
      corner: int32 [2], first row and column of the valid part of the result.
      valid: int32 [2], height and width of the valid part; everything else is padding.
    """

    scale: tf.Tensor
    offset: tf.Tensor
    source_size: tf.Tensor
    corner: tf.Tensor
    valid: tf.Tensor

    def to_result(self, points: tf.Tensor) -> tf.Tensor:
        """Map points of the source to the result: float32 [..., 2], (y, x) in pixels."""
        return points * self.scale + self.offset

    def to_source(self, points: tf.Tensor) -> tf.Tensor:
        """Map points of the result to the source, also to outside of it: float32 [..., 2]."""
        return (points - self.offset) / self.scale

    def mirror(self, condition: tf.Tensor | bool = True) -> "Placement":
        """Mirror the valid part of the result left to right, if `condition`, bool []."""
        ends = tf.cast(2 * self.corner + self.valid, tf.float32)
        flip = tf.constant([False, True]) & condition
        return self._replace(
            scale=tf.where(flip, -self.scale, self.scale),
            offset=tf.where(flip, ends - self.offset, self.offset),
        )

    def then(self, after: "Placement") -> "Placement":
        """Compose with the placement `after` of this result in another one."""
        corners = tf.cast(tf.stack([self.corner, self.corner + self.valid]), tf.float32)
        ends = tf.cast(tf.round(after.to_result(corners)), tf.int32)
        first = tf.maximum(tf.reduce_min(ends, axis=0), after.corner)
        last = tf.minimum(tf.reduce_max(ends, axis=0), after.corner + after.valid)
        return Placement(
            scale=self.scale * after.scale,
            offset=after.to_result(self.offset),
            source_size=self.source_size,
            corner=first,
            valid=tf.maximum(last - first, 0),
        )


def placement_of_window(
    window: tf.Tensor,
    source_size: tf.Tensor,
    corner: tf.Tensor,
    valid: tf.Tensor,
    *,
    half_pixel: bool = False,
) -> Placement:
    """Return the placement of a window that is resized.

    Without half-pixel centres, as in TensorFlow 1's kernels, pixel i of the result shows pixel
    i * window / valid of the window: the centres of the first pixels coincide, not the corners.

    Args:
      window: int32 [4], first row, first column, height and width in the source.
      source_size: int32 [2].
      corner: int32 [2], where the resized window begins in the result.
      valid: int32 [2], height and width of the resized window.
      half_pixel: whether the kernel has half-pixel centres; then the corners coincide.
    """
    first, extent = (tf.cast(part, tf.float32) for part in (window[:2], window[2:]))
    scale = tf.cast(valid, tf.float32) / extent
    centre = 0.0 if half_pixel else 0.5  # what coincides, from the corner of the first pixel
    offset = tf.cast(corner, tf.float32) + centre - (first + centre) * scale
    return Placement(scale, offset, source_size, corner, valid)

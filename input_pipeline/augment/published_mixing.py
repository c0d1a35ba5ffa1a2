"""Mixup and cutmix as EfficientNetV2's published code pairs and counts them.

A batch is paired with its reverse. Where both kinds are on, the first half of the batch gets mixup and the
second half cutmix, each paired with its own reverse. Labels of cutmix count one area for all images, the mean
of theirs. The batch is that of a host: another number of hosts makes other pairs (see `mixing` for pairs
that do not depend on it).
"""

import tensorflow as tf

from input_pipeline.augment.geometry import replace_rectangle
from input_pipeline.augment.mixing import (
    CUTMIX_STREAM,
    MIXUP_STREAM,
    MixedBatch,
    as_shares,
    draw_beta,
    rectangle,
)


def mix_reversed(
    images: tf.Tensor,
    labels: tf.Tensor,
    seeds: tf.Tensor,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    num_classes: int,
) -> MixedBatch:
    """Mix a batch as published; arguments and results are those of `mixing.mix`."""
    shares = as_shares(labels, num_classes)
    if not (mixup_alpha and cutmix_alpha):
        return _mix(images, shares, seeds, mixup_alpha, cutmix_alpha)
    half = images.shape[0] // 2
    first = _mix(images[:half], shares[:half], seeds[:half], mixup_alpha, 0.0)
    second = _mix(images[half:], shares[half:], seeds[half:], 0.0, cutmix_alpha)
    return tf.concat([first[0], second[0]], 0), tf.concat([first[1], second[1]], 0)


def _mix(
    images: tf.Tensor, shares: tf.Tensor, seeds: tf.Tensor, mixup_alpha: float, cutmix_alpha: float
) -> MixedBatch:
    if mixup_alpha:
        own, _ = draw_beta(seeds, MIXUP_STREAM, mixup_alpha)
        return blend_with_reverse(images, shares, own)
    if cutmix_alpha:
        kept, centre = draw_beta(seeds, CUTMIX_STREAM, cutmix_alpha)
        middle = tf.cast(centre * tf.cast(tf.shape(images)[1:3], tf.float32), tf.int32)
        return paste_from_reverse(images, shares, kept, middle)
    return images, shares


def blend_with_reverse(images: tf.Tensor, shares: tf.Tensor, own: tf.Tensor) -> MixedBatch:
    """Blend every image with the one at its place from the end (mixup).

    Args:
      images: uint8 [B, H, W, 3].
      shares: float32 [B, classes], how much of each class an image shows.
      own: float32 [B] in [0, 1]; an image keeps this share of itself or the rest, whichever is more.

    Returns:
      (uint8 [B, H, W, 3], float32 [B, classes]). Deviation: the reference blends normalised floats;
      rounding to uint8 moves a pixel by half a grey level at most.
    """
    own = tf.maximum(own, 1.0 - own)
    weight = own[:, tf.newaxis, tf.newaxis, tf.newaxis]
    pixels = tf.cast(images, tf.float32)
    blended = tf.round(pixels * weight + pixels[::-1] * (1.0 - weight))
    weight = own[:, tf.newaxis]
    return tf.cast(blended, tf.uint8), shares * weight + shares[::-1] * (1.0 - weight)


def paste_from_reverse(
    images: tf.Tensor, shares: tf.Tensor, kept: tf.Tensor, centre: tf.Tensor
) -> MixedBatch:
    """Paste a rectangle of the image at its place from the end into every image (cutmix).

    Args:
      images: uint8 [B, H, W, 3].
      shares: float32 [B, classes].
      kept: float32 [B] in [0, 1]; the rectangle has 1 - kept of the area before it is cut off.
      centre: int32 [B, 2], row and column of the rectangles' centres.

    Returns:
      (uint8 [B, H, W, 3], float32 [B, classes]).
    """
    size = tf.shape(images)[1:3]
    first, last = rectangle(size, centre, tf.sqrt(1.0 - kept)[:, tf.newaxis])
    mixed = replace_rectangle(images, images[::-1], first, last)
    areas = tf.reduce_prod(last - first, axis=1) / tf.reduce_prod(size)
    pasted = tf.cast(tf.reduce_mean(areas), tf.float32)
    return tf.ensure_shape(mixed, images.shape), shares * (1.0 - pasted) + shares[::-1] * pasted

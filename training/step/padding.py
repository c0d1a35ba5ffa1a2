"""The padding of images that do not fill their shape: exactly 0 after the normalisation."""

from collections.abc import Mapping

import tensorflow as tf

from training.step.recipe import Normalize


def network_input(batch: Mapping[str, tf.Tensor], normalize: Normalize) -> tf.Tensor:
    """Normalise the images of a batch; their padding becomes 0.

    A padded uint8 image is black where it is padded, which normalisation would make a negative number.

    Args:
      batch: "image", uint8 [b, H, W, 3]. If its framing pads, "valid", int32 [b, 2], is height and width of
        the rest, and "corner", int32 [b, 2], its first row and column; without it they are 0.
      normalize: maps uint8 images to the network's input.
    """
    return fill_padding(normalize(batch["image"]), batch, 0.0)


def fill_padding(
    images: tf.Tensor, batch: Mapping[str, tf.Tensor], fill: float | tuple[float, float, float]
) -> tf.Tensor:
    """Replace the padding of `images`, float [b, H, W, 3], by the colour `fill`; see `network_input`."""
    if "valid" not in batch:
        return images
    first = batch.get("corner", tf.zeros_like(batch["valid"]))
    last = first + batch["valid"]
    rows, columns = (
        (tf.range(side) >= first[:, axis, tf.newaxis])
        & (tf.range(side) < last[:, axis, tf.newaxis])
        for axis, side in enumerate(images.shape[1:3])
    )
    inside = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
    return tf.where(inside[..., tf.newaxis], images, tf.constant(fill, images.dtype))

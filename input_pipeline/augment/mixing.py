"""Mixing images of a batch with each other, and erasing parts of one.

Mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899) take a batch of uint8 images and whole-number
labels, or shares of the classes, and give uint8 images and labels that say how much of each class they
show. Every image is mixed with its neighbour, the first with the second, the third with the fourth, by
an amount that follows from its own seed. Deviation: the reference pairs a batch with its reverse, which
would make other pairs wherever the batch is shared by another number of hosts.
"""

import tensorflow as tf

from input_pipeline.augment.geometry import replace_rectangle
from input_pipeline.draws import draw_uniforms, seed_of_stream

# Mixed into the seed, so that one seed may serve all of these and the other augmentations.
MIXUP_STREAM, CUTMIX_STREAM, ERASING_STREAM = 0x317C0, 0xC0731, 0xE7A5E

MixedBatch = tuple[tf.Tensor, tf.Tensor]


def mixup(
    images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor, *, alpha: float, num_classes: int
) -> MixedBatch:
    """Blend every image with its neighbour.

    The image's own share is lambda ~ Beta(alpha, alpha) or 1 - lambda, whichever is larger, to the next
    1/256: then the arithmetic fits into 16 bits, and pixels and labels have exactly the same share.

    Args:
      images: uint8 [B, H, W, 3].
      labels: int [B], in [0, num_classes); or float32 [B, num_classes], shares of the classes.
      seeds: int32 or int64 [B, 2], one of each image.
      alpha: above 0; the larger, the more even the blends.
      num_classes: of the labels.

    Returns:
      (uint8 [B, H, W, 3], float32 [B, num_classes], blended in the same shares). Deviation: the reference
      blends normalised floats; rounding to uint8 moves a pixel by half a grey level at most.
    """
    _check_alpha("mixup", alpha)
    shape = tf.shape(images)
    share, _ = draw_beta(seeds, MIXUP_STREAM, alpha)
    parts = tf.round(256.0 * tf.maximum(share, 1.0 - share))
    weight = tf.cast(parts, tf.uint16)[:, tf.newaxis]
    rows = tf.reshape(images, [shape[0], -1])  # weights spread fastest along long rows
    own, partners = tf.cast(rows, tf.uint16), tf.cast(_partners(rows), tf.uint16)
    blended = tf.bitwise.right_shift(own * weight + partners * (256 - weight) + 128, 8)
    mixed = tf.reshape(tf.cast(blended, tf.uint8), shape)
    return tf.ensure_shape(mixed, images.shape), _mix_labels(labels, parts / 256.0, num_classes)


def cutmix(
    images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor, *, alpha: float, num_classes: int
) -> MixedBatch:
    """Put a rectangle of its neighbour into every image.

    The rectangle has the image's proportions and 1 - lambda of its area, lambda ~ Beta(alpha, alpha); its
    centre lies anywhere, and what is outside the image is cut off. Labels count the pixels shown.

    Args and returns as `mixup`; the pixels are those of the one or the other image, unchanged.
    """
    _check_alpha("cutmix", alpha)
    size = tf.shape(images)[1:3]
    share, centre = draw_beta(seeds, CUTMIX_STREAM, alpha)
    middle = tf.cast(centre * tf.cast(size, tf.float32), tf.int32)
    first, last = rectangle(size, middle, tf.sqrt(1.0 - share)[:, tf.newaxis])
    mixed = replace_rectangle(images, _partners(images), first, last)
    shown = tf.reduce_prod(last - first, axis=1) / tf.reduce_prod(size)
    mixed = tf.ensure_shape(mixed, images.shape)
    return mixed, _mix_labels(labels, 1.0 - tf.cast(shown, tf.float32), num_classes)


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    seeds: tf.Tensor,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    num_classes: int,
) -> MixedBatch:
    """Mixup, cutmix, or, where both are asked for, the two in turns: one pair mixup, the next cutmix.

    Args and returns as `mixup`; an alpha of 0 leaves that kind out, and labels become one-hot in any case.
    """
    options = {"num_classes": num_classes}
    if mixup_alpha and cutmix_alpha:
        kinds = tf.range(tf.shape(images)[0]) // 2 % 2
        rows = tf.dynamic_partition(tf.range(tf.size(kinds)), kinds, 2)
        parts = [[tf.gather(x, some) for x in (images, labels, seeds)] for some in rows]
        blended = mixup(*parts[0], alpha=mixup_alpha, **options)
        pasted = cutmix(*parts[1], alpha=cutmix_alpha, **options)
        mixed, shares = (
            tf.dynamic_stitch(rows, both) for both in zip(blended, pasted, strict=True)
        )
        shares = tf.ensure_shape(shares, [labels.shape[0], num_classes])
        return tf.ensure_shape(mixed, images.shape), shares
    if mixup_alpha:
        return mixup(images, labels, seeds, alpha=mixup_alpha, **options)
    if cutmix_alpha:
        return cutmix(images, labels, seeds, alpha=cutmix_alpha, **options)
    return images, as_shares(labels, num_classes)


def random_erasing(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    probability: float,
    area_range: tuple[float, float] = (0.02, 1 / 3),
    aspect_ratio_range: tuple[float, float] = (0.3, 1 / 0.3),
) -> tf.Tensor:
    """Fill a rectangle with noise (arXiv 1708.04896).

    Args:
      image: uint8 [H, W, 3].
      seed: int32 or int64 [2].
      probability: of erasing anything.
      area_range: share of the image's area, drawn uniformly.
      aspect_ratio_range: height / width, its logarithm drawn uniformly. A side ends at the image's.

    Returns:
      uint8 [H, W, 3].
    """
    fires, area, ratio, y, x = tf.unstack(draw_uniforms(seed, 5, stream=ERASING_STREAM))

    def erase() -> tf.Tensor:
        size = tf.shape(image)[:2]
        pixels = tf.cast(tf.reduce_prod(size), tf.float32)
        share = area_range[0] + area * (area_range[1] - area_range[0])
        low, high = tf.math.log(aspect_ratio_range[0]), tf.math.log(aspect_ratio_range[1])
        tall = tf.exp(low + ratio * (high - low))
        sides = tf.sqrt(pixels * share * tf.stack([tall, 1.0 / tall]))
        sides = tf.minimum(tf.cast(tf.round(sides), tf.int32), size)
        room = tf.cast(size - sides + 1, tf.float32)
        first = tf.cast(tf.stack([y, x]) * room, tf.int32)
        noise = seed_of_stream(seed, ERASING_STREAM + 1)
        words = tf.random.stateless_uniform(
            [(tf.size(image) + 3) // 4], noise, None, None, tf.uint32, alg="philox"
        )
        values = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[: tf.size(image)]
        return replace_rectangle(image, tf.reshape(values, tf.shape(image)), first, first + sides)

    return tf.cond(fires < probability, erase, lambda: image)


def rectangle(
    size: tf.Tensor, centre: tf.Tensor, share_of_side: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first and last (exclusive) row and column, int32 [B, 2], of what is inside the image.

    Args:
      size: int32 [2], height and width.
      centre: int32 [B, 2].
      share_of_side: float32 [B, 1], height and width of the rectangle over those of the image.
    """
    half = tf.cast(share_of_side * tf.cast(size, tf.float32) / 2.0, tf.int32)
    return tf.maximum(centre - half, 0), tf.minimum(centre + half, size)


def _partners(values: tf.Tensor) -> tf.Tensor:
    """Swap the rows of each pair; the last of an odd number stays."""
    rows = tf.range(tf.shape(values)[0])
    return tf.gather(values, tf.minimum(tf.bitwise.bitwise_xor(rows, 1), tf.size(rows) - 1))


def _mix_labels(labels: tf.Tensor, share: tf.Tensor, num_classes: int) -> tf.Tensor:
    own = as_shares(labels, num_classes)
    return own * share[:, tf.newaxis] + _partners(own) * (1.0 - share)[:, tf.newaxis]


def as_shares(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Return float32 [B, num_classes]: labels that are shares already, or one-hot."""
    return labels if labels.dtype.is_floating else tf.one_hot(labels, num_classes)


def draw_beta(seeds: tf.Tensor, stream: int, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return for each seed: float32 [B] from Beta(alpha, alpha), and float32 [B, 2] in [0, 1)."""

    def draw(seed: tf.Tensor) -> tf.Tensor:
        gammas = tf.random.stateless_gamma([2], seed_of_stream(seed, stream + 1), alpha)
        return tf.concat([gammas, draw_uniforms(seed, 2, stream=stream)], axis=0)

    one, other, y, x = tf.unstack(
        tf.map_fn(draw, seeds, fn_output_signature=tf.TensorSpec([4], tf.float32)), axis=1
    )
    # Both underflow to 0 for the smallest alphas; then one image is as good as the other.
    return tf.math.divide_no_nan(one, one + other), tf.stack([y, x], axis=1)


def _check_alpha(name: str, alpha: float) -> None:
    if alpha <= 0:
        raise ValueError(f"{name}: alpha is {alpha:g}, expected more than 0")

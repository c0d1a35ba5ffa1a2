"""Choose a window of an encoded image, decode it, and resize it; framing.py puts these together.

A JPEG is decoded only where it is cropped; other formats (PNG, BMP, the first frame of a GIF) are
decoded whole. Images of more than headers.MOST_PIXELS are refused. Grey, palette, alpha and 16-bit
images become 3 channels of 8 bits, alpha dropped.
Resizing is TensorFlow 1's: bicubic with a = -0.75 or bilinear, no half-pixel centres, no antialiasing,
as the published checkpoints were trained and evaluated. EfficientNetV2's s, m, l and xl have TensorFlow 2's
bilinear kernel, with half-pixel centres.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from input_pipeline.images.headers import check_header_unless_jpeg, jpeg_shape

Resize = Literal["bicubic", "bilinear", "bilinear_half_pixel"]

OddPixels = Literal["before", "after"]

CENTRE_SHARE = 0.875  # of the shorter side, what the default evaluation crop keeps


class Part(NamedTuple):
    """What a framing takes of an image, and where it puts it.

    Attributes:
      window: int32 [4], first row, first column, height and width, as the JPEG decoder takes it.
      valid: int32 [2], height and width that the window is resized to.
      corner: int32 [2], first row and column of it in the result.
    """

    window: tf.Tensor
    valid: tf.Tensor
    corner: tf.Tensor


# -- which window -------------------------------------------------------------------------------


def random_window(
    shape: tf.Tensor,
    seed: tf.Tensor,
    *,
    size: tuple[int, int],
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Sample a window of the given area and aspect ratio; after ten failures take the centre window.

    As in the reference, a window that covers the whole image counts as a failure. `size` is that of the
    result and decides the centre window alone: the aspect ratio is the window's own.
    """
    ranges = {"area_range": area_range, "aspect_ratio_range": aspect_ratio_range}
    window = _sample_window(shape, seed, min_object_covered=0.1, max_attempts=10, **ranges)
    return tf.cond(
        tf.reduce_all(tf.equal(window[2:], shape[:2])),
        lambda: centre_window(shape, size=size),
        lambda: window,
    )


def sampled_window(
    shape: tf.Tensor,
    seed: tf.Tensor,
    *,
    area_range: tuple[float, float],
    aspect_ratio_range: tuple[float, float],
) -> tf.Tensor:
    """Sample a window of the given area and aspect ratio; after a hundred failures take all of the image."""
    ranges = {"area_range": area_range, "aspect_ratio_range": aspect_ratio_range}
    return _sample_window(shape, seed, min_object_covered=0.0, max_attempts=100, **ranges)


def _sample_window(shape: tf.Tensor, seed: tf.Tensor, **limits: Any) -> tf.Tensor:
    """Sample a window within `limits`; after max_attempts failures take all of the image."""
    begin, sampled, _ = tf.image.stateless_sample_distorted_bounding_box(
        image_size=shape,
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=seed,
        use_image_if_no_bounding_boxes=True,
        **limits,
    )
    return tf.concat([begin[:2], sampled[:2]], axis=0)


def centre_window(
    shape: tf.Tensor,
    *,
    size: tuple[int, int],
    crop_padding: int | None = None,
    odd_pixels: OddPixels = "before",
) -> tf.Tensor:
    """Return the centred window of the shape of `size`.

    It is S / (S + padding) of the largest one that fits, S being the shorter side of `size`. For a square
    that is the published rule, a share of the image's shorter side.

    Args:
      shape: int32 [3], of the image.
      size: height and width of the result.
      crop_padding: in pixels of the result; None: the padding that keeps 87.5 %.
      odd_pixels: "before": what cannot be halved is cut off above and left, as V1's code does; "after":
        below and right, as V2's.
    """
    (height, width), shorter = size, min(size)
    if crop_padding is None:
        crop_padding = round(shorter * (1 / CENTRE_SHARE - 1))
    share = shorter / (shorter + crop_padding)
    if height == width:
        fitting = tf.cast(tf.reduce_min(shape[:2]), tf.float32)
    else:
        limits = tf.cast(shape[:2], tf.float32)
        fitting = tf.minimum(limits, limits[::-1] * [height / width, width / height])
    sides = tf.maximum(tf.cast(share * fitting, tf.int32), 1)
    sides = tf.broadcast_to(sides, [2])
    begin = (shape[:2] - sides + (odd_pixels == "before")) // 2
    return tf.concat([begin, sides], axis=0)


# -- decoding and resizing ----------------------------------------------------------------------


def decode_part(
    image_bytes: tf.Tensor, choose: Callable[[tf.Tensor], Part]
) -> tuple[tf.Tensor, Part, tf.Tensor]:
    """Decode the part that `choose` picks by the image's shape, int32 [3].

    Returns:
      The pixels of its window, uint8 [h, w, 3]; the part; and the size of the image, int32 [2].
    """

    def jpeg() -> Any:
        shape = jpeg_shape(image_bytes)
        part = choose(shape)
        return tf.image.decode_and_crop_jpeg(image_bytes, part.window, channels=3), part, shape[:2]

    def anything_else() -> Any:
        image = _decode_whole(check_header_unless_jpeg(image_bytes))
        part = choose(tf.shape(image))
        row, column, height, width = tf.unstack(part.window)
        pixels = tf.slice(image, [row, column, 0], [height, width, 3])
        return pixels, part, tf.shape(image)[:2]

    return tf.cond(tf.io.is_jpeg(image_bytes), jpeg, anything_else)


def _decode_whole(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decode PNG, BMP or the first frame of a GIF to uint8 [H, W, 3]."""

    def bitmap() -> tf.Tensor:
        # This decoder leaves channels as they are: 1 becomes (0, 0, 0), 3 and 4 become (0, 1, 2).
        image = tf.image.decode_bmp(image_bytes)
        return tf.gather(image, tf.minimum([0, 1, 2], tf.shape(image)[2] - 1), axis=2)

    def others() -> tf.Tensor:
        return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)

    is_bitmap = tf.equal(tf.strings.substr(image_bytes, 0, 2), b"BM")
    return tf.cond(is_bitmap, bitmap, others)


def resize_to(
    image: tf.Tensor, size: tuple[int, int] | tf.Tensor, method: Resize = "bicubic"
) -> tf.Tensor:
    """Resize any [h, w, 3] to float32 [H, W, 3], without antialiasing; `size`: H and W."""
    kernels = {
        "bicubic": (tf.raw_ops.ResizeBicubic, False),
        "bilinear": (tf.raw_ops.ResizeBilinear, False),
        "bilinear_half_pixel": (tf.raw_ops.ResizeBilinear, True),
    }
    if method not in kernels:
        raise ValueError(f"unknown resize method {method!r}; known: {', '.join(kernels)}")
    kernel, half_pixel_centers = kernels[method]
    resized = kernel(
        images=image[tf.newaxis],
        size=size,
        align_corners=False,
        half_pixel_centers=half_pixel_centers,
    )
    known = [None, None] if tf.is_tensor(size) else [*size]
    return tf.ensure_shape(resized[0], [*known, 3])

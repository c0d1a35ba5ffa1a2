"""Crop encoded images to squares of pixels: at random for training, at the centre for evaluation.

A JPEG is decoded only where it is cropped; other formats (PNG, BMP, the first frame of a GIF) are
decoded whole. Images of more than headers.MOST_PIXELS are refused. Grey, palette, alpha and 16-bit
images become 3 channels of 8 bits, alpha dropped.
Resizing is TensorFlow 1's: bicubic with a = -0.75 or bilinear, no half-pixel centres, no antialiasing,
as the published checkpoints were trained and evaluated.
"""

from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from input_pipeline.draws import draw_uniforms
from input_pipeline.images.headers import check_header_unless_jpeg, jpeg_shape

Resize = Literal["bicubic", "bilinear"]

CENTRE_SHARE = 0.875  # of the shorter side, what the default evaluation crop keeps

# Mixed into the seed, so that crop, flip and augmentation may be drawn from the same one.
FLIP_STREAM = 0x0F11B


def train_crop(
    image_bytes: tf.Tensor,
    seed: tf.Tensor,
    *,
    image_size: int,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
    resize: Resize = "bicubic",
    flip: bool = True,
) -> tf.Tensor:
    """Decode a random part of an image, resize it, mirror half of the images.

    Args:
      image_bytes: string scalar, an encoded image.
      seed: int32 or int64 [2]; the same seed gives the same pixels.
      image_size: pixels of the side of the result.
      area_range: share of the image's area that the part covers.
      aspect_ratio_range: width / height of the part.
      resize: "bicubic" or "bilinear".
      flip: whether half of the images are mirrored left to right.

    Returns:
      uint8 [image_size, image_size, 3], truncated as the reference does.

    Raises:
      tf.errors.InvalidArgumentError: not an image, or a broken one.
    """
    image = decode_window(
        image_bytes,
        lambda shape: random_window(
            shape,
            seed,
            image_size=image_size,
            area_range=area_range,
            aspect_ratio_range=aspect_ratio_range,
        ),
    )
    pixels = _to_uint8(resize_square(image, image_size, resize))
    return maybe_flip(pixels, seed) if flip else pixels


def eval_crop(
    image_bytes: tf.Tensor,
    *,
    image_size: int,
    crop_padding: int | None = None,
    resize: Resize = "bicubic",
) -> tf.Tensor:
    """Decode the centre of an image and resize it.

    Args:
      image_bytes: string scalar, an encoded image.
      image_size: pixels of the side of the result, S.
      crop_padding: the square kept is S / (S + crop_padding) of the shorter side. None: the padding
        that keeps 87.5 %; 32: what the published checkpoints were evaluated with at every size.
      resize: "bicubic" or "bilinear".

    Returns:
      float32 [image_size, image_size, 3], neither rounded nor clipped: bicubic overshoots 0..255.

    Raises:
      tf.errors.InvalidArgumentError: not an image, or a broken one.
    """
    image = decode_window(
        image_bytes,
        lambda shape: centre_window(shape, image_size=image_size, crop_padding=crop_padding),
    )
    return resize_square(image, image_size, resize)


def eval_crop_uint8(
    image_bytes: tf.Tensor,
    *,
    image_size: int,
    crop_padding: int | None = None,
    resize: Resize = "bicubic",
) -> tf.Tensor:
    """Return `eval_crop` rounded and clipped to uint8 [image_size, image_size, 3].

    Deviation: the reference feeds the network the unrounded, unclipped pixels. A quarter of the bytes
    go to the device this way; docs/parity.md lists the size of the difference.
    """
    pixels = eval_crop(image_bytes, image_size=image_size, crop_padding=crop_padding, resize=resize)
    return _to_uint8(tf.round(pixels))


def _to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(pixels, 0.0, 255.0), tf.uint8)


def maybe_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror [H, W, C] left to right, or not; the same seed decides the same."""
    mirrored = draw_uniforms(seed, 1, stream=FLIP_STREAM)[0] < 0.5
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)


# -- which part ---------------------------------------------------------------------------------
# A window is int32 [4]: first row, first column, height, width, as the JPEG decoder takes it.


def random_window(
    shape: tf.Tensor,
    seed: tf.Tensor,
    *,
    image_size: int,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Sample a window of the given area and aspect ratio; after ten failures take the centre window.

    As in the reference, a window that covers the whole image counts as a failure.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        image_size=shape,
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=aspect_ratio_range,
        area_range=area_range,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    size = size[:2]
    return tf.cond(
        tf.reduce_all(tf.equal(size, shape[:2])),
        lambda: centre_window(shape, image_size=image_size),
        lambda: tf.concat([begin[:2], size], axis=0),
    )


def centre_window(
    shape: tf.Tensor, *, image_size: int, crop_padding: int | None = None
) -> tf.Tensor:
    """Return the centred window of S / (S + padding) of the shorter side; odd pixels go above and left."""
    if crop_padding is None:
        crop_padding = round(image_size * (1 / CENTRE_SHARE - 1))
    share = image_size / (image_size + crop_padding)
    shorter = tf.cast(tf.reduce_min(shape[:2]), tf.float32)
    side = tf.maximum(tf.cast(share * shorter, tf.int32), 1)
    begin = (shape[:2] - side + 1) // 2
    return tf.concat([begin, tf.stack([side, side])], axis=0)


# -- decoding and resizing ----------------------------------------------------------------------


def decode_window(
    image_bytes: tf.Tensor, choose_window: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Decode the window that `choose_window` picks by the image's shape: uint8 [h, w, 3]."""

    def jpeg() -> tf.Tensor:
        window = choose_window(jpeg_shape(image_bytes))
        return tf.image.decode_and_crop_jpeg(image_bytes, window, channels=3)

    def anything_else() -> tf.Tensor:
        image = _decode_whole(check_header_unless_jpeg(image_bytes))
        window = choose_window(tf.shape(image))
        return tf.slice(image, [window[0], window[1], 0], [window[2], window[3], 3])

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


def resize_square(image: tf.Tensor, image_size: int, method: Resize = "bicubic") -> tf.Tensor:
    """Resize any [h, w, 3] to float32 [image_size, image_size, 3] with TensorFlow 1's kernels."""
    kernels = {"bicubic": tf.raw_ops.ResizeBicubic, "bilinear": tf.raw_ops.ResizeBilinear}
    if method not in kernels:
        raise ValueError(f"unknown resize method {method!r}; known: {', '.join(kernels)}")
    resized = kernels[method](
        images=image[tf.newaxis],
        size=[image_size, image_size],
        align_corners=False,
        half_pixel_centers=False,
    )
    return tf.ensure_shape(resized[0], [image_size, image_size, 3])

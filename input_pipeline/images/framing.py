"""Framings: which part of an image the network sees, at which scale, and what is padded.

A framing picks a part by the image's shape; decoding, resizing, mirroring and padding are common to all. A
new framing is one class here and its row in TRAIN_FRAMINGS or EVAL_FRAMINGS.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import tensorflow as tf

from input_pipeline.draws import draw_uniforms
from input_pipeline.images.crop import (
    OddPixels,
    Part,
    Resize,
    centre_window,
    decode_part,
    random_window,
    resize_to,
    sampled_window,
)
from input_pipeline.images.placement import (
    Placement,
    Size,
    height_width,
    placement_of_window,
)

# Mixed into the seed, so that crop, flip and augmentation may be drawn from the same one.
FLIP_STREAM, JITTER_STREAM = 0x0F11B, 0x517E5


class Framing(Protocol):
    """A rule that picks a part of an image.

    Attributes:
      pads: whether the part may be smaller than the result.
    """

    pads: ClassVar[bool]

    @property
    def centered(self) -> bool:
        """Whether padding is on all sides; otherwise it is below and on the right."""

    def part(self, shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor | None) -> Part:
        """Pick the part of an image of `shape`, int32 [3], for a result of `size`."""


class _Filling:
    """The framings whose part fills the result."""

    pads: ClassVar[bool] = False
    centered: ClassVar[bool] = False


@dataclass(frozen=True)
class RandomCrop(_Filling):
    """A random window, resized to the result: the published training crop.

    Attributes:
      area_range: share of the image's area that the window covers.
      aspect_ratio_range: width / height of the window.
    """

    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3)

    def part(self, shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor | None) -> Part:
        """Pick a random window; see `crop.random_window`."""
        window = random_window(
            shape,
            seed,
            size=size,
            area_range=self.area_range,
            aspect_ratio_range=self.aspect_ratio_range,
        )
        return _filling(window, size)


@dataclass(frozen=True)
class RandomSample(_Filling):
    """A random window as EfficientNetV2's code draws it: a hundred attempts, then the whole image.

    Attributes:
      area_range: share of the image's area that the window covers.
      aspect_ratio_range: width / height of the window.
    """

    area_range: tuple[float, float] = (0.05, 1.0)
    aspect_ratio_range: tuple[float, float] = (0.75, 1.33)

    def part(self, shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor | None) -> Part:
        """Pick a random window; see `crop.sampled_window`."""
        window = sampled_window(
            shape,
            seed,
            area_range=self.area_range,
            aspect_ratio_range=self.aspect_ratio_range,
        )
        return _filling(window, size)


@dataclass(frozen=True)
class CenterCrop(_Filling):
    """The centre of the image, resized to the result: the published evaluation crop.

    Attributes:
      crop_padding: see `crop.centre_window`; None keeps 87.5 %, and the published checkpoints were
        evaluated with 32 at every size.
      odd_pixels: where a pixel too many is cut off, see `crop.centre_window`.
    """

    crop_padding: int | None = None
    odd_pixels: OddPixels = "before"

    def part(self, shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor | None) -> Part:
        """Pick the centre window."""
        window = centre_window(
            shape, size=size, crop_padding=self.crop_padding, odd_pixels=self.odd_pixels
        )
        return _filling(window, size)


@dataclass(frozen=True)
class Squash(_Filling):
    """The whole image, resized to the result whatever its aspect ratio."""

    def part(self, shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor | None) -> Part:
        """Pick the whole image."""
        return _filling(_whole(shape), size)


@dataclass(frozen=True)
class Letterbox:
    """The whole image at its aspect ratio, as large as it fits; the rest is padding.

    Attributes:
      alignment: "center", or "top_left" as detection networks are trained.
    """

    alignment: Literal["center", "top_left"] = "center"
    pads: ClassVar[bool] = True

    @property
    def centered(self) -> bool:
        """Whether padding is on both sides."""
        return self.alignment == "center"

    def part(self, shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor | None) -> Part:
        """Pick the whole image."""
        sides = tf.cast(shape[:2], tf.float32)
        valid = tf.minimum(_round_to_pixels(sides * _fitting_scale(sides, size)), size)
        room = tf.constant(size) - valid
        return Part(_whole(shape), valid, room // 2 if self.centered else tf.zeros_like(room))


@dataclass(frozen=True)
class ScaleJitter:
    """The image at a random scale: cropped at random where it is too large, padded where it is small.

    The large-scale jitter of detection (arXiv 1911.09070, 2012.07177). Deviation: the published code
    resizes the whole image and crops the result; here the window is cropped first, in whole pixels of
    the source, and only that is decoded.

    Attributes:
      scale_range: of the scale, as a multiple of the one at which the whole image fits.
    """

    scale_range: tuple[float, float] = (0.1, 2.0)
    pads: ClassVar[bool] = True
    centered: ClassVar[bool] = False

    def part(self, shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor | None) -> Part:
        """Pick a random window whose size follows from a random scale."""
        draws = draw_uniforms(seed, 3, stream=JITTER_STREAM)
        low, high = self.scale_range
        sides = tf.cast(shape[:2], tf.float32)
        scale = _fitting_scale(sides, size) * (low + draws[0] * (high - low))
        valid = tf.minimum(_round_to_pixels(sides * scale), size)
        extent = tf.minimum(_round_to_pixels(tf.cast(valid, tf.float32) / scale), shape[:2])
        room = shape[:2] - extent
        first = tf.cast(draws[1:] * tf.cast(room + 1, tf.float32), tf.int32)
        return Part(
            tf.concat([tf.minimum(first, room), extent], axis=0), valid, tf.zeros([2], tf.int32)
        )


TRAIN_FRAMINGS: Mapping[str, type[Any]] = {
    "random_crop": RandomCrop,
    "random_sample": RandomSample,
    "squash": Squash,
    "scale_jitter": ScaleJitter,
}
EVAL_FRAMINGS: Mapping[str, type[Any]] = {
    "center_crop": CenterCrop,
    "squash": Squash,
    "letterbox": Letterbox,
}


class Framed(NamedTuple):
    """Pixels, uint8 [h, w, 3], without padding, and where they come from and belong."""

    image: tf.Tensor
    placement: Placement


def frame_train(
    image_bytes: tf.Tensor,
    seed: tf.Tensor,
    framing: Framing,
    size: Size,
    *,
    resize: Resize = "bicubic",
    flip: bool = True,
) -> Framed:
    """Decode the part of an image that `framing` picks, resize it, and mirror half of the images.

    Args:
      image_bytes: string scalar, an encoded image.
      seed: int32 or int64 [2]; the same seed gives the same pixels.
      framing: picks the part.
      size: of the result.
      resize: kernel; see `crop.resize_to`.
      flip: whether half of the images are mirrored left to right.

    Returns:
      Pixels, truncated as the reference does. A framing that does not pad gives all of `size`.

    Raises:
      tf.errors.InvalidArgumentError: not an image, or a broken one.
    """
    pixels, placement = resized_part(image_bytes, framing, size, resize=resize, seed=seed)
    image = _to_uint8(pixels)
    if not flip:
        return Framed(image, placement)
    mirrored = draw_uniforms(seed, 1, stream=FLIP_STREAM)[0] < 0.5
    image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    return Framed(image, placement.mirror(mirrored))


def frame_eval(
    image_bytes: tf.Tensor, framing: Framing, size: Size, *, resize: Resize = "bicubic"
) -> Framed:
    """Decode the part of an image that `framing` picks and resize it, rounded and clipped to uint8.

    Deviation: the reference feeds the network the unrounded, unclipped pixels. A quarter of the bytes
    go to the device this way; docs/parity.md lists the size of the difference.

    Args and raises as `frame_train`.
    """
    pixels, placement = resized_part(image_bytes, framing, size, resize=resize)
    return Framed(_to_uint8(tf.round(pixels)), placement)


def resized_part(
    image_bytes: tf.Tensor,
    framing: Framing,
    size: Size,
    *,
    resize: Resize = "bicubic",
    seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, Placement]:
    """Return the part's pixels, float32 [h, w, 3], neither rounded nor clipped, and its placement.

    Bicubic overshoots 0..255. Args and raises as `frame_train`.
    """
    known = height_width(size)
    pixels, part, source_size = decode_part(
        image_bytes, lambda shape: framing.part(shape, known, seed)
    )
    image = resize_to(pixels, part.valid if framing.pads else known, resize)
    half_pixel = resize == "bilinear_half_pixel"
    return image, placement_of_window(
        part.window, source_size, part.corner, part.valid, half_pixel=half_pixel
    )


def pad_to(framed: Framed, size: Size) -> tf.Tensor:
    """Return the image with zeros around it as its placement says: uint8 [H, W, 3]."""
    height, width = height_width(size)
    before, valid = framed.placement.corner, framed.placement.valid
    after = tf.constant([height, width]) - before - valid
    padded = tf.pad(framed.image, tf.pad(tf.stack([before, after], axis=1), [[0, 1], [0, 0]]))
    return tf.ensure_shape(padded, [height, width, 3])


def _to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(pixels, 0.0, 255.0), tf.uint8)


def _filling(window: tf.Tensor, size: tuple[int, int]) -> Part:
    return Part(window, tf.constant(size), tf.constant([0, 0]))


def _whole(shape: tf.Tensor) -> tf.Tensor:
    return tf.concat([[0, 0], shape[:2]], axis=0)


def _fitting_scale(sides: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Return the largest scale at which an image of these sides, float32 [2], fits into `size`."""
    return tf.reduce_min(tf.constant(size, tf.float32) / sides)


def _round_to_pixels(sides: tf.Tensor) -> tf.Tensor:
    return tf.maximum(tf.cast(tf.round(sides), tf.int32), 1)

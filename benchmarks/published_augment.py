"""AutoAugment in the published code's structure, to compare the project's own with.

A chain of 25 conditions on the drawn sub-policy, each with two conditions on whether its operations fire;
every operation in its plain form; geometry on four channels, of which the last marks what to fill. Draws are
those of the project's AutoAugment, so that pixels can be compared.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.augment import policies
from input_pipeline.draws import draw_uniforms

AugmentFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def published_structure(image_size: int) -> AugmentFunction:
    """Build (uint8 [S, S, 3], seed) -> image: AutoAugment() in the published code's structure."""
    sub_policies = [
        [(_operation(name, level, image_size), chance) for name, chance, level in pair]
        for pair in policies.SUB_POLICIES
    ]

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        uniforms = draw_uniforms(seed, 9, stream=policies.STREAM)
        row = tf.cast(tf.cast(uniforms[0], tf.float64) * len(sub_policies), tf.int32)
        own = tf.split(uniforms[1:], 2)

        def sub_policy(pair: Sequence[Any]) -> tf.Tensor:
            result = image
            for (operation, chance), (fires, sign, *_) in zip(
                pair, map(tf.unstack, own), strict=True
            ):
                result = tf.cond(
                    tf.cast(fires, tf.float64) < chance,
                    lambda x=result, f=operation, sign=sign: f(x, sign < 0.5),
                    lambda x=result: x,
                )
            return result

        for number, pair in enumerate(sub_policies):
            image = tf.cond(row == number, lambda p=pair: sub_policy(p), lambda x=image: x)
        return image

    return tf.autograph.experimental.do_not_convert(augment)


def _operation(name: str, level: int, image_size: int) -> Callable[..., tf.Tensor]:
    """Build an operation of (image, whether a signed argument is positive)."""
    share = level / 10
    shear, pixels, factor = share * 0.3, share * 250.0, share * 1.8 + 0.1
    shift = np.uint8(min(8 - int(share * 4), 7))
    threshold, addition = np.uint8(int(share * 256) % 256), int(share * 110)
    return {
        "AutoContrast": lambda x, _: _per_channel(x, _stretch),
        "Equalize": lambda x, _: _per_channel(x, _flatten_histogram),
        "Invert": lambda x, _: 255 - x,
        "Posterize": lambda x, _: tf.bitwise.left_shift(tf.bitwise.right_shift(x, shift), shift),
        "Solarize": lambda x, _: tf.where(x < threshold, x, 255 - x),
        "SolarizeAdd": lambda x, _: _add_to_dark(x, addition),
        "Color": lambda x, _: _blend_with_grey(x, factor),
        "Rotate": _transform(*(_rotation(s * share * 30.0, image_size) for s in (1, -1))),
        "ShearX": _transform(*([1, s * shear, 0, 0, 1, 0, 0, 0] for s in (1, -1))),
        "ShearY": _transform(*([1, 0, 0, s * shear, 1, 0, 0, 0] for s in (1, -1))),
        "TranslateY": _transform(*([1, 0, 0, 0, 1, s * pixels, 0, 0] for s in (1, -1))),
    }[name]


def _per_channel(image: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    return tf.stack([function(image[..., channel]) for channel in range(3)], axis=-1)


def _stretch(channel: tf.Tensor) -> tf.Tensor:
    values = tf.cast(channel, tf.float32)
    low, high = tf.reduce_min(values), tf.reduce_max(values)

    def stretch() -> tf.Tensor:
        scale = 255.0 / (high - low)
        return tf.cast(tf.clip_by_value(values * scale - low * scale, 0.0, 255.0), tf.uint8)

    return tf.cond(high > low, stretch, lambda: channel)


def _flatten_histogram(channel: tf.Tensor) -> tf.Tensor:
    values = tf.cast(channel, tf.int32)
    histogram = tf.histogram_fixed_width(values, [0, 255], nbins=256)
    filled = tf.boolean_mask(histogram, histogram > 0)
    step = (tf.reduce_sum(filled) - filled[-1]) // 255

    def flatten() -> tf.Tensor:
        table = (tf.cumsum(histogram) + step // 2) // step
        table = tf.clip_by_value(tf.concat([[0], table[:-1]], axis=0), 0, 255)
        return tf.cast(tf.gather(table, values), tf.uint8)

    return tf.cond(step == 0, lambda: channel, flatten)


def _add_to_dark(image: tf.Tensor, addition: int) -> tf.Tensor:
    added = tf.clip_by_value(tf.cast(image, tf.int64) + addition, 0, 255)
    return tf.where(image < 128, tf.cast(added, tf.uint8), image)


def _blend_with_grey(image: tf.Tensor, factor: float) -> tf.Tensor:
    grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    start, end = tf.cast(grey, tf.float32), tf.cast(image, tf.float32)
    return tf.cast(tf.clip_by_value(start + factor * (end - start), 0.0, 255.0), tf.uint8)


def _rotation(degrees: float, image_size: int) -> list[float]:
    """Compute the transform as constants, so that graph rewriting does not change its rounding."""
    radians, last = np.float32(degrees) * np.float32(math.pi / 180.0), np.float32(image_size - 1)
    cosine, sine = tf.cos(radians).numpy(), tf.sin(radians).numpy()
    x_offset = (last - (cosine * last - sine * last)) / np.float32(2)
    y_offset = (last - (sine * last + cosine * last)) / np.float32(2)
    return [cosine, -sine, x_offset, sine, cosine, y_offset, 0.0, 0.0]


def _transform(plus: Sequence[float], minus: Sequence[float]) -> Callable[..., tf.Tensor]:
    both = [np.asarray([figures], np.float32) for figures in (plus, minus)]

    def transform(image: tf.Tensor, positive: tf.Tensor) -> tf.Tensor:
        wrapped = tf.concat([image, tf.ones_like(image[..., :1])], axis=2)
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=wrapped[tf.newaxis],
            transforms=tf.where(positive, *both),
            output_shape=tf.shape(image)[:2],
            fill_value=0.0,
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        )[0]
        outside = tf.equal(moved[..., 3:], 0)
        return tf.where(outside, tf.constant(128, tf.uint8), moved[..., :3])

    return transform

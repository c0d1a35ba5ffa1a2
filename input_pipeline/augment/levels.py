"""Convert levels to the arguments of operations: level 10 is the far end of the range.

Numbers of the published EfficientNet code. A level is a Python number or a float64 scalar tensor, and
levels above 10 go on along the same line. Whole-numbered arguments are cut off in float64, as there.
"""

import tensorflow as tf

from input_pipeline.augment.geometry import Scalar

TRANSLATE_SHARE = 150 / 331  # of the side at level 10: the AutoAugment paper's 150 of 331 pixels


def rotate_degrees(level: Scalar) -> Scalar:
    """Up to 30 degrees."""
    return level / 10 * 30


def shear_level(level: Scalar) -> Scalar:
    """Up to 0.3 pixels per pixel."""
    return level / 10 * 0.3


def translate_pixels(level: Scalar, translate_const: Scalar) -> Scalar:
    """Up to `translate_const` pixels."""
    return level / 10 * translate_const


def posterize_bits(level: Scalar) -> Scalar:
    """Up to 4 bits kept."""
    return _whole(level / 10 * 4)


def solarize_threshold(level: Scalar) -> Scalar:
    """Up to 256: from inverting everything to inverting nothing."""
    return _whole(level / 10 * 256)


def solarize_addition(level: Scalar) -> Scalar:
    """Up to 110 grey levels added."""
    return _whole(level / 10 * 110)


def enhancement_factor(level: Scalar) -> Scalar:
    """From 0.1 to 1.9, for color, contrast, brightness and sharpness."""
    return level / 10 * 1.8 + 0.1


def cutout_half_size(level: Scalar, cutout_const: Scalar) -> Scalar:
    """Up to `cutout_const` pixels from the centre to the edge of the square."""
    return _whole(level / 10 * cutout_const)


def _whole(value: Scalar) -> Scalar:
    return tf.cast(value, tf.int32) if tf.is_tensor(value) else int(value)

"""The 1,797 handwritten digits that ship with scikit-learn."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from input_pipeline.sources.packaged import PackagedSet, Picture

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VALIDATION_EVERY = 5  # of each class, every fifth image
IMAGE_SIZE = 32  # pixels; the originals have 8, too few for crops at fractions of a pixel


def read_digits() -> Mapping[str, Sequence[Picture]]:
    """Return the digits of each split, enlarged to IMAGE_SIZE."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pictures = [
        Picture(pixels, int(label), f"digit_{number:04d}")
        for number, (pixels, label) in enumerate(zip(_enlarge(images), labels, strict=True))
    ]
    return {
        split: [pictures[n] for n in members] for split, members in split_digits(labels).items()
    }


DIGITS = PackagedSet("digits", CLASS_NAMES, read_digits)


def split_digits(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of each split, stratified, each in one fixed random order."""
    place_in_class = np.zeros(len(labels), np.int64)
    for digit in range(len(CLASS_NAMES)):
        members = np.flatnonzero(labels == digit)
        place_in_class[members] = np.arange(len(members))
    held_out = place_in_class % VALIDATION_EVERY == VALIDATION_EVERY - 1
    order = np.random.default_rng(0).permutation(len(labels))
    return {"train": order[~held_out[order]], "validation": order[held_out[order]]}


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Convert 8 x 8 images of levels 0..16 [n, 64] to uint8 [n, IMAGE_SIZE, IMAGE_SIZE, 3]."""
    with tf.device("CPU"):
        grey = tf.reshape(tf.constant(images, tf.float32), [-1, 8, 8, 1]) * (255.0 / 16.0)
        large = tf.image.resize(grey, [IMAGE_SIZE, IMAGE_SIZE], method="bicubic")
        levels = tf.cast(tf.clip_by_value(tf.round(large), 0.0, 255.0), tf.uint8)
        return tf.repeat(levels, 3, axis=-1).numpy()

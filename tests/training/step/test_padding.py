import numpy as np
import pytest
import tensorflow as tf

from training.step.padding import fill_padding, network_input

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)


def normalize(images: tf.Tensor) -> tf.Tensor:
    return (tf.cast(images, tf.float32) - 100.0) / 50.0


def test_images_without_padding_are_normalised_alone():
    batch = {"image": tf.constant(IMAGES)}
    np.testing.assert_array_equal(network_input(batch, normalize), normalize(IMAGES))


@pytest.mark.parametrize("corner", [None, [[0, 0], [1, 2], [6, 8]]])
def test_padding_is_exactly_0_after_normalisation_and_the_rest_unchanged(corner):
    valid = [[6, 8], [2, 3], [0, 0]]
    batch = {"image": tf.constant(IMAGES), "valid": tf.constant(valid)}
    if corner:
        batch["corner"] = tf.constant(corner)
    expected = np.zeros([3, 6, 8, 3], np.float32)
    for n, ((row, column), (height, width)) in enumerate(
        zip(corner or [[0, 0]] * 3, valid, strict=True)
    ):
        part = n, slice(row, row + height), slice(column, column + width)
        expected[part] = normalize(IMAGES)[part]
    np.testing.assert_array_equal(network_input(batch, normalize), expected)


def test_padding_of_the_mean_colour_normalises_to_0():
    mean = (123.675, 116.28, 103.53)
    batch = {"valid": tf.constant([[2, 2]] * 3)}
    filled = fill_padding(tf.cast(IMAGES, tf.float32), batch, mean)
    assert not (filled - tf.constant(mean))[:, 2:].numpy().any()

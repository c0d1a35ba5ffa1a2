"""Constants are folded when the graph is built, and groups lose nothing."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import layout, operations


def kinds(function, *signature):
    """The operations in the graph of a function."""
    graph = tf.function(function, autograph=False).get_concrete_function(*signature).graph
    return [operation.type for operation in graph.get_operations()]


IMAGE = tf.TensorSpec([8, 8, 3], tf.uint8)  # whole words of bytes


@pytest.mark.parametrize(
    ("operation", "argument"),
    [
        (operations.rotate, 12.0),
        (operations.shear_x, 0.2),
        (operations.shear_y, -0.2),
        (operations.translate_x, 2.0),
        (operations.translate_y, -2.0),
        (operations.posterize, 3),
        (operations.solarize, 100),
    ],
)
def test_only_what_depends_on_pixels_is_left_in_the_graph(operation, argument):
    arithmetic = {"Cos", "Range", "Floor", "FloorMod", "LeftShift", "Mul", "Shape", "StridedSlice"}
    if operation is operations.solarize:
        arithmetic.remove("Mul")  # the mask that follows from pixels
    assert not arithmetic & set(kinds(lambda image: operation(image, argument), IMAGE))
    drawn = kinds(operation, IMAGE, tf.TensorSpec([], tf.float32))
    assert arithmetic & set(drawn)


def test_a_number_is_computed_at_once_and_a_tensor_in_the_graph():
    def double(value):
        return tf.cast(value, tf.float32) * 2

    found = []

    def function(tensor):
        found.append(layout.when_known(double, 3))
        return layout.when_known(double, tensor)

    assert "Mul" in kinds(function, tf.TensorSpec([], tf.int32))
    assert isinstance(found[0], np.float32)
    assert found[0] == 6


def test_a_move_by_nothing_is_the_image():
    image = tf.zeros([4, 4, 3], tf.uint8)
    for move in (operations.rotate, operations.shear_x, operations.shear_y, operations.translate_x):
        assert move(image, 0.0) is image


@pytest.mark.parametrize("shape", [(4, 2, 3), (3, 5, 3), (1, 1, 3)])
@pytest.mark.parametrize("known", [True, False])
def test_groups_are_filled_with_zeros_and_undone(shape, known):
    image = np.arange(1, 1 + np.prod(shape)).astype(np.uint8).reshape(shape)
    spec = tf.TensorSpec(shape if known else [None, None, 3], tf.uint8)

    @tf.function(input_signature=[spec], autograph=False)
    def there_and_back(picture):
        groups = layout.in_groups(picture, 8)
        return groups, layout.out_of_groups(picture, groups)

    groups, back = there_and_back(image)
    assert groups.shape == (-(-image.size // 8), 8)
    expected = np.zeros(groups.shape, np.uint8)
    expected.flat[: image.size] = image.flat
    np.testing.assert_array_equal(groups, expected)
    np.testing.assert_array_equal(back, image)

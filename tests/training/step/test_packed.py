"""Lists of tensors as one vector, and back."""

import numpy as np
import tensorflow as tf

from training.step.packed import pack, unpack


def test_unpacking_undoes_packing():
    tensors = [tf.reshape(tf.range(6.0), [2, 3]), tf.constant(7.0), tf.constant([8.0, 9.0])]
    vector = pack(tensors)
    np.testing.assert_array_equal(vector, [0, 1, 2, 3, 4, 5, 7, 8, 9])
    for before, after in zip(tensors, unpack(vector, tensors), strict=True):
        assert before.shape == after.shape
        np.testing.assert_array_equal(before, after)


def test_the_shapes_may_come_from_variables():
    like = [tf.Variable(tf.zeros([2, 1])), tf.Variable(tf.zeros([3]))]
    first, second = unpack(tf.range(5.0), like)
    np.testing.assert_array_equal(first, [[0], [1]])
    np.testing.assert_array_equal(second, [2, 3, 4])

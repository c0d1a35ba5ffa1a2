"""Clipping by the norm of the whole gradient."""

import numpy as np
import tensorflow as tf

from training.step.gradients import clip, clip_by_norm, clip_each
from training.step.packed import Layout, Packed

GRADIENT = tf.constant([3.0, -4.0])  # of norm 5


def test_a_gradient_that_is_too_long_is_scaled_to_the_limit():
    np.testing.assert_allclose(
        clip_by_norm(GRADIENT, tf.norm(GRADIENT), 2.5), [1.5, -2.0], rtol=1e-6
    )


def test_a_short_gradient_and_one_without_limit_stay():
    for limit in (5.0, 100.0, None):
        np.testing.assert_array_equal(clip_by_norm(GRADIENT, tf.norm(GRADIENT), limit), GRADIENT)


def test_a_gradient_of_zeros_stays_finite():
    zeros = tf.zeros([3])
    np.testing.assert_array_equal(clip_by_norm(zeros, tf.norm(zeros), 1.0), zeros)


def test_each_variable_is_clipped_for_itself():
    gradient = Packed(tf.constant([3.0, 4.0, 0.3, 0.4]), Layout(("a", "b"), (2, 2)))
    np.testing.assert_allclose(clip_each(gradient, 1.0), [0.6, 0.8, 0.3, 0.4], rtol=1e-6)
    assert clip_each(gradient, None) is gradient.vector


def test_variables_are_clipped_before_the_whole():
    gradient = Packed(tf.constant([3.0, 4.0, 0.0, 0.6]), Layout(("a", "b"), (2, 2)))
    norm = tf.norm(gradient.vector)
    clipped = clip(gradient, norm, each=0.8, whole=0.5)
    # Each of at most 0.8 gives a norm of 1, of which half is left.
    np.testing.assert_allclose(clipped, [0.24, 0.32, 0.0, 0.3], rtol=1e-6)
    np.testing.assert_allclose(
        clip(gradient, norm, each=None, whole=0.5), clip_by_norm(gradient.vector, norm, 0.5)
    )

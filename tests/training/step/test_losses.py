"""The loss of the recipe, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from efficientnet import build_model, get_spec
from training.step.losses import cross_entropy, is_decayed, l2_loss


def test_cross_entropy_is_that_of_the_true_class():
    # softmax of (log 1, log 2, log 5) is (1/8, 2/8, 5/8)
    logits = tf.math.log([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]])
    loss = cross_entropy(logits, tf.constant([0, 2]), label_smoothing=0.0)
    np.testing.assert_allclose(loss, [math.log(8), math.log(8 / 5)], rtol=1e-6)


def test_smoothing_spreads_its_share_over_all_classes_the_true_one_included():
    logits = tf.math.log([[1.0, 2.0, 5.0]])
    log_8 = math.log(8)
    entropies = np.array([log_8, log_8 - math.log(2), log_8 - math.log(5)])
    expected = (0.7 + 0.1) * entropies[2] + 0.1 * (entropies[0] + entropies[1])
    loss = cross_entropy(logits, tf.constant([2]), label_smoothing=0.3)
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_shares_of_one_class_are_the_same_as_its_number():
    logits = tf.random.stateless_normal([6, 10], seed=[1, 2])
    labels = tf.constant([0, 3, 9, 1, 1, 5])
    hard = cross_entropy(logits, labels, label_smoothing=0.1)
    soft = cross_entropy(logits, tf.one_hot(labels, 10), label_smoothing=0.1)
    np.testing.assert_array_equal(hard, soft)


def test_shares_of_two_classes_mix_their_losses():
    logits = tf.random.stateless_normal([1, 4], seed=[1, 2])
    first, second = (cross_entropy(logits, tf.constant([c]), label_smoothing=0.1) for c in (0, 2))
    mixed = cross_entropy(logits, tf.constant([[0.25, 0.0, 0.75, 0.0]]), label_smoothing=0.1)
    np.testing.assert_allclose(mixed, 0.25 * first + 0.75 * second, rtol=1e-6)


def test_l2_is_half_the_sum_of_squares():
    weights = [tf.constant([3.0, -4.0]), tf.constant([[2.0]])]
    assert float(l2_loss(weights)) == pytest.approx((9 + 16 + 4) / 2)


def test_everything_but_batch_norm_is_decayed_biases_too():
    network = build_model(get_spec("efficientnet-b0", width=0.25, depth=0.3), num_classes=10)
    normalizations = {layer.name for layer in network.layers if layer.name.endswith("_bn")}
    paths = [v.path for v in network.trainable_variables]
    kept = [path for path in paths if path.split("/")[0] in normalizations]
    assert len(normalizations) > 20
    assert len(kept) == 2 * len(normalizations)
    assert [path for path in paths if not is_decayed(path)] == kept
    assert is_decayed("block_0_se_reduce/bias")
    assert is_decayed("classifier/bias")

"""Which variables decay, and whether through the loss or apart from it."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnet import build_model, get_spec
from training.step.weight_decay import WeightDecay, l2_loss


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
    assert [path for path in paths if not WeightDecay().applies(path)] == kept
    assert WeightDecay().applies("block_0_se_reduce/bias")
    assert WeightDecay().applies("classifier/bias")


PATHS = ["stem_conv/kernel", "stem_bn/gamma", "classifier/bias"]
WEIGHTS = [tf.constant([3.0]), tf.constant([5.0]), tf.constant([4.0])]


def test_coupled_decay_is_a_part_of_the_loss_and_none_of_the_optimizers():
    decay = WeightDecay(0.1)
    assert float(decay.loss(PATHS, WEIGHTS)) == pytest.approx(0.1 * (9 + 16) / 2)
    np.testing.assert_array_equal(decay.decoupled_rates(PATHS), [0.0, 0.0, 0.0])


def test_decoupled_decay_is_the_optimizers_and_no_part_of_the_loss():
    decay = WeightDecay(0.1, coupled=False, pattern=r".*/kernel$")
    assert decay.loss(PATHS, WEIGHTS) == 0.0
    np.testing.assert_allclose(decay.decoupled_rates(PATHS), [0.1, 0.0, 0.0], rtol=1e-6)

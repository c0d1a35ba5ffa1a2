"""Optimizers and the moving average as pure functions of tensors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from proofs import parity_v1
from training.optimizers import LARS, SGD, AdamW, RMSProp
from training.step.packed import Layout, Packed

LAYOUT = Layout(("w/kernel",), (1,))
NO_DECAY = np.zeros(1, np.float32)


def packed(values):
    return Packed(tf.constant(values), LAYOUT)


def test_forty_updates_of_rmsprop_and_average_are_the_references(goldens):
    rows = list(parity_v1.optimizer_rows(goldens))
    assert [row.item for row in rows] == ["variable", "ema", "rms", "momentum"]
    for row in rows:
        assert row.passed, row


def test_rmsprop_starts_its_mean_square_at_one():
    assert RMSProp().initial_slots == {"rms": 1.0, "momentum": 0.0}


def test_rmsprop_adds_epsilon_inside_the_root():
    optimizer = RMSProp(decay=0.0, momentum=0.0, epsilon=0.75)
    slots = {"rms": tf.constant([1.0]), "momentum": tf.constant([0.0])}
    weight, slots = optimizer.update(
        packed([10.0]), tf.constant([0.5]), slots, tf.constant(2.0), NO_DECAY
    )
    # rms = 0.25; 2 * 0.5 / sqrt(0.25 + 0.75)
    np.testing.assert_allclose(weight, [9.0], rtol=1e-6)
    np.testing.assert_allclose(slots["rms"], [0.25], rtol=1e-6)


@pytest.mark.parametrize(
    ("nesterov", "expected"),
    # momentum: 1, 0.5 * 1 + 2 = 2.5; without Nesterov w = -0.1 * 1, then -0.1 * 2.5 more;
    # with it each step goes along g + 0.5 m: 1.5, then 2 + 1.25 = 3.25.
    [(False, [-0.1, -0.35]), (True, [-0.15, -0.475])],
)
def test_sgd_is_what_a_hand_computes(nesterov, expected):
    optimizer = SGD(momentum=0.5, nesterov=nesterov)
    weight, slots = tf.constant([0.0]), {"momentum": tf.constant([0.0])}
    assert optimizer.initial_slots == {"momentum": 0.0}
    seen = []
    for gradient in (1.0, 2.0):
        weight, slots = optimizer.update(
            Packed(weight, LAYOUT), tf.constant([gradient]), slots, tf.constant(0.1), NO_DECAY
        )
        seen.append(float(weight[0]))
    assert seen == pytest.approx(expected)


# -- optimizers that know the boundaries of the variables ------------------------------------------

NAMES = ("conv/kernel", "bn/gamma", "classifier/kernel")
SHAPES = ((3, 2), (4,), (5,))
SEVERAL = Layout(NAMES, (6, 4, 5))


def several(seed):
    """Random values of each variable, and the same as one vector."""
    random = np.random.default_rng(seed)
    parts = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    return parts, tf.constant(np.concatenate([part.reshape(-1) for part in parts]))


def run(optimizer, rate, decay, updates=4):
    """Weights after updates by fixed random gradients."""
    _, vector = several(0)
    slots = {name: tf.fill([15], start) for name, start in optimizer.initial_slots.items()}
    slots |= {name: tf.constant(start) for name, start in optimizer.initial_counts.items()}
    for update in range(updates):
        vector, slots = optimizer.update(
            Packed(vector, SEVERAL), several(update + 1)[1], slots, rate, decay
        )
    return vector.numpy()


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_adamw_is_keras_adamw(decay):
    theirs = keras.optimizers.AdamW(0.01, weight_decay=decay, epsilon=1e-8)
    variables = [keras.Variable(part) for part in several(0)[0]]
    theirs.build(variables)
    for update in range(4):
        theirs.apply([keras.ops.convert_to_tensor(g) for g in several(update + 1)[0]])
    expected = np.concatenate([v.numpy().reshape(-1) for v in variables])
    found = run(AdamW(), tf.constant(0.01), np.full(3, decay, np.float32))
    # Keras adds epsilon before it corrects the bias.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_lars_is_the_papers_algorithm_variable_by_variable():
    momentum, coefficient, rate, decay = 0.9, 0.02, 0.5, 0.1
    weights, velocity = several(0)[0], [np.zeros(shape) for shape in SHAPES]
    for update in range(4):
        for i, gradient in enumerate(several(update + 1)[0]):
            w = weights[i].astype(np.float64)
            own_decay = 0.0 if NAMES[i].endswith("gamma") else decay
            trust = 1.0
            if own_decay:
                norms = np.linalg.norm(w), np.linalg.norm(gradient.astype(np.float64))
                trust = coefficient * norms[0] / (norms[1] + decay * norms[0])
            velocity[i] = momentum * velocity[i] + rate * trust * (gradient + own_decay * w)
            weights[i] = w - velocity[i]
    expected = np.concatenate([w.reshape(-1) for w in weights])
    own = np.array([decay, 0.0, decay], np.float32)
    found = run(LARS(momentum, coefficient), tf.constant(rate), own)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_lars_leaves_a_variable_of_zeros_its_plain_rate():
    layout = Layout(("a/kernel",), (2,))
    weight, _ = LARS().update(
        Packed(tf.zeros([2]), layout),
        tf.constant([1.0, -2.0]),
        {"momentum": tf.zeros([2])},
        tf.constant(0.5),
        np.full(1, 0.1, np.float32),
    )
    np.testing.assert_allclose(weight, [-0.5, 1.0])


def test_the_rate_inside_the_velocity_is_keras_momentum():
    theirs = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    variables = [keras.Variable(part) for part in several(0)[0]]
    theirs.build(variables)
    _, vector = several(0)
    slots = {"momentum": tf.zeros([15])}
    for update, rate in enumerate(
        (0.1, 0.1, 0.02, 0.02)
    ):  # the forms differ where the rate changes
        theirs.learning_rate.assign(rate)
        theirs.apply([keras.ops.convert_to_tensor(g) for g in several(update + 1)[0]])
        vector, slots = SGD(0.9, nesterov=True, rate_in_velocity=True).update(
            Packed(vector, SEVERAL),
            several(update + 1)[1],
            slots,
            tf.constant(rate),
            np.zeros(3, np.float32),
        )
    expected = np.concatenate([v.numpy().reshape(-1) for v in variables])
    np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [RMSProp(), SGD(), AdamW()])
def test_decoupled_decay_takes_a_share_of_the_weights_apart_from_the_gradient(optimizer):
    own = np.array([0.5, 0.0, 0.5], np.float32)
    plain = run(optimizer, tf.constant(0.01), np.zeros(3, np.float32), updates=1)
    decayed = run(optimizer, tf.constant(0.01), own, updates=1)
    taken = np.repeat(own, SEVERAL.sizes) * 0.01 * several(0)[1].numpy()
    np.testing.assert_allclose(plain - decayed, taken, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("optimizer", [RMSProp(), SGD(), AdamW(), LARS()])
def test_rates_of_their_own_move_variables_in_proportion(optimizer):
    own = Packed(tf.zeros([15]), SEVERAL).spread(np.array([1.0, 0.0, 0.5], np.float32))
    start, no_decay = several(0)[1].numpy(), np.zeros(3, np.float32)
    alone = run(optimizer, tf.constant(0.01), no_decay, updates=1) - start
    found = run(optimizer, 0.01 * own, no_decay, updates=1) - start
    np.testing.assert_allclose(found[:6], alone[:6], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found[6:10], 0.0)
    np.testing.assert_allclose(found[10:], 0.5 * alone[10:], rtol=1e-3, atol=1e-6)

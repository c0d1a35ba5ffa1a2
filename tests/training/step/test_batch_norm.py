"""Batch norm against Keras' own layer and against numpy, alone and in groups of replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.step.batch_norm import CrossReplicaBatchNormalization

pytestmark = pytest.mark.slow

CHANNELS = 6
SHAPE = (4, 3, 5, CHANNELS)
RANDOM = np.random.default_rng(0)
GAMMA, BETA = RANDOM.uniform(0.5, 2.0, CHANNELS), RANDOM.normal(size=CHANNELS)
MEAN, VARIANCE = RANDOM.normal(size=CHANNELS), RANDOM.uniform(0.5, 2.0, CHANNELS)
STATE = [array.astype(np.float32) for array in (GAMMA, BETA, MEAN, VARIANCE)]
MOMENTUM, EPSILON = 0.9, 1e-3


def layer(kind=CrossReplicaBatchNormalization, **options):
    made = kind(momentum=MOMENTUM, epsilon=EPSILON, name="bn", **options)
    made.build((None, None, None, CHANNELS))
    made.set_weights(STATE)
    return made


def draw(replicas=1):
    """Inputs and upstream gradients, float32 [replicas, 4, 3, 5, channels], off centre and scale."""
    x = RANDOM.normal(1.0, 3.0, (replicas, *SHAPE)) + RANDOM.normal(size=(replicas, 1, 1, 1, 1))
    return x.astype(np.float32), RANDOM.normal(size=(replicas, *SHAPE)).astype(np.float32)


def normalize(x, upstream):
    """Training in float64: outputs, moments, and the gradients of x, gamma and beta by hand.

    arXiv 1502.03167, section 3.
    """
    x, upstream = x.astype(np.float64), upstream.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    deviation = np.sqrt(variance + EPSILON)
    normalized = (x - mean) / deviation
    dgamma, dbeta = (upstream * normalized).sum(axes), upstream.sum(axes)
    count = x.size / CHANNELS
    dx = GAMMA / deviation * (upstream - dbeta / count - normalized * dgamma / count)
    return GAMMA * normalized + BETA, mean, variance, dx, dgamma, dbeta


def test_weights_have_the_names_and_order_of_keras_layer():
    ours, theirs = layer(), layer(keras.layers.BatchNormalization)
    assert [v.path for v in ours.weights] == [v.path for v in theirs.weights]
    assert [v.path for v in ours.trainable_weights] == ["bn/gamma", "bn/beta"]


def test_inference_uses_the_moving_averages_and_leaves_them():
    x, _ = draw()
    ours, theirs = layer(), layer(keras.layers.BatchNormalization)
    expected = GAMMA * (x[0] - MEAN) / np.sqrt(VARIANCE + EPSILON) + BETA
    np.testing.assert_allclose(ours(x[0]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours(x[0]), theirs(x[0]), rtol=1e-5, atol=1e-5)
    for before, after in zip(STATE, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_training_does_what_keras_layer_does():
    x, upstream = draw()
    results = []
    for made in (layer(), layer(keras.layers.BatchNormalization)):
        inputs = tf.constant(x[0])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = made(inputs, training=True)
        sources = [inputs, *(v.value for v in made.trainable_weights)]
        gradients = tape.gradient(outputs, sources, tf.constant(upstream[0]))
        results.append([outputs, *gradients, *made.get_weights()])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_moving_variance_is_the_populations():
    x = draw()[0][0, :1, :1, :2]  # two values a channel: Bessel's correction would double it
    made = layer()
    made(x, training=True)
    _, _, mean, variance = made.get_weights()
    expected = MOMENTUM * VARIANCE + (1 - MOMENTUM) * x.astype(np.float64).var((0, 1, 2))
    np.testing.assert_allclose(variance, expected, rtol=1e-4)
    np.testing.assert_allclose(
        mean, MOMENTUM * MEAN + (1 - MOMENTUM) * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("training", [False, True])
def test_half_precision_goes_through_and_moments_stay_float32(training):
    x, _ = draw()
    made = layer(dtype="mixed_bfloat16")
    outputs = made(x[0], training=training)
    assert outputs.dtype == "bfloat16"
    assert all(v.dtype == "float32" for v in made.weights)
    expected = layer()(x[0], training=training)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.05)


# -- groups of replicas -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 4], ids=["groups_of_2", "all_4"])
def grouped(request, four_devices):
    """Every replica's results, computed in groups and in numpy on the whole batch of its group."""
    group, replicas = request.param, four_devices.num_replicas
    x, upstream = draw(replicas)
    with four_devices.strategy.scope():
        shared = layer(group_mean=four_devices.group_mean(group))

    def compute(x, upstream, replica):
        gamma, beta, *moving = (tf.constant(array) for array in STATE)
        with four_devices.as_replica(replica), tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y, state = shared.stateless_call([gamma, beta], moving, x, training=True)
            gradients = tape.gradient(y, [x, gamma, beta], upstream)
        return y, *state, *gradients

    spec = tf.TensorSpec(SHAPE, tf.float32)
    traced = tf.function(compute, autograph=False).get_concrete_function(
        spec, spec, four_devices.replica_spec()
    )
    run = four_devices.on_each_replica(traced)

    @tf.function(autograph=False)
    def on_all(x, upstream):
        def on_one(x, upstream):
            return run(x, upstream, four_devices.this_replica())

        return four_devices.strategy.run(on_one, args=(x, upstream))

    def spread(array):
        return four_devices.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[context.replica_id_in_sync_group])
        )

    local = four_devices.strategy.experimental_local_results
    found = [np.stack(local(value)) for value in on_all(spread(x), spread(upstream))]
    expected = [
        normalize(np.concatenate(x[i : i + group]), np.concatenate(upstream[i : i + group]))
        for i in range(0, replicas, group)
    ]
    return group, found, expected


def test_a_group_normalises_by_the_moments_of_its_whole_batch(grouped):
    group, (y, mean, variance, *_), expected = grouped
    for i, (y_, mean_, variance_, *_) in enumerate(expected):
        part = slice(i * group, (i + 1) * group)
        np.testing.assert_allclose(np.concatenate(y[part]), y_, rtol=1e-4, atol=1e-4)
        for replica in range(*part.indices(len(y))):
            for found, before, batch in (
                (mean[replica], MEAN, mean_),
                (variance[replica], VARIANCE, variance_),
            ):
                moved = MOMENTUM * before + (1 - MOMENTUM) * batch
                np.testing.assert_allclose(found, moved, rtol=1e-4, atol=1e-5)


def test_groups_keep_their_moments_to_themselves(grouped):
    group, (_, mean, *_), expected = grouped
    if group == 2:
        assert np.max(np.abs(mean[0] - mean[2])) > 1e-3
    assert len(expected) == 4 // group


def test_gradients_go_through_the_moments_to_all_replicas_of_the_group(grouped):
    group, (_, _, _, dx, dgamma, dbeta), expected = grouped
    for i, (_, _, _, dx_, dgamma_, dbeta_) in enumerate(expected):
        part = slice(i * group, (i + 1) * group)
        np.testing.assert_allclose(np.concatenate(dx[part]), dx_, rtol=1e-3, atol=1e-5)
        # Each replica holds its own share; the step adds them up over all of them.
        np.testing.assert_allclose(dgamma[part].sum(0), dgamma_, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(dbeta[part].sum(0), dbeta_, rtol=1e-4, atol=1e-3)

"""Dropout and stochastic depth: rates, scale, whose noise, and peace in inference."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from efficientnet import build_model, get_spec, normalize_images
from efficientnet.layers import Dropout, StochasticDepth


def test_stochastic_depth_drops_whole_examples_and_scales_up_the_rest():
    keras.utils.set_random_seed(1)
    branch = np.ones((4000, 2, 2, 3), "float32")
    out = keras.ops.convert_to_numpy(StochasticDepth(0.8)(branch, training=True))
    kept = out[:, 0, 0, 0] > 0
    np.testing.assert_array_equal(out, np.where(kept, 1 / 0.8, 0.0)[:, None, None, None] * branch)
    assert kept.mean() == pytest.approx(0.8, abs=0.03)


def test_dropout_drops_single_elements_and_scales_up_the_rest():
    keras.utils.set_random_seed(1)
    out = keras.ops.convert_to_numpy(Dropout(0.3)(np.ones((50, 400), "float32"), training=True))
    assert set(np.unique(out)) == {np.float32(0.0), np.float32(1) / np.float32(0.7)}
    assert (out > 0).mean() == pytest.approx(0.7, abs=0.02)
    assert len(np.unique(out > 0, axis=0)) == 50


@pytest.mark.parametrize("layer", [Dropout(0.5), StochasticDepth(0.5)])
def test_inference_passes_everything(layer):
    inputs = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(inputs)), inputs)


@pytest.mark.parametrize("layer", [Dropout(0.5), StochasticDepth(0.5)])
def test_two_calls_draw_different_masks(layer):
    inputs = np.ones((64, 1), "float32")
    first, second = (keras.ops.convert_to_numpy(layer(inputs, training=True)) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("make", [Dropout, StochasticDepth])
def test_injected_noise_decides_alone_and_leaves_no_variable(make, dtype):
    noise = np.array([0.0, 0.749, 0.751, 0.999], "float32")
    asked = []

    def uniform(shape, index):
        asked.append(([int(size) for size in shape], index))
        return tf.reshape(tf.constant(noise), shape)

    layer = make(0.75 if make is StochasticDepth else 0.25, index=7, uniform=uniform, dtype=dtype)
    out = layer(np.ones((4, 1), "float32"), training=True)
    assert keras.backend.standardize_dtype(out.dtype) == layer.compute_dtype
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.cast(out, "float32"))[:, 0],
        [1 / 0.75, 1 / 0.75, 0, 0],
        rtol=4e-3,
    )
    assert asked == [([4, 1], 7)]
    assert layer.variables == []


def test_every_random_layer_of_a_model_asks_for_noise_under_its_own_index():
    asked = {}

    def uniform(shape, index):
        assert index not in asked
        asked[index] = tuple(int(size) for size in shape)
        return tf.fill(shape, 0.5)

    spec = get_spec("efficientnet-b0", width=0.25)
    model = build_model(spec, num_classes=3, uniform=uniform)
    model(np.zeros((2, 32, 32, 3), "float32"), training=True)
    with_skip = [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert asked == {**dict.fromkeys(with_skip, (2, 1, 1, 1)), 16: (2, 320)}
    assert model.variables == model.weights  # no seed anywhere


def test_each_block_with_a_skip_survives_with_its_own_probability():
    model = build_model(get_spec("efficientnet-b0", width=0.25), num_classes=3)
    found = {
        layer.name: layer.survival_probability
        for layer in model.layers
        if isinstance(layer, StochasticDepth)
    }
    with_skip = [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert found == pytest.approx(
        {f"block_{i}_stochastic_depth": 1.0 - 0.2 * i / 16 for i in with_skip}
    )
    assert model.get_layer("dropout").rate == 0.2


def test_rates_of_zero_leave_the_layers_out():
    spec = get_spec("efficientnet-b0", width=0.25, dropout=0.0, survival_probability=1.0)
    random = (Dropout, StochasticDepth)
    assert not [x for x in build_model(spec, num_classes=3).layers if isinstance(x, random)]


@pytest.mark.slow
def test_masks_follow_a_batch_size_known_only_at_run_time():
    spec = get_spec("efficientnet-b0", width=0.25, depth=0.5)
    model = build_model(
        spec, num_classes=3, uniform=lambda shape, index: tf.random.uniform(shape, seed=index)
    )
    step = tf.function(
        lambda images: model(images, training=True),
        input_signature=[tf.TensorSpec((None, 32, 32, 3))],
    )
    assert step(tf.zeros((2, 32, 32, 3))).shape == (2, 3)
    assert step(tf.zeros((5, 32, 32, 3))).shape == (5, 3)


def test_images_are_normalised_in_float32_and_cast_last():
    spec = get_spec("efficientnet-b0")
    images = np.arange(256, dtype="uint8").reshape(256, 1, 1, 1).repeat(3, axis=-1)
    expected = (images.astype("float64") - spec.mean_rgb) / spec.stddev_rgb
    for dtype in ("float32", "bfloat16", "mixed_bfloat16", "mixed_float16"):
        out = normalize_images(images, spec.mean_rgb, spec.stddev_rgb, dtype)
        assert keras.backend.standardize_dtype(out.dtype) == dtype.removeprefix("mixed_")
        exact = keras.ops.cast(expected.astype("float32"), out.dtype)
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(keras.ops.cast(out, "float32")),
            keras.ops.convert_to_numpy(keras.ops.cast(exact, "float32")),
            rtol=1e-5 if dtype == "float32" else 8e-3,
            atol=1e-6,
        )
    as_float = normalize_images(images.astype("float32"), spec.mean_rgb, spec.stddev_rgb)
    np.testing.assert_allclose(as_float, expected, rtol=1e-5, atol=1e-6)

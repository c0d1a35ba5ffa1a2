"""Fresh weights are distributed as the reference's are."""

import keras
import numpy as np
import pytest

from efficientnet import build_model, get_spec
from efficientnet.layers import dense_initializer

NORMAL_BEYOND_2_SIGMA = 0.0455


@pytest.fixture(scope="module")
def weights():
    keras.utils.set_random_seed(0)
    model = build_model("efficientnet-b0")
    paths = [variable.path for variable in model.weights]
    return dict(zip(paths, model.get_weights(), strict=True))


def conv_kernels(weights):
    """Kernels of ordinary convolutions, [k, k, in, out]."""
    return {
        path: kernel
        for path, kernel in weights.items()
        if kernel.ndim == 4 and "depthwise" not in path
    }


def test_convolutions_start_normal_with_fan_out_variance_and_are_not_truncated(weights):
    checked = 0
    for path, kernel in conv_kernels(weights).items():
        height, width, _, filters = kernel.shape
        z = kernel.ravel() / np.sqrt(2.0 / (height * width * filters))
        if z.size < 20_000:
            continue
        checked += 1
        assert z.std() == pytest.approx(1.0, abs=0.02), path
        assert z.mean() == pytest.approx(0.0, abs=0.03), path
        # Keras' truncated normal, rescaled to the same variance, has .027 here and ends at 2.27.
        assert (np.abs(z) > 2).mean() == pytest.approx(NORMAL_BEYOND_2_SIGMA, abs=0.006), path
        assert np.abs(z).max() > 3.5, path
    assert checked > 20


def test_depthwise_convolutions_count_one_filter_of_fan_out(weights):
    scaled = [
        kernel.ravel() / np.sqrt(2.0 / kernel.shape[0] ** 2)
        for path, kernel in weights.items()
        if path.endswith("depthwise_conv/kernel")
    ]
    assert len(scaled) == 16
    for z in scaled:
        assert z.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * z.size))
    together = np.concatenate(scaled)
    assert together.std() == pytest.approx(1.0, abs=0.01)
    assert (np.abs(together) > 2).mean() == pytest.approx(NORMAL_BEYOND_2_SIGMA, abs=0.003)


def test_classifier_starts_uniform_within_one_over_root_classes(weights):
    limit = 1.0 / np.sqrt(1000)
    kernel = weights["classifier/kernel"]
    assert kernel.shape == (1280, 1000)
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() == pytest.approx(limit, rel=1e-4)
    counts, _ = np.histogram(kernel, bins=20, range=(-limit, limit))
    np.testing.assert_allclose(counts / kernel.size, 1 / 20, rtol=0.02)


@pytest.mark.parametrize("num_classes", [1000, 21_843])
def test_classifier_of_many_classes_starts_with_the_published_rule_bit_for_bit(num_classes):
    shape = (320, num_classes)
    keras.utils.set_random_seed(0)
    published = keras.initializers.VarianceScaling(
        scale=1.0 / 3.0, mode="fan_out", distribution="uniform"
    )
    expected = keras.ops.convert_to_numpy(published(shape))
    keras.utils.set_random_seed(0)
    kernel = keras.ops.convert_to_numpy(dense_initializer(num_classes)(shape))
    np.testing.assert_array_equal(kernel, expected)


@pytest.mark.parametrize("num_classes", [2, 10, 999])
def test_classifier_of_few_classes_starts_uniform_within_one_over_root_inputs(num_classes):
    limit = 1.0 / np.sqrt(1280)
    kernel = keras.ops.convert_to_numpy(dense_initializer(num_classes)((1280, num_classes)))
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_ten_classes_start_at_the_cross_entropy_of_a_guess(width):
    keras.utils.set_random_seed(0)
    spec = get_spec("efficientnet-b0", width=width, depth=0.5)
    model = build_model(spec, num_classes=10, image_size=32)
    draws = np.random.default_rng(0)
    images = draws.normal(size=(32, 32, 32, 3)).astype("float32")
    labels = draws.integers(0, 10, 32)
    # Training mode: in the other one, the batch norms' fresh statistics let next to nothing through.
    logits = model(images, training=True)
    losses = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert keras.ops.convert_to_numpy(keras.ops.std(logits)) < 1.0
    assert keras.ops.convert_to_numpy(losses).mean() == pytest.approx(np.log(10), abs=0.3)


def test_biases_start_at_zero_and_batch_norm_at_identity(weights):
    start = {"bias": 0.0, "beta": 0.0, "gamma": 1.0, "moving_mean": 0.0, "moving_variance": 1.0}
    for path, value in weights.items():
        variable = path.split("/")[-1]
        if variable != "kernel":
            np.testing.assert_array_equal(value, start[variable], err_msg=path)


def test_no_two_kernels_of_the_same_shape_start_equal(weights):
    kernels = [value for path, value in weights.items() if path.endswith("/kernel")]
    prints = {(kernel.shape, kernel.ravel()[:8].tobytes()) for kernel in kernels}
    assert len(prints) == len(kernels)

"""EfficientNetV2 computes what the published code computes, from the same weights and images."""

import zlib

import keras
import numpy as np
import pytest

from efficientnet import build_model, endpoints, get_spec, normalize_images
from efficientnet.weights.tf1 import tf1_names


def drawn(name: str, shape: tuple[int, ...], gamma_scale: float) -> np.ndarray:
    """The weight of that name: a function of the name, as tests/goldens/README.md says."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("moving_variance"):
        value = 0.7 + 0.6 * random.rand(*shape)
    elif name.endswith("gamma"):
        value = gamma_scale * (1 + 0.2 * random.randn(*shape))
    elif name.endswith(("beta", "bias", "moving_mean")):
        value = 0.1 * random.randn(*shape)
    else:
        fan = np.prod(shape[:-1]) if len(shape) == 4 else shape[0]
        fan = np.prod(shape[:2]) if "depthwise_kernel" in name else fan
        value = random.randn(*shape) * np.sqrt(2 / fan)
    return value.astype(np.float32)


@pytest.fixture(scope="module", params=["efficientnetv2-b0", "efficientnetv2-s"])
def inference(request, goldens):
    """The golden file, and every output of our network, with the file's weights on its images."""
    golden = np.load(goldens / f"v2_infer_{request.param}.npz")
    spec, classes, size = get_spec(request.param), int(golden["ncls"]), int(golden["res"])
    names = tf1_names(spec, classes)
    assert set(names.values()) == set(golden["names"])
    model = build_model(spec, num_classes=classes, image_size=size)
    for variable in model.weights:
        given = drawn(names[variable.path], tuple(variable.shape), float(golden["gamma_scale"]))
        variable.assign(given)
    batch = int(golden["bs"])
    images = np.random.RandomState(99).randint(0, 256, (1, batch, size, size, 3))[0]
    layers = {layer.name: layer.output for layer in model.layers}
    inside = keras.Model(model.input, layers | endpoints(model))
    normalized = normalize_images(images, spec.mean_rgb, spec.stddev_rgb)
    return golden, spec, {name: np.asarray(x) for name, x in inside(normalized).items()}


def test_logits_are_the_published_networks(inference):
    golden, _, outputs = inference
    largest = np.abs(golden["logits"]).max()
    np.testing.assert_allclose(outputs["logits"], golden["logits"], rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stem", "stem_activation"),
        *((f"reduction_{i}", f"reduction_{i}") for i in range(1, 6)),
        ("head", "features"),
        ("pooled", "pooled"),
    ],
)
def test_endpoints_are_the_published_networks(inference, theirs, ours):
    golden, _, outputs = inference
    found = outputs[ours].reshape(len(outputs[ours]), -1, outputs[ours].shape[-1]).mean(1)
    largest = np.abs(golden[theirs]).max()
    np.testing.assert_allclose(found, golden[theirs], rtol=0, atol=1e-5 * largest)


def test_every_block_has_the_published_mean(inference):
    golden, spec, outputs = inference
    found = []
    for block in spec.blocks:
        ends = ("add", "project_activation", "project_bn")
        name = next(f"{block.name}_{e}" for e in ends if f"{block.name}_{e}" in outputs)
        found.append(outputs[name].mean((0, 1, 2)))
    expected = golden["block_means"]
    np.testing.assert_allclose(
        np.concatenate(found), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )

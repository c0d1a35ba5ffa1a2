"""The networks are those of timm, another implementation in another framework, for the same weights."""

import keras
import numpy as np
import pytest

import efficientnet

pytestmark = pytest.mark.interop


def layers_with_weights(model):
    """The layers of our network that hold weights, in the order of the forward pass."""
    return [layer for layer in model.layers if layer.weights]


def modules_with_weights(model):
    """The modules of a PyTorch network that hold weights, in the order of the forward pass."""
    return [module for module in model.modules() if hasattr(module, "weight")]


def copy_weights(ours, theirs):
    """Copy the weights of one of our layers to timm's module at the same place."""
    import torch

    arrays = {v.name: v.numpy() for v in ours.weights}
    if isinstance(ours, keras.layers.BatchNormalization):
        names = {"gamma": "weight", "beta": "bias"}
        names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    else:
        names = {"kernel": "weight", "bias": "bias"}
        axes = {2: (1, 0), 4: (2, 3, 0, 1) if "depthwise" in ours.name else (3, 2, 0, 1)}
        arrays["kernel"] = arrays["kernel"].transpose(axes[arrays["kernel"].ndim])
    for name, array in arrays.items():
        target = getattr(theirs, names[name])
        assert target.shape == array.shape, (ours.name, theirs)
        with torch.no_grad():
            target.copy_(torch.from_numpy(array.copy()))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("efficientnet-b0", "tf_efficientnet_b0"),
        ("efficientnet-b2", "tf_efficientnet_b2"),
        ("efficientnet-lite0", "tf_efficientnet_lite0"),
    ],
)
def test_logits_are_timms(name, theirs, settle):
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    ours = efficientnet.build_model(name, num_classes=10, image_size=64)
    images = np.random.default_rng(0).normal(0, 1, (4, 64, 64, 3)).astype(np.float32)
    settle(ours, images)
    other = timm.create_model(theirs, num_classes=10).eval()
    pairs = zip(layers_with_weights(ours), modules_with_weights(other), strict=True)
    for layer, module in pairs:
        copy_weights(layer, module)
    with torch.no_grad():
        expected = other(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = ours(images).numpy()
    assert np.ptp(found, axis=0).max() > 0.1  # the logits do depend on the image
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

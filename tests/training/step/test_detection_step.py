"""Steps of detection: replicas equal one device, and micro-batches equal the whole batch."""

import dataclasses

import numpy as np
import pytest

from configs.load import load_experiment
from efficientnet.detection import Anchors, get_detector
from proofs.faults import CONFIG
from tasks.detection import Detection
from tasks.detection.assignment import NO_CLASS
from tests.training import tiny
from tests.training.imaginary_cores import CORES, host_operations, step_function, trace
from training.job import model_spec

pytestmark = pytest.mark.slow

SIZE, CLASSES, BATCH, STEPS, BOXES = 64, 3, 8, 3, 4
BACKBONE = dataclasses.replace(
    model_spec(load_experiment(CONFIG.with_name("faults_detection.yaml"))), survival_probability=1.0
)
DETECTOR = dataclasses.replace(
    get_detector("efficientdet-d0"), filters=8, cells=1, head_repeats=1, anchors=Anchors(5)
)


def start(distribution, **options):
    """A small detector, ready to train on `COLUMNS`."""
    task = Detection(CLASSES, DETECTOR, iou_loss="ciou")
    return tiny.start_task(distribution, task, BACKBONE, COLUMNS, rate=0.05, **options)


def columns():
    """The same batch for every step: bright boxes, none in its first images and the most in its last."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, SIZE / 2, [BATCH, BOXES, 2])
    boxes = np.concatenate([corners, corners + random.uniform(12, SIZE / 2, corners.shape)], -1)
    classes = random.integers(0, CLASSES, [BATCH, BOXES])
    real = np.arange(BOXES) < np.linspace(0, BOXES, BATCH).round()[:, np.newaxis]
    images = random.integers(0, 60, [BATCH, SIZE, SIZE, 3])
    for image, box in np.argwhere(real):
        y, x, last_y, last_x = boxes[image, box].astype(int)
        images[image, y:last_y, x:last_x, classes[image, box]] += 150
    batch = {
        "image": images.clip(0, 255).astype(np.uint8),
        "valid": np.full([BATCH, 2], (SIZE, SIZE - 8), np.int32),
        "boxes": np.where(real[..., np.newaxis], boxes, 0.0).astype(np.float32),
        "classes": np.where(real, classes, NO_CLASS).astype(np.int32),
    }
    return {name: np.stack([column] * STEPS) for name, column in batch.items()}


COLUMNS = columns()


def train(distribution, **options):
    training = start(distribution, **options)
    metrics = training.run_columns(COLUMNS)
    return training.state.to_arrays(), metrics


@pytest.fixture(scope="module")
def alone(one_device):
    return train(one_device)


@pytest.mark.parametrize("count", [2, 4])
def test_replicas_compute_what_one_device_does(count, alone, assert_same, request):
    """Replicas with few boxes count for less: the losses are divided by the boxes of the global batch."""
    devices = request.getfixturevalue({2: "two_devices", 4: "four_devices"}[count])
    arrays, metrics = train(devices)
    for name, values in metrics.items():
        np.testing.assert_allclose(values, alone[1][name], rtol=1e-4, err_msg=name)
    # Sums in another order, over three steps: gradients of the first layers agree to three digits.
    assert_same(arrays, alone[0], 1e-3)


def test_micro_batches_compute_what_the_whole_batch_does(one_device):
    """Up to batch norm, whose statistics are those of a micro-batch: it is frozen here."""
    frozen = tiny.batch_norm_paths(start(one_device).state.network)
    whole, parts = (train(one_device, accumulation_steps=count, frozen=frozen) for count in (1, 4))
    for name, values in whole[1].items():
        np.testing.assert_allclose(parts[1][name], values, rtol=1e-4, err_msg=name)


def test_the_loss_falls(alone):
    assert 0 < alone[1]["loss"][-1] < alone[1]["loss"][0]
    assert (alone[1]["positives"] > BATCH).all()


def test_a_step_for_tpu_cores_has_no_operation_of_the_host():
    training, library = trace(start)
    assert training.distribution.num_replicas == CORES
    found = {node.op for node in step_function(library).node_def}
    assert {"Conv2D", "CrossReplicaSum"} <= found
    assert host_operations(found) == set()

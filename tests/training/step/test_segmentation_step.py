"""Steps of segmentation: replicas equal one device, and micro-batches equal the whole batch."""

import numpy as np
import pytest

from efficientnet.segmentation.unet import UNet
from input_pipeline.images.label_map import IGNORED
from tasks.segmentation.task import Segmentation
from tests.training import tiny
from tests.training.imaginary_cores import CORES, host_operations, step_function, trace

pytestmark = pytest.mark.slow

SIZE, CLASSES, BATCH, STEPS = 32, 5, 8, 3
ALL = {"cross_entropy": 1.0, "dice": 1.0, "jaccard": 0.5, "focal": 2.0}
PIXELS = {"cross_entropy": 1.0, "focal": 2.0}


def start(distribution, losses, **options):
    """A small U-Net, ready to train on `COLUMNS`."""
    decoder = UNet((8,) * len(tiny.SPEC.reductions))
    task = Segmentation(CLASSES, losses=losses, class_weights=(1, 2, 1, 0.5, 1), decoder=decoder)
    return tiny.start_task(distribution, task, tiny.SPEC, COLUMNS, rate=0.05, **options)


def columns():
    """Images of patches; half of the pixels do not count, most of them in the first images."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, [STEPS, BATCH, 4, 4]).repeat(8, 2).repeat(8, 3)
    images = 40 * labels[..., np.newaxis] + random.integers(0, 40, [*labels.shape, 3])
    share = np.linspace(1.0, 0.0, STEPS * BATCH).reshape([STEPS, BATCH, 1, 1])
    labels = np.where(random.random(labels.shape) < share, IGNORED, labels)
    return {"image": images.astype(np.uint8), "label": labels.astype(np.uint8)}


COLUMNS = columns()


def train(distribution, losses, **options):
    training = start(distribution, losses, **options)
    metrics = training.run_columns(COLUMNS)
    return training.state.to_arrays(), metrics


@pytest.fixture(scope="module")
def alone(one_device):
    return train(one_device, ALL)


@pytest.mark.parametrize("count", [2, 4])
def test_replicas_compute_what_one_device_does(count, alone, assert_same, request):
    devices = request.getfixturevalue({2: "two_devices", 4: "four_devices"}[count])
    # Evaluation on several devices has a process of its own: tests/training/test_segmentation_run.py.
    arrays, metrics = train(devices, ALL)
    for name, values in metrics.items():
        np.testing.assert_allclose(values, alone[1][name], rtol=1e-4, err_msg=name)
    assert_same(arrays, alone[0], 1e-4)


def test_micro_batches_compute_what_the_whole_batch_does(one_device):
    """Up to batch norm, whose statistics are those of a micro-batch: it is frozen here."""
    frozen = tiny.batch_norm_paths(start(one_device, PIXELS).state.network)
    whole, parts = (
        train(one_device, PIXELS, accumulation_steps=count, frozen=frozen) for count in (1, 4)
    )
    for name, values in whole[1].items():
        np.testing.assert_allclose(parts[1][name], values, rtol=1e-4, err_msg=name)


def test_the_loss_falls(alone):
    assert alone[1]["loss"][-1] < alone[1]["loss"][0]
    assert np.isfinite(alone[1]["gradient_norm"]).all()


def test_a_step_for_tpu_cores_has_no_operation_of_the_host():
    training, library = trace(lambda distribution: start(distribution, ALL))
    assert training.distribution.num_replicas == CORES
    found = {node.op for node in step_function(library).node_def}
    assert {"Conv2D", "CrossReplicaSum"} <= found
    assert host_operations(found) == set()

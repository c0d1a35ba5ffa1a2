"""Steps of segmentation: replicas equal one device, and micro-batches equal the whole batch."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from efficientnet import normalize_images
from efficientnet.builder import build_network
from efficientnet.segmentation.unet import UNet
from input_pipeline.images.label_map import IGNORED
from tasks.segmentation.task import Segmentation
from tests.training import tiny
from tests.training.test_tpu_trace import STRUCTURE, TPU_ONLY, ImaginaryCores, Zeros, compiles
from training.devices.distribution import Distribution
from training.optimizers import SGD, schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.noise import MaskNoise
from training.step.recipe import TrainRecipe
from training.step.state import TrainState, create_train_state
from training.step.train_step import make_train_loop

pytestmark = pytest.mark.slow

SIZE, CLASSES, BATCH, STEPS = 32, 5, 8, 3
ALL = {"cross_entropy": 1.0, "dice": 1.0, "jaccard": 0.5, "focal": 2.0}
PIXELS = {"cross_entropy": 1.0, "focal": 2.0}


def start(distribution, losses, **options):
    """A small U-Net with the same weights at every call; (loop, state, recipe)."""
    noise = MaskNoise(5)
    keras.utils.set_random_seed(1)
    decoder = UNet((8,) * len(tiny.SPEC.reductions))
    task = Segmentation(CLASSES, losses=losses, class_weights=(1, 2, 1, 0.5, 1), decoder=decoder)
    with distribution.strategy.scope():
        network = build_network(
            task.layers(tiny.SPEC),
            name="unet",
            image_size=SIZE,
            batch_norm=functools.partial(
                CrossReplicaBatchNormalization,
                group_mean=distribution.group_mean(distribution.num_replicas),
            ),
            uniform=noise,
        )
    recipe = TrainRecipe(
        task=task,
        optimizer=SGD(),
        learning_rate=schedules.constant(peak=0.05),
        normalize=lambda x: normalize_images(x, tiny.SPEC.mean_rgb, tiny.SPEC.stddev_rgb),
        noise=noise,
        **options,
    )
    state = create_train_state(
        network, distribution, optimizer=recipe.optimizer, with_ema=True, with_loss_scale=False
    )
    return state, recipe


def batches(host_index, num_hosts):
    """Images of patches; half of the pixels do not count, most of them in the first images."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, [STEPS * BATCH, 4, 4]).repeat(8, 1).repeat(8, 2)
    images = 40 * labels[..., np.newaxis] + random.integers(0, 40, [*labels.shape, 3])
    share = np.linspace(1.0, 0.0, STEPS * BATCH)[:, np.newaxis, np.newaxis]
    labels = np.where(random.random(labels.shape) < share, IGNORED, labels)
    columns = {
        "image": images.astype(np.uint8),
        "label": labels.astype(np.uint8),
        "mask": np.ones(len(labels), np.float32),
    }
    return tf.data.Dataset.from_tensor_slices(columns).batch(BATCH)


def train(distribution, losses, **options):
    state, recipe = start(distribution, losses, **options)
    size = BATCH // distribution.num_replicas
    spec = {
        "image": tf.TensorSpec([size, SIZE, SIZE, 3], tf.uint8),
        "label": tf.TensorSpec([size, SIZE, SIZE], tf.uint8),
        "mask": tf.TensorSpec([size], tf.float32),
    }
    loop = make_train_loop(state, recipe, distribution, spec)
    iterator = iter(distribution.batches(batches, BATCH))
    rows = loop(iterator, tf.constant(STEPS)).numpy()
    return state.to_arrays(), dict(zip(recipe.metrics, rows.T, strict=True))


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
    whole, parts = (
        train(
            one_device,
            PIXELS,
            accumulation_steps=count,
            frozen=frozenset(
                v.path
                for v in start(one_device, PIXELS)[0].network.variables
                if v.path.endswith(("gamma", "beta", "moving_mean", "moving_variance"))
            ),
        )
        for count in (1, 4)
    )
    for name, values in whole[1].items():
        np.testing.assert_allclose(parts[1][name], values, rtol=1e-4, err_msg=name)


def test_the_loss_falls(alone):
    assert alone[1]["loss"][-1] < alone[1]["loss"][0]
    assert np.isfinite(alone[1]["gradient_norm"]).all()


def test_a_step_for_tpu_cores_has_no_operation_of_the_host():
    """The replicated program, traced for cores that are not there: see test_tpu_trace."""
    with pytest.MonkeyPatch.context() as patch, tf.Graph().as_default():
        patch.setattr(TrainState, "to_arrays", lambda self: {})  # nothing has a value here
        distribution = Distribution(tf.distribute.TPUStrategy(ImaginaryCores()))
        state, recipe = start(distribution, ALL)
        spec = {
            "image": tf.TensorSpec([2, SIZE, SIZE, 3], tf.uint8),
            "label": tf.TensorSpec([2, SIZE, SIZE], tf.uint8),
        }
        loop = make_train_loop(state, recipe, distribution, spec).get_concrete_function(
            Zeros(spec), tf.TensorSpec([], tf.int32)
        )
        library = loop.graph.as_graph_def().library.function
    tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()  # registers XLA's kernels
    (step,) = [f for f in library if f.signature.name.startswith("__inference_step_")]
    found = {node.op for node in step.node_def} - STRUCTURE
    assert {"Conv2D", "CrossReplicaSum"} <= found
    assert {op for op in found if not compiles(op)} <= TPU_ONLY

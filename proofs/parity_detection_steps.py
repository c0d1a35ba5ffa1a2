"""The rows of `proofs.parity` for training EfficientDet: three steps of its published code."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from efficientnet import normalize_images
from efficientnet.detection import build_detector
from efficientnet.weights.efficientdet import efficientdet_names
from proofs.parity_detection import (
    BACKBONE,
    TINY,
    assign_drawn,
    by_level,
    drawn_images,
    drawn_weight,
)
from proofs.parity_row import ParityRow, relative_to_each, relative_to_largest
from tasks.detection import Detection
from training.devices.distribution import connect
from training.optimizers import SGD, schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.ema import Averaging
from training.step.noise import MaskNoise
from training.step.recipe import TrainRecipe
from training.step.state import TrainState, create_train_state
from training.step.train_step import make_train_loop
from training.step.weight_decay import WeightDecay

KERNELS = r".*kernel$"  # decayed: neither biases nor batch norm nor the weights of fusion


def training_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare three whole training steps: losses, gradients, weights, averages and outputs."""
    archive = np.load(goldens / "det_train_tiny.npz")
    state, metrics = train_tiny(archive)
    row = functools.partial(ParityRow, "EfficientDet: three training steps")
    for ours, theirs, bound in (
        ("class_loss", "cls_loss", 1e-4),
        ("box_loss", "box_loss", 1e-4),
        ("loss", "loss", 1e-4),
        ("learning_rate", "learning_rate", 1e-6),
        ("gradient_norm", "raw_gradient_norm", 1e-3),
        ("positives", "num_positives", 0.0),
    ):
        expected = (
            archive[theirs].reshape(len(metrics[ours]), -1).sum(1)
        )  # positives: of each image
        measured = relative_to_each(metrics[ours], expected)
        yield row(theirs, "every step", "the same", measured, bound, "relative")
    detection = metrics["class_loss"] + 50.0 * metrics["box_loss"]
    decay = metrics["loss"] - detection
    for theirs, found in (("det_loss", detection), ("reg_l2_loss", decay)):
        measured = relative_to_each(found, archive[theirs])
        yield row(theirs, "every step", "the same", measured, 1e-4, "relative")
    yield from _final_rows(archive, state, row)


def train_tiny(archive: Any) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Repeat the golden run of three steps; return the state after it and the metrics, float32 [3]."""
    distribution, noise = connect("cpu"), MaskNoise(0)
    network = build_detector(
        TINY,
        BACKBONE,
        num_classes=5,
        image_size=128,
        batch_norm=CrossReplicaBatchNormalization,
        uniform=noise,
    )
    assign_drawn(network, efficientdet_names(TINY, BACKBONE, 5), archive)
    peak = 0.08 * 4 / 64
    recipe = TrainRecipe(
        task=Detection(5, TINY),
        optimizer=SGD(0.9, rate_in_velocity=True),
        learning_rate=schedules.with_warmup(
            schedules.cosine(peak=peak, total_steps=8 - 2), peak=peak, warmup_steps=2, start=0.008
        ),
        normalize=functools.partial(
            normalize_images, mean_rgb=BACKBONE.mean_rgb, stddev_rgb=BACKBONE.stddev_rgb
        ),
        noise=noise,
        weight_decay=WeightDecay(4e-5, coupled=True, pattern=KERNELS),
        gradient_clip_each=10.0,
        gradient_clip_norm=10.0,
        averaging=Averaging(0.9998, ramp_start=0, statistics=False),
    )
    state = create_train_state(
        network, distribution, optimizer=recipe.optimizer, with_ema=True, with_loss_scale=False
    )
    images = np.random.RandomState(int(archive["image_seed"])).randint(0, 256, (3, 4, 128, 128, 3))
    boxes, classes = archive["gt_boxes"], archive["gt_classes"].astype(np.int32)
    batches = tf.data.Dataset.from_tensor_slices(
        {
            "image": images.astype(np.uint8),
            "boxes": boxes.reshape(3, 4, -1, 4).astype(np.float32),
            # Labels from 1, -1 for padding.
            "classes": np.where(classes > 0, classes - 1, -1).reshape(3, 4, -1).astype(np.int32),
        }
    )
    loop = make_train_loop(state, recipe, distribution, batches.element_spec)
    rows = loop(iter(batches), tf.constant(3)).numpy()
    return state, dict(zip(recipe.metrics, rows.T, strict=True))


def _final_rows(
    archive: Any, state: TrainState, row: Callable[..., ParityRow]
) -> Iterator[ParityRow]:
    names = efficientdet_names(TINY, BACKBONE, 5)
    paths = {name: path for path, name in names.items()}
    weights, statistics = state.read_network("raw")
    final = _arrays_by_path(state, weights, statistics)
    averages = _arrays_by_path(state, *state.read_network("ema"))
    order = [str(name) for name in archive["names"]]
    initial = {paths[name]: drawn_weight(name, final[paths[name]].shape) for name in order}
    change = np.array([np.linalg.norm(final[paths[n]] - initial[paths[n]]) for n in order])
    # A bias before a batch norm has no gradient: what moves it is rounding.
    moves = archive["change_norm"] > 1e-3 * archive["change_norm"].max()
    measured = relative_to_each(change[moves], archive["change_norm"][moves])
    item = f"change of {int(moves.sum())} variables"
    yield row(item, "L2 norm after three steps", "the same", measured, 1e-2, "relative")
    sums = np.array([final[paths[name]].sum(dtype=np.float64) for name in order])
    measured = relative_to_largest(sums, archive["final_sum"])
    yield row("sum of each variable", "after three steps", "the same", measured, 1e-3, "relative")
    slots = "optimizer/momentum/"
    velocities = {
        key.removeprefix(slots): -value
        for key, value in state.to_arrays().items()
        if key.startswith(slots)
    }
    for kind, found, least, text in (
        ("final", final, 0.0, "the same"),
        ("final_ema", averages, 0.0, "the same"),
        ("final_velocity", velocities, 1e-9, "the opposite sign"),  # smaller ones are rounding
    ):
        prefix = f"{kind}/"
        expected = {
            paths[key.removeprefix(prefix)]: archive[key]
            for key in archive.files
            if key.startswith(prefix) and np.abs(archive[key]).max() >= least
        }
        measured = max(relative_to_largest(found[path], x) for path, x in expected.items())
        item = f"{kind}, {len(expected)} variables"
        yield row(item, "whole", text, measured, 1e-3, "relative")
    network = build_detector(TINY, BACKBONE, num_classes=5, image_size=128)
    for variable in network.weights:
        variable.assign(final[variable.path])
    images = drawn_images(int(archive["image_seed"]), (3, 4, 128, 128, 3))[0]
    outputs = network(images)
    for kind, output in (("class", "classes"), ("box", "boxes")):
        parts = by_level(outputs[output].numpy(), (128, 128), TINY.anchors)
        stored = [archive[f"final_{kind}_{level}_mean"] for level in TINY.anchors.levels]
        measured = max(
            relative_to_largest(part.mean((1, 2)).reshape(x.shape), x)
            for part, x in zip(parts, stored, strict=True)
        )
        text = "inference afterwards, mean of each level"
        yield row(f"{kind} outputs", text, "the same", measured, 1e-3, "relative")


def _arrays_by_path(state: TrainState, weights: Any, statistics: Any) -> dict[str, np.ndarray]:
    values = [value.numpy() for value in (*weights, *statistics)]
    return dict(zip(state.paths, values, strict=True))


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (training_rows,)

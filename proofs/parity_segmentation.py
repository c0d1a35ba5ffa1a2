"""The rows of `proofs.parity` for segmentation: outputs of segmentation_models beside ours."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import get_spec, normalize_images
from efficientnet.builder import build_network
from efficientnet.complexity import count
from efficientnet.segmentation.unet import LOGITS, UNet, unet_layers
from efficientnet.spec import ModelSpec
from proofs.parity_row import ParityRow, largest, relative_to_largest
from proofs.parity_v2 import drawn_weight
from tasks.segmentation.losses import (
    cross_entropy,
    dice_loss,
    focal_loss,
    jaccard_loss,
    overlaps,
)
from tasks.segmentation.scores import confusion, intersection_over_union

NETWORK = "segmentation, network"
LOSSES = "segmentation, losses"
SCORES = "segmentation, scores"
THEIRS = "mean over images, pixels and classes"
OF_RATIOS = {"the same": "sums over the batch", "image by image": "mean of the images"}

Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def network_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare a small U-Net on B0 at 64 x 96, and the parameters of two full ones."""
    archive = np.load(goldens / "seg_unet_tiny.npz")
    config = json.loads(str(archive["config"]))
    spec = get_spec("efficientnet-b0")
    decoder = UNet(tuple(config["decoder_filters"]), skips="expanded")
    names = segmentation_models_names(spec, decoder, config["classes"])
    network = build_network(
        unet_layers(spec, decoder, config["classes"]),
        name="unet",
        image_size=(config["h"], config["w"]),
    )
    if {names[v.path] for v in network.weights} != set(archive["names"]):
        raise AssertionError("other variables than those of segmentation_models")
    for variable in network.weights:
        variable.assign(drawn_weight(names[variable.path], tuple(variable.shape)))
    shape = (2, config["h"], config["w"], 3)
    images = np.random.RandomState(config["seed"]).randint(0, 256, shape)
    maps = {
        key.removeprefix("mean/"): archive[key] for key in archive.files if key.startswith("mean/")
    }
    layers = {_their_layer(layer.name, spec): layer.output for layer in network.layers}
    every = keras.Model(
        network.input, {**{name: layers[name] for name in maps}, "logits": network.output}
    )
    outputs = every(normalize_images(images, spec.mean_rgb, spec.stddev_rgb))
    theirs, ours = "sm.Unet, any multiple of 32", "the same, any size"
    means = np.concatenate([outputs[name].numpy().mean((1, 2)).ravel() for name in maps])
    expected = np.concatenate([maps[name].ravel() for name in maps])
    measured = relative_to_largest(means, expected)
    yield ParityRow(
        NETWORK, f"U-Net on B0, mean of {len(maps)} maps", theirs, ours, measured, 1e-5, "relative"
    )
    measured = relative_to_largest(outputs["logits"].numpy(), archive["logits"])
    yield ParityRow(NETWORK, "U-Net on B0, logits", theirs, ours, measured, 1e-5, "relative")
    found = np.array(
        [
            sum(int(np.prod(v.shape)) for v in variables)
            for variables in (network.trainable_weights, network.weights)
        ]
    )
    measured = largest(found, archive["parameters_trainable_all"])
    item = "U-Net on B0, trainable and all"
    yield ParityRow(NETWORK, item, theirs, ours, measured, 0.0, "parameters")
    for name, counts in json.loads(str(archive["published_parameters"])).items():
        full = get_spec(name.replace("efficientnet", "efficientnet-"))
        costs = count(unet_layers(full, UNet(skips="expanded"), 1), 224)
        found = np.array([costs.trainable_parameters, costs.all_parameters])
        measured = largest(found, np.array(counts))
        item = f"U-Net on {full.name}, parameters"
        yield ParityRow(NETWORK, item, f"{counts[0]:,}", "the same", measured, 0.0, "parameters")


def segmentation_models_names(spec: ModelSpec, decoder: UNet, num_classes: int) -> dict[str, str]:
    """Map the paths of our variables to the names of segmentation_models' variables."""
    shapes = count(unet_layers(spec, decoder, num_classes), 64).variable_shapes
    named = {}
    for path in shapes:
        layer, _, variable = path.rpartition("/")
        if layer.endswith("depthwise_conv"):
            variable = "depthwise_kernel"
        named[path] = f"{_their_layer(layer, spec)}/{variable}"
    return named


def _their_layer(layer: str, spec: ModelSpec) -> str:
    """Return the name of one of our layers in segmentation_models."""
    kind, _, rest = layer.partition("_")
    if layer == LOGITS:
        return "final_conv"
    if kind == "head":
        return f"top_{rest}"
    if kind == "decoder":
        number, part, what = [*rest.split("_", 2), ""][:3]
        return f"decoder_stage{number}{part}_{what}".replace("activation", "relu")
    if kind != "block":
        return layer
    index, _, what = rest.partition("_")
    block = spec.blocks[int(index)]
    first = min(each.index for each in spec.blocks if each.stage == block.stage)
    name = f"block{block.stage + 1}{chr(ord('a') + block.index - first)}"
    what = {"depthwise_conv": "dwconv", "depthwise_bn": "bn"}.get(what, what)
    return f"{name}_{what}"


def loss_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare each loss and its gradient for the logits."""
    archive = np.load(goldens / "seg_losses.npz")
    logits, labels = archive["logits"], archive["labels"]
    weights = tf.constant(archive["class_weights"])
    classes = logits.shape[-1]
    cases: tuple[tuple[str, str, Loss], ...] = (
        ("dice", "the same", _dice(dice_loss)),
        ("dice_weighted", "the same", _dice(functools.partial(dice_loss, class_weights=weights))),
        ("dice_per_image", "image by image", _of_each_image(_dice(dice_loss))),
        ("jaccard", "the same", _dice(jaccard_loss)),
        ("jaccard_per_image", "image by image", _of_each_image(_dice(jaccard_loss))),
        ("categorical_focal", "times the classes", _pixels(focal_loss, classes)),
        ("categorical_crossentropy", "times the classes", _pixels(cross_entropy, classes)),
    )
    for name, ours, loss in cases:
        found = _with_gradient(loss, logits, labels)
        theirs = OF_RATIOS.get(ours, THEIRS)
        yield from _both(archive, f"softmax/{name}", name.replace("_", " "), theirs, ours, found)
    found = _with_gradient(
        _pixels(cross_entropy, 1), archive["ignore/logits"], archive["ignore/labels"]
    )
    for key, value in zip(("cross_entropy", "gradient"), found, strict=True):
        measured = relative_to_largest(value, archive[f"ignore/{key}"])
        item = f"255 ignored, {key.replace('_', ' ')}"
        yield ParityRow(LOSSES, item, "mean of the rest", "the same", measured, 1e-5, "relative")


def _both(
    archive: Any, key: str, name: str, theirs: str, ours: str, found: tuple[np.ndarray, np.ndarray]
) -> Iterator[ParityRow]:
    for what, value in zip(("loss", "gradient"), found, strict=True):
        measured = relative_to_largest(value, archive[f"{key}/{what}"])
        yield ParityRow(LOSSES, f"{name}, {what}", theirs, ours, measured, 1e-5, "relative")


def _dice(loss: Callable[..., tf.Tensor]) -> Loss:
    def compute(logits: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        return loss(overlaps(logits, labels, valid))

    return compute


def _of_each_image(loss: Loss) -> Loss:
    """Return the mean of a loss over the images."""

    def compute(logits: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        images = (slice(i, i + 1) for i in range(len(logits)))
        return tf.reduce_mean([loss(logits[i], labels[i], valid[i]) for i in images])

    return compute


def _pixels(loss: Callable[..., tf.Tensor], classes: int) -> Loss:
    """Return the mean over pixels and classes of a loss of each pixel."""

    def compute(logits: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        each = loss(logits, labels) * valid
        return tf.reduce_sum(each) / (tf.reduce_sum(valid) * classes)

    return compute


def _with_gradient(
    loss: Loss, logits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    given = tf.constant(logits)
    valid = tf.constant(labels != 255)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = loss(given, tf.where(valid, tf.constant(labels), 0), tf.cast(valid, tf.float32))
    return value.numpy(), tape.gradient(value, given).numpy()


def score_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the confusion matrix and the mean IoU with and without predictions of an absent class."""
    archive = np.load(goldens / "seg_losses.npz")
    labels = archive["ignore/labels"]
    theirs = "tf.keras.metrics, 255 left out"
    for case in ("absent_but_predicted", "absent_and_not_predicted"):
        key, item = f"miou/{case}", case.replace("_", " ")
        expected = archive[f"{key}/confusion"]
        predicted = tf.constant(archive[f"{key}/predicted"])
        found = confusion(tf.constant(labels), predicted, len(expected)).numpy()
        measured = largest(found, expected)
        yield ParityRow(SCORES, f"{item}, pixels", theirs, "the same", measured, 0.0, "pixels")
        mean = np.nanmean(intersection_over_union(found))
        measured = largest(mean, archive[f"{key}/mean_iou"])
        yield ParityRow(SCORES, f"{item}, mIoU", theirs, "the same", measured, 1e-6, "")


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (network_rows, loss_rows, score_rows)

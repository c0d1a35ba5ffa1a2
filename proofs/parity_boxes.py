"""The rows of `proofs.parity` for EfficientDet's boxes: anchors, assignment, losses, score."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from efficientnet.detection import (
    Anchors,
    anchor_boxes,
    get_detector,
    level_sizes,
    list_detectors,
)
from efficientnet.detection.anchors import MIN_LEVEL
from proofs.parity_detection import by_level
from proofs.parity_row import ParityRow, largest, relative_to_each, relative_to_largest
from tasks.detection import Detection, coding
from tasks.detection.assignment import assign
from tasks.detection.coco import FIGURES, coco_figures, evaluate
from tasks.detection.losses import IOU_KINDS, focal, huber, iou_loss

D0 = get_detector("efficientdet-d0")


def over_anchors(archive: Any, key: str, values: int) -> np.ndarray:
    """Join the published outputs of all levels, `key`_3 and so on, to [b, anchors, values]."""
    levels = sorted(name for name in archive.files if name.startswith(f"{key}_"))
    return np.concatenate(
        [archive[name].reshape(len(archive[name]), -1, values) for name in levels], axis=1
    )


# -- anchors ------------------------------------------------------------------------------------


def anchor_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare anchors at odd sizes whole, and those of the published detectors in part."""
    archive = np.load(goldens / "det_anchors.npz")
    row = functools.partial(ParityRow, "EfficientDet anchors")
    for key in archive.files:
        case, _, part = key.partition("/")
        if part != "boxes":
            continue
        anchors, size = anchors_of(json.loads(str(archive[f"{case}/arguments"])))
        measured = largest(anchor_boxes(anchors, size), archive[key])
        yield row(case, f"{len(archive[key])} boxes", "the same", measured, 1e-5, "pixels")
        sizes = np.array(level_sizes(size, anchors.max_level)[MIN_LEVEL:])
        measured = largest(sizes, archive[f"{case}/feature_sizes"])
        yield row(f"{case}, sizes", f"{len(sizes)} levels", "the same", measured, 0.0, "pixels")
    differences = []
    for name in list_detectors():
        spec, stored = get_detector(name), f"published/{name}"
        found = anchor_boxes(spec.anchors, spec.resolution)
        if len(found) != archive[f"{stored}/count"]:
            raise AssertionError(f"{name}: {len(found)} anchors")
        differences += [
            largest(found[:9], archive[f"{stored}/first_9"]),
            largest(found[-9:], archive[f"{stored}/last_9"]),
            largest(found.mean(0, np.float64), archive[f"{stored}/mean_float64"]),
        ]
    yield row(
        "first, last and mean of the published",
        f"{len(list_detectors())} detectors",
        "the same",
        max(differences),
        1e-4,
        "pixels",
    )


def anchors_of(arguments: Mapping[str, Any]) -> tuple[Anchors, tuple[int, int]]:
    """Return the anchors that the published code's arguments describe, and the size of the image."""
    scale = arguments["anchor_scale"]
    ratios = arguments["aspect_ratios"]
    height, width = arguments["image_size_h_w"]
    return (
        Anchors(
            arguments["max_level"],
            tuple(scale) if isinstance(scale, list) else scale,
            arguments["num_scales"],
            tuple(tuple(ratio) if isinstance(ratio, list) else ratio for ratio in ratios),
        ),
        (height, width),
    )


# -- assignment ---------------------------------------------------------------------------------


def assignment_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the targets of eight lists of boxes."""
    archive = np.load(goldens / "det_targets.npz")
    anchors = tf.constant(anchor_boxes(D0.anchors, 128))
    row = functools.partial(ParityRow, "EfficientDet assignment")
    cases = sorted({key.split("/")[0] for key in archive.files if key.endswith("/gt_boxes")})
    wrong, differences, positives = 0, [0.0], [0.0]
    for case in cases:
        boxes, classes = padded_boxes(archive[f"{case}/gt_boxes"], archive[f"{case}/gt_classes"])
        targets = assign(boxes[tf.newaxis], classes[tf.newaxis], anchors)
        # Labels of the published code begin at 1, its targets at 0.
        expected = archive[f"{case}/cls_targets"].astype(np.int32).reshape(-1)
        wrong += int(np.sum(targets.classes[0].numpy() != expected))
        codes = archive[f"{case}/box_targets"].reshape(-1, 4)
        differences.append(largest(targets.codes[0].numpy(), codes))
        count = float(archive[f"{case}/num_positives"])
        positives.append(abs(float(targets.num_positives[0]) - count))
    text = f"{len(cases)} lists of boxes"
    yield row("classes", text, "a loop over boxes", float(wrong), 0.0, "anchors")
    yield row("codes", text, "the same", max(differences), 1e-5, "absolute")
    yield row("number of positives", text, "the same", max(positives), 0.0, "anchors")


def padded_boxes(
    boxes: np.ndarray, labels: np.ndarray, most: int = 100
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pad published boxes and labels, which begin at 1, to `most` rows."""
    count = len(boxes)
    padded = np.zeros([most, 4], np.float32)
    padded[:count] = boxes
    classes = np.full([most], -1, np.int32)
    classes[:count] = labels.reshape(-1) - 1
    return tf.constant(padded), tf.constant(classes)


# -- losses -------------------------------------------------------------------------------------


def loss_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare focal, Huber and IoU losses and their gradients, and the loss of a whole batch."""
    archive = np.load(goldens / "det_losses.npz")
    row = functools.partial(ParityRow, "EfficientDet losses")
    yield from _focal_rows(archive, row)
    outputs, targets = (tf.constant(archive[f"box/{name}"]) for name in ("outputs", "targets"))
    divisor = 4 * float(archive["box/num_positives"])
    loss, gradient = _with_gradient(huber, outputs, targets)
    text = "huber, delta .1, per coordinate"
    measured = relative_to_each(loss / divisor, archive["box/loss"])
    yield row("box", text, "the same", measured, 1e-5, "relative")
    measured = relative_to_largest(gradient / divisor, archive["box/gradient"])
    yield row("box, gradient", text, "the same", measured, 1e-5, "relative")
    predicted, target = (tf.constant(archive[f"iou/{name}"]) for name in ("predicted", "target"))
    for kind in IOU_KINDS:
        _, gradient = _with_gradient(iou_loss, predicted, target, kind)
        expected = archive[f"iou/{kind}/loss"]
        found = iou_loss(predicted, target, kind).numpy()
        text = "1 - IoU of decoded boxes"
        measured = largest(found, expected)
        yield row(kind, text, "the same", measured, 1e-5, "absolute")
        measured = relative_to_largest(gradient, archive[f"iou/{kind}/gradient"])
        yield row(f"{kind}, gradient", text, "the same", measured, 1e-5, "relative")
    yield from _whole_loss_rows(archive, row)


def _focal_rows(archive: Any, row: Callable[..., ParityRow]) -> Iterator[ParityRow]:
    classes = tf.constant(archive["focal/cls_targets"])
    shape = archive["focal/logits"].shape
    logits = tf.constant(archive["focal/logits"].reshape([*classes.shape, -1]))
    divisor = float(archive["focal/normalizer"])
    for key in archive.files:
        if not key.endswith("/elements"):
            continue
        name = key.split("/")[1]
        alpha, gamma, smoothing = (float(part[1:]) for part in name.split("_"))
        loss = functools.partial(focal, alpha=alpha, gamma=gamma, label_smoothing=smoothing)
        total, gradient = _with_gradient(loss, logits, classes)
        text = f"alpha {alpha:g}, gamma {gamma:g}, smoothing {smoothing:g}"
        found = (loss(logits, classes) / divisor).numpy().reshape(shape)
        measured = relative_to_largest(found, archive[key])
        yield row(f"focal {name}, elements", text, "the same", measured, 1e-5, "relative")
        measured = relative_to_each(total / divisor, archive[f"focal/{name}/sum"])
        yield row(f"focal {name}, sum", text, "the same", measured, 1e-5, "relative")
        measured = relative_to_largest(
            gradient.reshape(shape) / divisor, archive[f"focal/{name}/gradient"]
        )
        yield row(f"focal {name}, gradient", text, "the same", measured, 1e-5, "relative")
    extreme = tf.constant(archive["focal/extreme/logits"][np.newaxis, :, np.newaxis])
    for label in (0, 1):
        target = tf.fill([1, extreme.shape[1]], label - 1)
        stored = f"focal/extreme/target_{label}"
        loss_of = focal(extreme, target).numpy().ravel()
        _, gradient = _with_gradient(focal, extreme, target)
        text = "logits from -100 to 100"
        measured = relative_to_largest(loss_of, archive[f"{stored}/loss"])
        yield row(f"focal, extreme, target {label}", text, "the same", measured, 1e-5, "relative")
        measured = relative_to_largest(gradient.ravel(), archive[f"{stored}/gradient"])
        item = f"focal, extreme, target {label}, gradient"
        yield row(item, text, "the same", measured, 1e-5, "relative")


def _whole_loss_rows(archive: Any, row: Callable[..., ParityRow]) -> Iterator[ParityRow]:
    levels = list(D0.anchors.levels)
    num_classes = archive["detection/class_outputs_3"].shape[-1] // D0.anchors.per_place
    logits = tf.constant(over_anchors(archive, "detection/class_outputs", num_classes))
    codes = tf.constant(over_anchors(archive, "detection/box_outputs", 4))
    pairs = [
        padded_boxes(archive[f"detection/gt_boxes_{i}"], archive[f"detection/gt_classes_{i}"])
        for i in range(len(logits))
    ]
    boxes, classes = (tf.stack(parts) for parts in zip(*pairs, strict=True))
    batch = {"image": tf.zeros([len(logits), 64, 64, 3]), "boxes": boxes, "classes": classes}
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "smoothed": {"label_smoothing": 0.1},
        "giou": {"iou_loss": "giou", "iou_loss_weight": 2.0},
    }
    for case, settings in cases.items():
        task = Detection(num_classes, D0, **settings)
        prepared = task.prepare(batch)
        with tf.GradientTape() as tape:
            tape.watch((logits, codes))
            outputs = {"classes": logits, "boxes": codes}
            loss, parts = task.loss(outputs, prepared, task.weight(prepared), lambda x: x)
        gradients = tape.gradient(loss, (logits, codes))
        named = {"class_loss": "cls_loss", "box_loss": "box_loss"}
        measured = max(
            relative_to_each(parts[ours].numpy(), archive[f"detection/{case}/{theirs}"])
            for ours, theirs in named.items()
        )
        text, ours, bounds = "whole loss of two images of 64 px", "the same", (1e-5, 1e-4)
        yield row(f"{case}, class and box", text, ours, measured, 1e-5, "relative")
        if case == "giou":
            masked = _masked_iou_loss(task, prepared, codes) / (4 * (task.weight(prepared) + 1))
            measured = relative_to_each(masked.numpy(), archive["detection/giou/box_iou_loss"])
            text = "ends of boxes whose code is exactly 0 become 0"
            yield row("giou, with that mask", text, "only here", measured, 1e-5, "relative")
            ours, bounds = "whole boxes", (0.01, 0.02)
        measured = relative_to_each(loss.numpy(), archive[f"detection/{case}/det_loss"])
        yield row(f"{case}, sum", text, ours, measured, bounds[0], "relative")
        differences = []
        for name, gradient in zip(("class", "box"), gradients, strict=True):
            parts_of = by_level(gradient.numpy(), (64, 64), D0.anchors)
            norms = np.array([np.linalg.norm(part) for part in parts_of])
            stored = [archive[f"detection/{case}/{name}_gradient_norm_{x}"] for x in levels]
            differences.append(relative_to_each(norms, np.array(stored)))
        positives, expected = prepared["positives"].numpy(), archive["detection/num_positives"]
        item, text_of = f"{case}, positives", "of each image"
        yield row(item, text_of, "the same", largest(positives, expected), 0.0, "anchors")
        item = f"{case}, norms of gradients"
        yield row(item, text, ours, max(differences), bounds[1], "relative")


def _masked_iou_loss(
    task: Detection, batch: Mapping[str, tf.Tensor], codes: tf.Tensor
) -> tf.Tensor:
    """Return the sum of the GIoU losses of decoded boxes as the published code masks them."""
    anchors = task.anchors(batch["image"])
    mask = tf.cast(batch["codes"] != 0.0, tf.float32)
    predicted, target = (coding.decode(each, anchors) * mask for each in (codes, batch["codes"]))
    return tf.reduce_sum(iou_loss(predicted, target, "giou"))


def _with_gradient(
    loss: Callable[..., tf.Tensor], value: tf.Tensor, *arguments: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the losses of `value`, and its gradient."""
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(loss(value, *arguments))
    return total.numpy(), tape.gradient(total, value).numpy()


# -- score --------------------------------------------------------------------------------------


def score_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare COCO's twelve figures, and the precision of every class."""
    archive = np.load(goldens / "det_coco_ap.npz")
    row = functools.partial(ParityRow, "EfficientDet score")
    truth, detections = archive["ground_truth"], archive["detections"]
    images = sorted({int(x) for x in np.concatenate([truth[:, 0], detections[:, 0]])})
    num_classes = int(max(truth[:, 5].max(), detections[:, 6].max())) + 1
    evaluated = evaluate(truth, detections, images, num_classes)
    measured = largest(evaluated.stats, archive["stats"])
    yield row("12 figures", "pycocotools 2.0.11", "the same", measured, 1e-9, "absolute")
    present = sorted({int(label) for label in truth[:, 5]})
    precision = evaluated.eval["precision"][:, :, present, 0, -1]
    measured = largest(precision, archive["precision_all_100"])
    text = f"{len(present)} classes, 10 IoUs, 101 recalls"
    yield row("precision", text, "the same", measured, 1e-6, "absolute")
    each = precision.mean((0, 1))
    measured = largest(each, archive["per_class_ap"])
    yield row(
        "AP of each class", "mean over IoUs and recalls", "the same", measured, 1e-6, "absolute"
    )
    by_box = truth.copy()
    by_box[:, 7] = truth[:, 3] * truth[:, 4]
    found = coco_figures(by_box, detections, images, num_classes)
    measured = largest(np.array([found[x] for x in FIGURES]), archive["stats_area_from_boxes"])
    text = "areas from the boxes"
    yield row("12 figures, " + text, text, "the same", measured, 1e-6, "absolute")


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    anchor_rows,
    assignment_rows,
    loss_rows,
    score_rows,
)

"""The rows of `proofs.parity` for EfficientDet's detections: suppression, and what is made of its boxes."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from efficientnet.detection import anchor_boxes
from proofs.parity_boxes import D0, over_anchors
from proofs.parity_row import ParityRow, largest
from tasks.detection import Detection, coding
from tasks.detection.nms import Candidates, Suppression, clip_boxes, suppress
from tasks.detection.task import corner_and_sides

SUPPRESSIONS = {
    "global_gaussian": Suppression(),
    "global_hard_.5": Suppression("hard", least_score=0.0),
    "global_hard_.3_score_.1": Suppression("hard", iou=0.3, least_score=0.1),
    "per_class_gaussian": Suppression(per_class=True),
    "per_class_gaussian_top_1000": Suppression(per_class=True, max_candidates=1000),
    "per_class_hard_.5": Suppression("hard", per_class=True, least_score=0.0),
}


def suppression_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare decoded boxes and the detections of every variant of suppression."""
    archive = np.load(goldens / "det_nms.npz")
    num_classes = archive["class_outputs_3"].shape[-1] // D0.anchors.per_place
    outputs = {
        "classes": tf.constant(over_anchors(archive, "class_outputs", num_classes)),
        "boxes": tf.constant(over_anchors(archive, "box_outputs", 4)),
    }
    row = functools.partial(ParityRow, "EfficientDet suppression")
    task = Detection(num_classes, D0)
    image = tf.zeros([2, 128, 128, 3])
    decoded = coding.decode(outputs["boxes"], task.anchors(image)).numpy()
    measured = largest(decoded, archive["decoded_boxes"].reshape(decoded.shape))
    yield row("decoded boxes", "per anchor", "the same", measured, 1e-3, "pixels")
    scales = archive["image_scales"].reshape(-1, 1, 1)
    for variant, settings in SUPPRESSIONS.items():
        found = dataclasses.replace(task, suppression=settings).detect(outputs, image)
        count = archive[f"{variant}/valid"]
        places = np.arange(settings.max_detections) < count[:, np.newaxis]
        text = f"{int(count.sum())} detections of 2 images"
        measured = float(np.abs(found.count.numpy() - count).max())
        yield row(f"{variant}, number", text, "a static loop", measured, 0.0, "detections")
        measured = largest(found.scores.numpy()[places], archive[f"{variant}/scores"][places])
        yield row(f"{variant}, scores", text, "the same", measured, 1e-5, "absolute")
        # The published code clips the boxes of a suppression over all classes, afterwards.
        boxes = found.boxes if settings.per_class else clip_boxes(found.boxes, 128.0, 128.0)
        boxes = boxes.numpy() * scales
        measured = largest(boxes[places], archive[f"{variant}/boxes"][places])
        yield row(f"{variant}, boxes", text, "the same", measured, 1e-3, "pixels")
        wrong = found.classes.numpy()[places] + 1 != archive[f"{variant}/classes"][places]
        yield row(f"{variant}, classes", text, "from 0", float(wrong.sum()), 0.0, "detections")


def suppression_of_six_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the loop alone, on six boxes of one class."""
    archive = np.load(goldens / "det_nms.npz")
    row = functools.partial(ParityRow, "EfficientDet suppression")
    boxes = archive["alone/boxes"]
    given = Candidates(
        tf.constant(boxes[np.newaxis]),
        tf.constant(archive["alone/scores"][np.newaxis]),
        tf.zeros([1, len(boxes)], tf.int32),
    )
    for settings in (
        Suppression(max_detections=8),
        Suppression("hard", least_score=0.0, max_detections=8),
    ):
        method = settings.method
        count = int(archive[f"alone/{method}/valid"])
        found, text = suppress(given, settings), f"{count} of six boxes"
        measured = abs(float(found.count[0]) - count)
        item = f"alone, {method}"
        yield row(f"{item}, number", text, "a static loop", measured, 0.0, "detections")
        expected = archive[f"alone/{method}/scores"][:count]
        measured = largest(found.scores.numpy()[0, :count], expected)
        yield row(f"{item}, scores", text, "the same", measured, 1e-5, "absolute")
        expected = boxes[archive[f"alone/{method}/index"][:count]]
        measured = largest(found.boxes.numpy()[0, :count], expected)
        yield row(f"{item}, boxes", text, "the same", measured, 0.0, "pixels")


def answer_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the rows that COCO's evaluation reads, and the anchors beside a TFLite export."""
    archive = np.load(goldens / "det_nms.npz")
    row = functools.partial(ParityRow, "EfficientDet suppression")
    expected = archive["coco_rows/detections"]
    per_image = zip(
        archive["per_class_gaussian/boxes"],
        archive["per_class_gaussian/scores"],
        archive["per_class_gaussian/classes"],
        strict=True,
    )
    rows = [
        corner_and_sides(np.column_stack([boxes, scores, classes]))
        for boxes, scores, classes in per_image
    ]
    measured = largest(np.array(rows), expected[..., 1:])
    text = "x, y, width, height, score, class"
    yield row("rows for COCO", text, "the same", measured, 1e-3, "pixels")
    expected = archive["tflite/anchors_center_size"]
    first = anchor_boxes(D0.anchors, 128)[: len(expected)] / 128
    centres, sides = (first[:, :2] + first[:, 2:]) / 2, first[:, 2:] - first[:, :2]
    measured = largest(np.column_stack([centres, sides]), expected)
    ours = "corners in pixels"
    yield row("anchors of TFLite", "centre and size in 0..1", ours, measured, 1e-6, "of the side")


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    suppression_rows,
    suppression_of_six_rows,
    answer_rows,
)

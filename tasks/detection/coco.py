"""COCO's average precision and recall, by pycocotools on the host."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

FIGURES = (
    "ap",
    "ap_50",
    "ap_75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar_1",
    "ar_10",
    "ar_100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
"""Average precision over IoU .50 to .95, at .50, at .75, by area (below 32^2 px, below 96^2, above);
average recall with 1, 10 and 100 detections an image, and by area."""


def coco_figures(
    ground_truth: np.ndarray, detections: np.ndarray, images: Sequence[int], num_classes: int
) -> dict[str, float]:
    """Compute the twelve figures of COCO.

    Args:
      ground_truth: rows [image, x, y, width, height, class, crowd, area] in pixels of the images.
      detections: rows [image, x, y, width, height, score, class].
      images: all images, also those without objects or detections. Deviation: the published code counts
        only images with a detection.
      num_classes: classes are 0..num_classes - 1.

    Returns:
      Each of FIGURES, in [0, 1]; -1 if no object has such an area.
    """
    evaluated = evaluate(ground_truth, detections, images, num_classes)
    return dict(zip(FIGURES, map(float, evaluated.stats), strict=True))


def evaluate(
    ground_truth: np.ndarray, detections: np.ndarray, images: Sequence[int], num_classes: int
) -> Any:
    """Return pycocotools' finished evaluation; see `coco_figures`."""
    from pycocotools.cocoeval import COCOeval

    truth = [
        {**_box(row), "category_id": int(row[5]), "iscrowd": int(row[6]), "area": float(row[7])}
        for row in ground_truth
    ]
    found = [
        {
            **_box(row),
            "score": float(row[5]),
            "category_id": int(row[6]),
            "iscrowd": 0,
            "area": float(row[3] * row[4]),
        }
        for row in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluated = COCOeval(
            *(_collection(rows, images, num_classes) for rows in (truth, found)), "bbox"
        )
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated


def _box(row: np.ndarray) -> dict[str, Any]:
    return {"image_id": int(row[0]), "bbox": [float(x) for x in row[1:5]]}


def _collection(rows: list[dict[str, Any]], images: Sequence[int], num_classes: int) -> Any:
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = {
        "images": [{"id": int(image)} for image in images],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": [{"id": number, **row} for number, row in enumerate(rows, 1)],
    }
    made.createIndex()
    return made

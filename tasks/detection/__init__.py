"""Detection of objects: assignment, losses, suppression, score and answers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from efficientnet.detection import DetectorSpec, get_detector
from efficientnet.detection.anchors import MIN_LEVEL
from efficientnet.spec import SpecError
from tasks.detection.nms import Suppression
from tasks.detection.task import Detection
from tasks.task import Labels

__all__ = ["Detection", "detection", "suppression_of"]

Settings = Mapping[str, Any]

OF_NETWORK = ("filters", "cells", "head_repeats", "fusion")
OF_ANCHORS = {"max_level": "max_level", "anchor_scale": "scale"}
OF_LOSS = {
    "focal_alpha": "alpha",
    "focal_gamma": "gamma",
    "huber_delta": "delta",
    "box_loss_weight": "box_loss_weight",
    "iou_loss": "iou_loss",
    "iou_loss_weight": "iou_loss_weight",
}
OF_SUPPRESSION = {
    "nms": "method",
    "nms_iou": "iou",
    "nms_sigma": "sigma",
    "nms_per_class": "per_class",
    "least_score": "least_score",
    "max_candidates": "max_candidates",
    "max_detections": "max_detections",
}


def detection(labels: Labels, label_smoothing: float, **settings: Any) -> Detection:
    """Build the task of a data set from the settings of the section `task`.

    Raises:
      SpecError: see `detector_of`.
    """
    return Detection(
        labels.num_classes,
        detector_of(settings),
        label_smoothing,
        suppression=suppression_of(settings),
        **_rename_settings(settings, OF_LOSS),
    )


def suppression_of(settings: Settings) -> Suppression:
    """Build the suppression from the settings of the section `task`."""
    return Suppression(**_rename_settings(settings, OF_SUPPRESSION))


def detector_of(settings: Settings) -> DetectorSpec:
    """Return the published detector, with settings that are not None in place of its fields.

    Raises:
      SpecError: the detector is unknown, or a setting is out of range.
    """
    spec = get_detector(settings["detector"])
    levels, scale = settings["max_level"] or spec.anchors.max_level, settings["anchor_scale"]
    expected = levels - MIN_LEVEL + 1
    if isinstance(scale, tuple) and len(scale) != expected:
        raise SpecError(
            f"task.anchor_scale has {len(scale)} numbers, expected {expected}: one for each level from"
            f" {MIN_LEVEL} to {levels}"
        )
    own = {name: settings[name] for name in OF_NETWORK if settings[name] is not None}
    anchors = {
        ours: settings[name] for name, ours in OF_ANCHORS.items() if settings[name] is not None
    }
    return dataclasses.replace(spec, anchors=dataclasses.replace(spec.anchors, **anchors), **own)


def _rename_settings(settings: Settings, names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: settings[name] for name, ours in names.items()}

"""The task: shares that add up, boxes in original pixels, and a score that counts every image."""

import dataclasses
import importlib

import numpy as np
import pytest
import tensorflow as tf

from efficientnet import get_spec
from efficientnet.detection import anchor_boxes, get_detector
from efficientnet.detection.network import detector_layers
from tasks.detection import Detection, detection
from tasks.detection.coco import coco_figures
from tasks.task import Labels

SPEC = dataclasses.replace(get_detector("efficientdet-d0"), filters=8, cells=1, head_repeats=1)
TASK = Detection(3, SPEC)
ANCHORS = anchor_boxes(SPEC.anchors, 64)


def batch_of(count):
    apart = np.array([[2, 2, 24, 22], [30, 5, 52, 28], [8, 34, 30, 60], [0, 0, 0, 0]])
    objects = apart + np.arange(count)[:, np.newaxis, np.newaxis]
    classes = np.tile([0, 2, 1, -1], [count, 1])
    return {
        "image": tf.zeros([count, 64, 64, 3], tf.uint8),
        "boxes": tf.constant(objects, tf.float32),
        "classes": tf.constant(classes, tf.int32),
    }


def outputs_of(count, seed=1):
    random = np.random.default_rng(seed)
    return {
        "classes": tf.constant(random.normal(size=[count, len(ANCHORS), 3]), tf.float32),
        "boxes": tf.constant(random.normal(size=[count, len(ANCHORS), 4]), tf.float32),
    }


@pytest.mark.parametrize("iou_loss", [None, "ciou"])
def test_shares_of_the_loss_add_up_to_that_of_the_whole_batch(iou_loss):
    task = dataclasses.replace(TASK, iou_loss=iou_loss)
    batch, outputs = task.prepare(batch_of(4)), outputs_of(4)
    weight = task.weight(batch)
    whole, metrics = task.loss(outputs, batch, weight, lambda x: x)
    assert tuple(metrics) == task.metrics
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        part = {name: x[rows] for name, x in batch.items()}
        of_part = {name: x[rows] for name, x in outputs.items()}
        parts.append(task.loss(of_part, part, weight, lambda x: x))
    np.testing.assert_allclose(sum(part[0] for part in parts), whole, rtol=1e-5)
    for name in task.metrics:
        total = sum(part[1][name] for part in parts)
        np.testing.assert_allclose(total, metrics[name], rtol=1e-5)


def perfect_outputs(batch, scale):
    """Outputs whose decoded boxes are those of a batch."""
    prepared = TASK.prepare({**batch, "boxes": batch["boxes"] * scale})
    logits = tf.one_hot(prepared["classes"], 3, on_value=6.0, off_value=-9.0)
    return {"classes": logits, "boxes": prepared["codes"]}


def evaluation_batch(count, scale):
    batch = batch_of(count)
    return {
        **batch,
        "mask": tf.ones([count]),
        "crowd": tf.zeros([count, 4]),
        "area": tf.fill([count, 4], 2000.0),
        "placement": tf.tile([[scale, scale, 0.0, 0.0]], [count, 1]),
    }


def scored(batch, outputs):
    sums, rows = TASK.measure(outputs, batch)
    assert all(x.dtype == tf.float32 for x in rows.values())
    numbers = [{name: x.numpy() for name, x in part.items()} for part in (sums, rows)]
    return TASK.score(*numbers)


def test_perfect_outputs_score_one_in_pixels_of_the_original():
    batch = evaluation_batch(3, scale=0.5)
    figures = scored(batch, perfect_outputs(batch, 0.5))
    assert figures["ap"] == pytest.approx(1.0, abs=0.02)
    assert figures["ap_50"] == pytest.approx(1.0, abs=1e-6)
    assert figures["ap_small"] == -1.0
    assert TASK.best in figures
    assert TASK.format_score(figures)["AP50"] == "100.00%"


def test_an_image_without_detections_is_missed():
    batch = evaluation_batch(2, scale=1.0)
    outputs = perfect_outputs(batch, 1.0)
    keep = tf.constant([1.0, 0.0])[:, tf.newaxis, tf.newaxis]
    logits = outputs["classes"] * keep - 30.0 * (1.0 - keep)
    figures = scored(batch, {**outputs, "classes": logits})
    assert figures["ar_100"] == pytest.approx(0.5, abs=0.02)


def test_padding_counts_neither_as_image_nor_as_object():
    batch = evaluation_batch(2, scale=1.0)
    outputs = perfect_outputs(batch, 1.0)
    alone = scored(
        {name: x[:1] for name, x in batch.items()}, {name: x[:1] for name, x in outputs.items()}
    )
    padded = scored({**batch, "mask": tf.constant([1.0, 0.0])}, outputs)
    assert padded == alone


def test_no_detection_at_all_is_a_score_of_zero():
    truth = np.array([[0, 1.0, 1.0, 5.0, 5.0, 0, 0, 25.0]])
    figures = coco_figures(truth, np.zeros([0, 7]), [0, 1], 2)
    assert figures["ap"] == 0.0
    assert figures["ap_large"] == -1.0


def test_settings_replace_fields_of_the_published_detector():
    settings = {
        "detector": "efficientdet-d1",
        **dict.fromkeys(("filters", "head_repeats", "fusion", "max_level")),
        "cells": 2,
        "anchor_scale": 3.0,
        "focal_alpha": 0.5,
        "focal_gamma": 2.0,
        "huber_delta": 1.0,
        "box_loss_weight": 10.0,
        "iou_loss": None,
        "iou_loss_weight": 1.0,
        "nms": "hard",
        "nms_iou": 0.4,
        "nms_sigma": 0.5,
        "nms_per_class": False,
        "least_score": 0.1,
        "max_candidates": 0,
        "max_detections": 5,
    }
    task = detection(Labels(7), 0.0, **settings)
    assert (task.detector.filters, task.detector.cells) == (88, 2)
    assert task.detector.anchors.scale == 3.0
    assert (task.alpha, task.suppression.method, task.suppression.max_detections) == (
        0.5,
        "hard",
        5,
    )
    spec = get_spec("efficientnet-b0")
    assert task.layers(spec) == detector_layers(task.detector, spec, 7)


def test_the_report_of_a_run_gets_figures_by_class_errors_and_captions():
    batch = evaluation_batch(2, scale=1.0)
    outputs = perfect_outputs(batch, 1.0)
    sums, rows = TASK.measure(outputs, batch)
    each = TASK.per_class(sums, {name: x.numpy() for name, x in rows.items()})
    np.testing.assert_array_equal(each["objects"], [2, 2, 2])
    np.testing.assert_allclose(each["AP"], 1.0, atol=0.02)
    # Soft suppression leaves faint copies, which overlap their objects too.
    np.testing.assert_array_equal(TASK.errors(outputs, batch), [0.0, 0.0])
    moved = {**batch, "boxes": batch["boxes"] + [[[30.0]], [[0.0]]]}
    surest = TASK.errors(outputs, moved).numpy()
    assert surest[0] > 0.9
    assert surest[1] == 0.0
    assert TASK.evidence(outputs) is None
    one = {name: x[0].numpy() for name, x in outputs.items()}
    example = {name: x[0].numpy() for name, x in batch.items()}
    text = TASK.caption(one, example, ("ant", "bee", "cow"))
    said, true = text.split("; is ")
    assert {name.split()[0] for name in said.split(", ")} == {"ant", "bee", "cow"}
    assert true == "ant, cow, bee"


def test_pictures_name_objects_and_detections(monkeypatch):
    drawn = []

    def note(image, boxes, texts, colours):
        drawn.append((np.asarray(boxes).round().tolist(), list(texts)))
        return np.asarray(image)

    module = importlib.import_module(
        "tasks.detection.task"
    )  # `tasks.detection` is a function there
    monkeypatch.setattr(module, "draw_boxes", note)
    batch = evaluation_batch(1, 1.0)
    outputs = perfect_outputs(batch, 1.0)
    arrays = {name: np.asarray(part) for name, part in batch.items()}
    ((left, right),) = TASK.draw(outputs, arrays, ("ant", "bee", "cow"))
    assert left.shape == right.shape == (64, 64, 3)
    (true, names), (found, texts) = drawn
    assert names == ["ant", "cow", "bee"]
    assert sorted(texts) == ["ant 100%", "bee 100%", "cow 100%"]
    assert sorted(found) == sorted(true)

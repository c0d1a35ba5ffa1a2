"""Suppression against TensorFlow's own operation, class by class, and its static shapes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tasks.detection import coding
from tasks.detection.nms import Candidates, Suppression, candidates, suppress


def drawn(seed, count=60, classes=3):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, [count, 2])
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, [count, 2])], 1)
    scores = random.uniform(0, 1, count).astype(np.float32)
    return boxes.astype(np.float32), scores, random.integers(0, classes, count).astype(np.int32)


def chosen(boxes, scores, classes, settings):
    """(boxes, scores, classes) of the detections of one image."""
    given = Candidates(*(tf.constant(x)[tf.newaxis] for x in (boxes, scores, classes)))
    found = suppress(given, settings)
    count = int(found.count[0])
    return [x[0, :count].numpy() for x in found[:3]]


def by_operation(boxes, scores, settings):
    """Indices and scores that TensorFlow's operation picks."""
    soft = settings.method == "gaussian"
    picked, kept, count = tf.raw_ops.NonMaxSuppressionV5(
        boxes=boxes,
        scores=scores,
        max_output_size=settings.max_detections,
        iou_threshold=1.0 if soft else settings.iou,
        score_threshold=settings.least_score,
        soft_nms_sigma=settings.sigma / 2 if soft else 0.0,
    )
    return picked[:count].numpy(), kept[:count].numpy()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [Suppression(), Suppression("hard", iou=0.4, least_score=0.2), Suppression(max_detections=7)],
    ids=["gaussian", "hard", "few"],
)
def test_one_suppression_over_all_classes_is_tensorflows(seed, settings):
    boxes, scores, classes = drawn(seed)
    found = chosen(boxes, scores, classes, settings)
    picked, kept = by_operation(boxes, scores, settings)
    np.testing.assert_array_equal(found[0], boxes[picked])
    np.testing.assert_allclose(found[1], kept, rtol=1e-5)
    np.testing.assert_array_equal(found[2], classes[picked])


@pytest.mark.parametrize("method", ["gaussian", "hard"])
def test_a_suppression_for_each_class_is_tensorflows_run_class_by_class(method):
    boxes, scores, classes = drawn(3)
    settings = Suppression(method, per_class=True, least_score=0.05, max_detections=20)
    rows = []
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        picked, kept = by_operation(boxes[own], scores[own], settings)
        rows += [(score, label, *boxes[own[i]]) for i, score in zip(picked, kept, strict=True)]
    expected = np.array(sorted(rows, key=lambda row: -row[0])[:20])
    found = chosen(boxes, scores, classes, settings)
    np.testing.assert_allclose(found[1], expected[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found[2], expected[:, 1])
    np.testing.assert_allclose(found[0], expected[:, 2:], rtol=1e-6)


def test_equal_scores_are_taken_in_their_order():
    boxes = np.array([[0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]], np.float32)
    found = chosen(boxes, np.float32([0.5, 0.5, 0.5]), np.int32([2, 1, 0]), Suppression())
    np.testing.assert_array_equal(found[2], [2, 1, 0])


def test_what_is_left_over_is_zeros():
    boxes, scores, classes = (x[np.newaxis] for x in drawn(0, count=4))
    found = suppress(Candidates(*map(tf.constant, (boxes, scores, classes))), Suppression())
    assert found.boxes.shape == (1, 100, 4)
    count = int(found.count[0])
    assert 0 < count <= 4
    assert not found.boxes[0, count:].numpy().any()
    assert not found.scores[0, count:].numpy().any()


def test_candidates_are_the_best_pairs_of_anchor_and_class():
    random = np.random.default_rng(0)
    logits = random.normal(size=[2, 50, 4]).astype(np.float32)
    codes = random.normal(size=[2, 50, 4]).astype(np.float32)
    corner = random.uniform(0, 60, [50, 2])
    anchors = np.concatenate([corner, corner + 10], 1).astype(np.float32)
    found = candidates(*map(tf.constant, (logits, codes, anchors)), 30)
    boxes = coding.decode(tf.constant(codes), tf.constant(anchors)).numpy()
    for i in range(2):
        best = np.argsort(-logits[i].ravel(), kind="stable")[:30]
        np.testing.assert_array_equal(found.classes[i], best % 4)
        np.testing.assert_allclose(found.boxes[i], boxes[i, best // 4], rtol=1e-5)
    every = candidates(*map(tf.constant, (logits, codes, anchors)), 0)
    np.testing.assert_array_equal(every.classes, logits.argmax(-1))


def test_the_loop_has_no_operation_that_a_tpu_lacks():
    settings = dataclasses.replace(Suppression(), per_class=True, max_candidates=20)

    @tf.function(autograph=False)
    def detect(logits, codes, anchors):
        return suppress(candidates(logits, codes, anchors, 20), settings)

    traced = detect.get_concrete_function(
        *(tf.TensorSpec(shape) for shape in ([1, 90, 3], [1, 90, 4], [90, 4]))
    )
    names = {
        node.op for f in traced.graph.as_graph_def().library.function for node in f.node_def
    } | {operation.type for operation in traced.graph.get_operations()}
    assert not {name for name in names if "NonMax" in name or name in ("Where", "Unique")}
    assert [x.shape[1] for x in traced.outputs[:3]] == [100, 100, 100]

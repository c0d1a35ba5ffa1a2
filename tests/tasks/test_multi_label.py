"""The sigmoid loss and the average precisions, against scikit-learn and numbers worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score

from tasks.multi_label import (
    MOST_RANKED_CLASSES,
    MultiLabel,
    average_precision,
    cross_entropy,
    mean_average_precision,
)

LABELS = np.array([[0, 2, -1], [1, -1, -1], [-1, -1, -1], [2, 1, 0]], np.int32)
HOT = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], np.float32)
LOGITS = np.array([[3.0, 1.0, -2.0], [0.0, 5.0, 1.0], [2.0, 2.0, 2.0], [1.0, 0.0, 9.0]], np.float32)


def measured(task: MultiLabel, logits: np.ndarray, mask: list[float]) -> dict[str, float]:
    batch = {"label": tf.constant(LABELS), "mask": tf.constant(mask)}
    sums, rows = task.measure(tf.constant(logits), batch)
    assert all(x.dtype in (tf.int32, tf.float32) for x in sums.values())
    assert all(x.dtype == tf.float32 and len(x) == len(mask) for x in rows.values())
    assert all(np.isfinite(x).all() for x in rows.values())
    numbers = [{name: x.numpy() for name, x in part.items()} for part in (sums, rows)]
    return task.score(*numbers)


def test_each_class_is_a_decision_of_its_own():
    # The sigmoid of log 3 is 3/4.
    loss = cross_entropy(tf.math.log([[3.0, 3.0]]), tf.constant([[1.0, 0.0]]), label_smoothing=0.0)
    np.testing.assert_allclose(loss, [-math.log(3 / 4) - math.log(1 / 4)], rtol=1e-6)


def test_smoothing_spreads_its_share_over_all_classes():
    logits, targets = tf.constant(LOGITS[:1]), tf.constant([[1.0, 0.0, 0.0]])
    smooth = cross_entropy(logits, targets, label_smoothing=0.3)
    by_hand = cross_entropy(logits, tf.constant([[0.8, 0.1, 0.1]]), label_smoothing=0.0)
    np.testing.assert_allclose(smooth, by_hand, rtol=1e-6)


def test_shares_of_the_loss_add_up_to_that_of_the_whole_batch():
    task = MultiLabel(3)
    batch = task.prepare({"label": tf.constant(LABELS)})
    np.testing.assert_array_equal(batch["label"], HOT)
    whole, metrics = task.loss(tf.constant(LOGITS), batch, task.weight(batch), lambda x: x)
    parts = [
        task.loss(tf.constant(LOGITS[part]), {"label": batch["label"][part]}, 4.0, lambda x: x)
        for part in (slice(0, 3), slice(3, 4))
    ]
    np.testing.assert_allclose(sum(part[0] for part in parts), whole, rtol=1e-6)
    assert task.metrics == tuple(metrics)
    assert float(metrics["hit_at_1"]) == sum(float(part[1]["hit_at_1"]) for part in parts) == 0.75


def test_mixed_labels_are_targets_already():
    shares = tf.constant([[0.25, 0.0, 0.75]])
    assert MultiLabel(3).prepare({"label": shares})["label"] is shares


def test_precisions_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    scores = random.normal(size=(200, 4)).round(1).astype(np.float32)  # with ties
    hot = random.random((200, 3)) < [0.1, 0.5, 0.9]
    labels = np.where(hot, [0, 1, 2], -1)  # class 3 has no label
    expected = [average_precision_score(hot[:, label], scores[:, label]) for label in range(3)]
    assert mean_average_precision(scores, labels) == pytest.approx(np.mean(expected), abs=1e-12)
    assert mean_average_precision(scores, np.full([200, 1], -1)) == 0.0
    assert average_precision(np.zeros(3), np.ones(3)) == 0.0


def test_an_evaluation_counts_images_and_leaves_padding_out():
    # The last image would change every figure.
    figures = measured(MultiLabel(3), LOGITS, [1.0, 1.0, 1.0, 0.0])
    each = [average_precision_score(HOT[:3, label], LOGITS[:3, label]) for label in range(3)]
    assert figures["mean_average_precision"] == pytest.approx(np.mean(each), abs=1e-12)
    pooled = average_precision_score(HOT[:3].ravel(), LOGITS[:3].ravel())
    assert figures["pooled_average_precision"] == pytest.approx(pooled, abs=1e-12)
    entropy = cross_entropy(tf.constant(LOGITS[:3]), tf.constant(HOT[:3]), label_smoothing=0.0)
    assert figures["cross_entropy"] == pytest.approx(np.mean(entropy), rel=1e-6)
    assert MultiLabel(3).best in figures


def test_a_logit_that_is_not_a_number_ranks_last():
    broken = LOGITS.copy()
    broken[0, 0] = math.nan
    lowest = np.where(np.isnan(broken), -50.0, broken)
    found, expected = (measured(MultiLabel(3), x, [1.0] * 4) for x in (broken, lowest))
    for name in ("mean_average_precision", "pooled_average_precision"):
        assert found[name] == expected[name]


def test_with_many_classes_no_scores_are_kept():
    task = MultiLabel(MOST_RANKED_CLASSES + 1)
    logits = np.zeros([4, task.num_classes], np.float32)
    logits[:, :3] = LOGITS
    figures = measured(task, logits, [1.0] * 4)
    assert set(figures) == {"pooled_average_precision", "cross_entropy"}
    assert task.best == "pooled_average_precision"
    assert list(task.format_score(figures)) == ["pooled average precision", "cross entropy"]


def test_each_class_has_its_own_average_precision():
    task = MultiLabel(3)
    batch = {"label": tf.constant(LABELS), "mask": tf.constant([1.0, 1.0, 1.0, 0.0])}
    sums, rows = ({n: x.numpy() for n, x in p.items()} for p in task.measure(LOGITS, batch))
    figures = task.per_class(sums, rows)
    np.testing.assert_array_equal(figures["images"], [1, 1, 1])
    expected = [average_precision_score(HOT[:3, i], LOGITS[:3, i]) for i in range(3)]
    np.testing.assert_allclose(figures["average precision"], expected)
    assert MultiLabel(MOST_RANKED_CLASSES + 1).per_class(sums, {}) == {}


def test_a_class_without_a_label_has_no_average_precision():
    rows = {"valid": np.ones(2), "scores": LOGITS[:2], "labels": np.array([[0.0, -1], [0, -1]])}
    np.testing.assert_array_equal(
        MultiLabel(3).per_class({}, rows)["average precision"], [1, np.nan, np.nan]
    )


def test_an_error_is_the_largest_miss_of_a_class_above_one_half():
    task = MultiLabel(3)
    batch = {"label": tf.constant(LABELS), "mask": tf.constant([1.0, 0.0, 1.0, 1.0])}
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    errors = task.errors(tf.constant(LOGITS), batch)
    # Of the first image a label that is not seen, then padding, then a class that is not there.
    np.testing.assert_allclose(errors, [1 - sigmoid[0, 2], 0, sigmoid[2, 0], 0], rtol=1e-6)


def test_a_caption_names_what_was_found_and_what_is_there():
    names = ("ant", "bee", "cow")
    caption = MultiLabel(3).caption(LOGITS[0], {"label": LABELS[0]}, names)
    assert caption == "ant 95%, bee 73%; is ant 95%, cow 12%"
    nothing = MultiLabel(3).caption(-np.ones(3, np.float32), {"label": LABELS[2]}, names)
    assert nothing == "nothing; is nothing"

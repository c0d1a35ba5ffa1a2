"""Losses over the valid pixels of the whole batch, and the score of whole counts."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.images.label_map import IGNORED
from tasks.segmentation.losses import cross_entropy
from tasks.segmentation.resize import resize_logits
from tasks.segmentation.task import LOSSES, Segmentation

CLASSES = 4
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=[6, 5, 7, CLASSES]).astype(np.float32)
LABELS = np.where(
    RANDOM.random([6, 5, 7]) < 0.3, IGNORED, RANDOM.integers(0, CLASSES, [6, 5, 7])
).astype(np.uint8)
LABELS[0] = IGNORED  # an image without a valid pixel
WEIGHTS = (1.0, 2.0, 0.5, 3.0)


def shares(task, parts: int, labels=LABELS):
    """Losses, metrics and gradients of replicas that share the batch, as the training step adds them up."""
    logits = tf.constant(LOGITS)
    batches = [task.prepare({"label": tf.constant(part)}) for part in np.split(labels, parts)]
    pieces = tf.split(logits, parts)
    weight = tf.add_n([task.weight(batch) for batch in batches])
    # The sums that `total` returns on every replica, in the order in which a replica asks for them.
    asked: list[list[tf.Tensor]] = []
    for piece, batch in zip(pieces, batches, strict=True):
        own = []

        def note(x, own=own):
            own.append(x)
            return x

        task.loss(piece, batch, weight, note)
        asked.append(own)
    totals = [tf.add_n(list(same)) for same in zip(*asked, strict=True)]
    losses, metrics, gradients = [], [], []
    for piece, batch in zip(pieces, batches, strict=True):
        answers = iter(totals)
        with tf.GradientTape() as tape:
            tape.watch(piece)
            loss, found = task.loss(
                piece, batch, weight, lambda x, answers=answers: tf.stop_gradient(next(answers))
            )
        losses.append(loss)
        metrics.append(found)
        gradients.append(tape.gradient(loss, piece))
    added = {name: sum(float(found[name]) for found in metrics) for name in metrics[0]}
    return float(tf.add_n(losses)), added, tf.concat(gradients, 0).numpy()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("parts", [2, 3])
def test_shares_of_replicas_add_up_to_the_loss_of_the_whole_batch(name, weights, parts):
    task = Segmentation(CLASSES, losses={name: 0.7}, class_weights=weights)
    whole, split = shares(task, 1), shares(task, parts)
    assert split[0] == pytest.approx(whole[0], rel=1e-5)
    assert split[1] == pytest.approx(whole[1], rel=1e-5)
    np.testing.assert_allclose(split[2], whole[2], atol=1e-7)
    assert np.abs(whole[2]).max() > 1e-4


def test_losses_are_summed_by_their_weights():
    each = {name: shares(Segmentation(CLASSES, losses={name: 1.0}), 1)[0] for name in LOSSES}
    mixed = Segmentation(CLASSES, losses={"cross_entropy": 0.5, "dice": 2.0})
    loss, metrics, _ = shares(mixed, 1)
    assert loss == pytest.approx(0.5 * each["cross_entropy"] + 2.0 * each["dice"], rel=1e-5)
    assert list(metrics) == list(mixed.metrics)
    assert metrics["dice"] == pytest.approx(each["dice"], rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_nothing_and_get_no_gradient(name):
    task = Segmentation(CLASSES, losses={name: 1.0})
    loss, _, gradient = shares(task, 1)
    assert (gradient[LABELS == IGNORED] == 0).all()
    other = LOGITS.copy()
    other[LABELS == IGNORED] = 100.0
    batch = task.prepare({"label": tf.constant(LABELS)})
    changed, _ = task.loss(tf.constant(other), batch, task.weight(batch), lambda x: x)
    assert float(changed) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_valid_pixel_has_a_finite_loss(name):
    nothing = np.full_like(LABELS, IGNORED)
    loss, metrics, gradient = shares(Segmentation(CLASSES, losses={name: 1.0}), 1, nothing)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert metrics["pixel_accuracy"] == 0.0


def test_label_smoothing_is_cross_entropy_with_smooth_targets():
    labels = np.where(LABELS == IGNORED, 0, LABELS).astype(np.int32)
    smooth = np.eye(CLASSES, dtype=np.float32)[labels] * 0.9 + 0.1 / CLASSES
    expected = tf.nn.softmax_cross_entropy_with_logits(smooth, LOGITS)
    found = cross_entropy(tf.constant(LOGITS), tf.constant(labels), label_smoothing=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def evaluate(task, *parts):
    """Score of batches, added up as an evaluation adds them."""
    sums = [task.measure(tf.constant(logits), batch).sums for logits, batch in parts]
    return task.score(
        {name: sum(np.asarray(each[name], np.int64) for each in sums) for name in sums[0]}, {}
    )


def test_the_score_counts_every_valid_pixel_of_real_images_once():
    task = Segmentation(CLASSES)
    mask = np.array([1, 1, 0, 1, 1, 1], np.float32)
    batch = {"label": tf.constant(LABELS), "mask": tf.constant(mask)}
    found = evaluate(task, (LOGITS, batch))
    counts = (LABELS != IGNORED) & (mask[:, None, None] > 0)
    truth, predicted = LABELS[counts], LOGITS.argmax(-1)[counts]
    each = [
        ((truth == n) & (predicted == n)).sum() / ((truth == n) | (predicted == n)).sum()
        for n in range(CLASSES)
    ]
    assert found["mean_iou"] == pytest.approx(np.mean(each))
    assert found["pixel_accuracy"] == pytest.approx((truth == predicted).mean())
    assert [found[f"iou/{n}"] for n in range(CLASSES)] == pytest.approx(each)
    assert next(iter(found)) == task.best
    halves = [
        (LOGITS[part], {name: value[part] for name, value in batch.items()})
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert evaluate(task, *halves) == pytest.approx(found)
    assert int(task.measure(tf.constant(LOGITS), batch).sums["examples"]) == 5


def test_a_class_that_is_nowhere_does_not_count_and_a_predicted_one_is_0():
    task = Segmentation(3)
    labels = np.zeros([1, 2, 2], np.uint8)
    batch = {"label": tf.constant(labels), "mask": tf.ones([1])}
    logits = np.zeros([1, 2, 2, 3], np.float32)
    logits[..., 0] = 1.0
    assert evaluate(task, (logits, batch)) == {"mean_iou": 1.0, "pixel_accuracy": 1.0, "iou/0": 1.0}
    logits[0, 0, 0] = [0.0, 0.0, 5.0]
    found = evaluate(task, (logits, batch))
    assert found["iou/2"] == 0.0
    assert found["mean_iou"] == pytest.approx(0.75 / 2)
    assert "iou/1" not in found


def test_logits_at_the_originals_size_are_those_of_tensorflows_resizing():
    logits = tf.constant(LOGITS)
    scale = np.array([5 / 20, 7 / 21], np.float32)
    placement = np.tile([*scale, 0.0, 0.0], [6, 1]).astype(np.float32)
    found = resize_logits(logits, tf.constant(placement), (20, 21))
    expected = tf.image.resize(logits, [20, 21], "bilinear")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_evaluation_at_the_original_undoes_the_framing():
    """A mirrored, enlarged and shifted map is found again at its place."""
    small = RANDOM.integers(0, CLASSES, [1, 4, 6])
    large = np.kron(small, np.ones([1, 5, 5], int))[:, :, ::-1]
    logits = np.zeros([1, 24, 32, CLASSES], np.float32)
    logits[:, 2:22, 1:31] = np.eye(CLASSES)[large]
    label = np.full([1, 8, 8], IGNORED, np.uint8)
    label[:, :4, :6] = small
    placement = tf.constant([[5.0, -5.0, 2.0, 31.0]])
    batch = {"label": tf.constant(label), "mask": tf.ones([1]), "placement": placement}
    assert evaluate(Segmentation(CLASSES), (logits, batch))["mean_iou"] == 1.0


def test_the_picture_has_image_labels_and_prediction():
    image = np.zeros([6, 5, 7, 3], np.uint8)
    (row, *others) = Segmentation(CLASSES).draw(LOGITS, {"image": image, "label": LABELS}, "abcd")
    assert len(others) == 5
    assert [picture.shape for picture in row] == [(5, 7, 3)] * 3


def test_the_report_says_how_many_pixels_are_wrong_and_the_most_frequent_mistake():
    task = Segmentation(3)
    labels = np.array([[[0, 0, 1, IGNORED]], [[2, 2, 2, 2]]], np.uint8)
    logits = np.eye(3, dtype=np.float32)[[[[0, 2, 1, 0]], [[2, 2, 2, 2]]]]
    batch = {"label": labels, "mask": np.ones(2, np.float32)}
    np.testing.assert_allclose(task.errors(tf.constant(logits), batch), [1 / 3, 0])
    names = ("ground", "sky", "tree")
    said = task.caption(logits[0], {"label": labels[0]}, names)
    assert said == "67% right; ground taken for tree 33%"
    assert task.caption(logits[1], {"label": labels[1]}, names) == "100% right"
    sums = task.measure(tf.constant(logits), batch).sums
    found = task.per_class({name: np.asarray(value) for name, value in sums.items()}, {})
    assert found["pixels"].tolist() == [2, 1, 4]
    np.testing.assert_allclose(found["IoU"], [1 / 2, 1, 4 / 5])

"""The published loss and score, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tasks.classification import Classification, balanced_weights, cross_entropy


def test_cross_entropy_is_that_of_the_true_class():
    # softmax of (log 1, log 2, log 5) is (1/8, 2/8, 5/8)
    logits = tf.math.log([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]])
    loss = cross_entropy(logits, tf.constant([0, 2]), label_smoothing=0.0)
    np.testing.assert_allclose(loss, [math.log(8), math.log(8 / 5)], rtol=1e-6)


def test_smoothing_spreads_its_share_over_all_classes_the_true_one_included():
    logits = tf.math.log([[1.0, 2.0, 5.0]])
    log_8 = math.log(8)
    entropies = np.array([log_8, log_8 - math.log(2), log_8 - math.log(5)])
    expected = (0.7 + 0.1) * entropies[2] + 0.1 * (entropies[0] + entropies[1])
    loss = cross_entropy(logits, tf.constant([2]), label_smoothing=0.3)
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_shares_of_one_class_are_the_same_as_its_number():
    logits = tf.random.stateless_normal([6, 10], seed=[1, 2])
    labels = tf.constant([0, 3, 9, 1, 1, 5])
    hard = cross_entropy(logits, labels, label_smoothing=0.1)
    soft = cross_entropy(logits, tf.one_hot(labels, 10), label_smoothing=0.1)
    np.testing.assert_array_equal(hard, soft)


def test_shares_of_two_classes_mix_their_losses():
    logits = tf.random.stateless_normal([1, 4], seed=[1, 2])
    first, second = (cross_entropy(logits, tf.constant([c]), label_smoothing=0.1) for c in (0, 2))
    mixed = cross_entropy(logits, tf.constant([[0.25, 0.0, 0.75, 0.0]]), label_smoothing=0.1)
    np.testing.assert_allclose(mixed, 0.25 * first + 0.75 * second, rtol=1e-6)


LOGITS = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [2.0, 2.0, 2.0], [1.0, 0.0, 9.0]], np.float32)
LABELS = np.array([0, 2, 1, 2], np.int32)


def test_shares_of_the_loss_add_up_to_that_of_the_whole_batch():
    task = Classification(3, label_smoothing=0.1)
    batch = {"label": tf.constant(LABELS)}
    whole, metrics = task.loss(tf.constant(LOGITS), batch, task.weight(batch), lambda x: x)
    halves = []
    for part in (slice(0, 3), slice(3, 4)):
        of_part = {"label": batch["label"][part]}
        halves.append(task.loss(tf.constant(LOGITS[part]), of_part, 4.0, lambda x: x))
    np.testing.assert_allclose(halves[0][0] + halves[1][0], whole, rtol=1e-6)
    assert task.metrics == tuple(metrics)
    np.testing.assert_allclose(halves[0][1]["top_1"] + halves[1][1]["top_1"], metrics["top_1"])
    assert float(metrics["top_1"]) == 0.5


WEIGHTS = (1.0, 0.5, 3.0)


def gradient_of_loss(task, logits, labels):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss, _ = task.loss(logits, {"label": labels}, 4.0, lambda x: x)
    return float(loss), tape.gradient(loss, logits).numpy()


def test_class_weights_multiply_the_loss_of_an_image_whatever_its_neighbours():
    task, logits = Classification(3, 0.1, WEIGHTS), tf.constant(LOGITS)
    plain = cross_entropy(logits, tf.constant(LABELS), label_smoothing=0.1)
    expected = np.sum(plain * np.take(WEIGHTS, LABELS)) / 4
    loss, gradient = gradient_of_loss(task, logits, tf.constant(LABELS))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    _, unweighted = gradient_of_loss(Classification(3, 0.1), logits, tf.constant(LABELS))
    weighted = unweighted * np.take(WEIGHTS, LABELS)[:, np.newaxis]
    np.testing.assert_allclose(gradient, weighted, rtol=1e-5, atol=1e-7)


def test_each_share_of_a_mixed_image_has_the_weight_of_its_class():
    task, logits = Classification(3, 0.1, WEIGHTS), tf.constant(LOGITS)
    first, second = tf.constant(LABELS), tf.constant([2, 2, 0, 1])
    mixed = 0.25 * tf.one_hot(first, 3) + 0.75 * tf.one_hot(second, 3)
    loss, gradient = gradient_of_loss(task, logits, mixed)
    parts = [gradient_of_loss(task, logits, labels) for labels in (first, second)]
    np.testing.assert_allclose(loss, 0.25 * parts[0][0] + 0.75 * parts[1][0], rtol=1e-5)
    expected = 0.25 * parts[0][1] + 0.75 * parts[1][1]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_balanced_weights_give_every_class_the_same_share_of_the_loss():
    weights = balanced_weights([60, 20, 0])
    np.testing.assert_allclose(weights, [80 / 120, 80 / 40, 0])
    assert np.dot(weights, [60, 20, 0]) == 80


def test_the_mean_per_class_counts_a_rare_class_as_much_as_a_frequent_one():
    task = Classification(3, best="mean_per_class")
    labels = np.array([0, 0, 0, 0, 1, 0], np.int32)
    logits = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 0, 2]]
    batch = {"label": tf.constant(labels), "mask": tf.constant([1.0] * 5 + [0.0])}
    sums, _ = task.measure(tf.constant(logits), batch)
    figures = task.score({name: value.numpy() for name, value in sums.items()}, {})
    assert sums["class_examples"].dtype == tf.int32
    assert figures["top_1"] == 3 / 5
    assert figures["mean_per_class"] == (3 / 4 + 0) / 2  # no image of class 2
    assert task.best == next(iter(figures))
    assert next(iter(task.format_score(figures))) == "mean per class"


def test_every_image_is_counted_once_in_whole_numbers():
    task = Classification(3)
    batch = {"label": tf.constant(LABELS), "mask": tf.constant([1.0, 1.0, 1.0, 0.0])}
    sums, rows = task.measure(tf.constant(LOGITS), batch)
    assert not rows
    assert all(sums[name].dtype == tf.int32 for name in ("examples", "top_1", "top_5", "confusion"))
    # The third image's logits are equal: the first class wins, and all three are in the top 5.
    np.testing.assert_array_equal(sums["confusion"], [[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert (int(sums["examples"]), int(sums["top_1"]), int(sums["top_5"])) == (3, 1, 3)
    figures = task.score({name: value.numpy() for name, value in sums.items()}, {})
    assert figures["top_1"] == 1 / 3
    assert task.best in figures
    assert task.format_score(figures)["top-1"] == "33.33%"


def test_several_right_labels_count_as_their_best_one():
    task = Classification(6)
    logits = np.array([[9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [0, 0, 0, 0, 0, 0]], np.float32)
    labels = tf.constant([[3, 5, -1], [0, 1, 1], [1, -1, -1]])
    sums, _ = task.measure(tf.constant(logits), {"label": labels, "mask": tf.constant([1.0] * 3)})
    # The best right class of the first image is its fourth; of equal logits the first class wins.
    assert (int(sums["top_1"]), int(sums["top_5"]), int(sums["examples"])) == (1, 3, 3)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = [shares[0, [3, 5]].sum(), shares[1, [0, 1]].sum(), shares[2, 1]]
    np.testing.assert_allclose(sums["cross_entropy"], -np.log(right).sum(), rtol=1e-5)
    figures = task.score({name: value.numpy() for name, value in sums.items()}, {})
    assert figures.keys() == {"top_1", "top_5", "cross_entropy"}
    assert task.format_score(figures).keys() == {"top-1", "top-5", "cross entropy"}


def test_many_classes_are_not_cross_counted():
    batch = {"label": tf.constant([7]), "mask": tf.constant([1.0])}
    sums, _ = Classification(101).measure(tf.zeros([1, 101]), batch)
    assert "confusion" not in sums


def sums_of(task, logits=LOGITS, labels=LABELS):
    batch = {"label": tf.constant(labels), "mask": tf.ones(len(labels))}
    return {name: x.numpy() for name, x in task.measure(tf.constant(logits), batch).sums.items()}


@pytest.mark.parametrize("classes", [3, 101])
def test_each_class_has_its_recall_and_few_classes_their_precision(classes):
    logits = np.pad(LOGITS, [(0, 0), (0, classes - 3)], constant_values=-9)
    figures = Classification(classes).per_class(sums_of(Classification(classes), logits), {})
    np.testing.assert_array_equal(figures["images"][:3], [1, 1, 2])
    # 0 is found, and so is the label of the third image by mistake; 2 is found once of twice.
    np.testing.assert_array_equal(figures["recall"][:3], [1, 0, 0.5])
    assert np.isnan(figures["recall"][3:]).all()
    assert ("precision" in figures) == (classes == 3)
    if classes == 3:
        np.testing.assert_array_equal(figures["precision"], [0.5, 0, 1])


def test_an_error_is_the_probability_of_a_wrong_class():
    task = Classification(3)
    mask = tf.constant([1.0, 1.0, 1.0, 0.0])
    labels = tf.constant([0, 2, 1, 0])  # the last one is wrong, and padding
    errors = task.errors(tf.constant(LOGITS), {"label": labels, "mask": mask}).numpy()
    probabilities = tf.nn.softmax(LOGITS).numpy()
    np.testing.assert_allclose(errors, [0, probabilities[1, 1], 1 / 3, 0], rtol=1e-6)
    np.testing.assert_array_equal(task.evidence(tf.constant(LOGITS)), [3, 5, 2, 9])


def test_a_caption_names_what_an_example_was_taken_for():
    names = ("ant", "bee", "cow")
    caption = Classification(3).caption(LOGITS[1], {"label": np.int32(2)}, names)
    assert caption == "bee 98%, is cow 2%"

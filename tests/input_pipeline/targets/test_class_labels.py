"""From the labels of a record to those of a batch."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.images.view import EvalView
from input_pipeline.targets.class_label import ClassLabel
from input_pipeline.targets.class_labels import ClassLabels, multi_hot
from input_pipeline.targets.whole_image import LABELS


def check(target, labels: list[int], offset: int = 1) -> tuple[np.ndarray, str]:
    features = {LABELS: tf.constant(labels, tf.int64)}
    row, problem = target.check(features, num_classes=5, label_offset=offset)
    (spec,) = target.batch_spec(1, EvalView(32)).values()
    assert tf.TensorSpec.from_tensor(row["label"][tf.newaxis]).is_compatible_with(spec)
    return row["label"].numpy(), problem.numpy().decode()


def test_one_label_is_counted_from_0():
    assert check(ClassLabel(), [5]) == (4, "")
    assert check(ClassLabel(), [0], offset=0) == (0, "")


@pytest.mark.parametrize(
    ("target", "labels", "problem"),
    [
        (ClassLabel(), [], "feature image/class/label is missing"),
        (ClassLabel(), [1, 2], "2 labels; expected 1 (task.name=multi_label takes several)"),
        (ClassLabel(), [6], "label 6 is outside 1..5"),
        (ClassLabel(), [0], "label 0 is outside 1..5"),
        (ClassLabels(2), [1, 2, 3], "3 labels, more than task.max_labels=2"),
        (ClassLabels(2), [5, 6], "label 6 is outside 1..5"),
        (ClassLabels(2), [0], "label 0 is outside 1..5"),
    ],
)
def test_a_record_that_does_not_fit_is_one_line(target, labels: list[int], problem: str):
    assert check(target, labels)[1] == problem


def test_several_labels_are_padded_to_one_length():
    assert check(ClassLabels(4), [3, 1])[0].tolist() == [2, 0, -1, -1]
    assert check(ClassLabels(2), [3, 1])[0].tolist() == [2, 0]
    assert check(ClassLabels(3), [])[0].tolist() == [-1, -1, -1]
    assert check(ClassLabels(3), [])[1] == ""


def test_labels_are_made_multi_hot_each_once():
    labels = tf.constant([[2, 0, -1], [1, 1, -1], [-1, -1, -1]])
    expected = [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    hot = multi_hot(labels, 4)
    assert hot.dtype == tf.float32
    np.testing.assert_array_equal(hot, expected)
    np.testing.assert_array_equal(ClassLabels(3).shares(labels, 4), expected)

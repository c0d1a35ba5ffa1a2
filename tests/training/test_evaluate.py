"""Evaluation counts every image once, or refuses to give figures."""

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from tasks.classification import Classification
from tasks.task import Measures
from training.evaluate import IncompleteEvaluationError, evaluate

TASK = Classification(num_classes=2)


def _step(iterator: Iterator[int]) -> Measures:
    """What a batch of four or two times four images measures."""
    times = next(iterator)
    counts = {
        "examples": 4,
        "top_1": 3,
        "top_5": 4,
        "class_examples": [2, 2],
        "class_top_1": [1, 2],
        "confusion": [[1, 1], [0, 2]],
    }
    sums = {name: tf.constant(count) * times for name, count in counts.items()}
    return Measures({**sums, "cross_entropy": tf.constant(2.0 * times)}, {})


def test_sums_over_batches_become_shares_of_all_images() -> None:
    result = evaluate(_step, [1, 2], TASK, num_steps=2, num_examples=12)
    assert result.figures == {
        "top_1": 0.75,
        "top_5": 1.0,
        "cross_entropy": 0.5,
        "mean_per_class": 0.75,
    }
    assert str(result) == "top-1 75.00%, top-5 100.00%, cross entropy 0.5000 on 12 images"


def test_confusion_adds_up_to_the_images() -> None:
    result = evaluate(_step, [1, 1], TASK, num_steps=2, num_examples=8)
    np.testing.assert_array_equal(result.sums["confusion"], [[2, 2], [0, 4]])


def test_a_missing_image_is_an_error_and_no_figure() -> None:
    with pytest.raises(IncompleteEvaluationError, match="saw 8 images of 9"):
        evaluate(_step, [1, 1], TASK, num_steps=2, num_examples=9)


def test_every_step_is_reported() -> None:
    steps: list[int] = []
    evaluate(_step, [1] * 3, TASK, num_steps=3, num_examples=12, on_step=steps.append)
    assert steps == [1, 2, 3]


def test_broken_images_may_be_left_out_up_to_a_number() -> None:
    result = evaluate(_step, [1, 1], TASK, num_steps=2, num_examples=10, max_missing=2)
    assert result.num_examples == 8
    with pytest.raises(IncompleteEvaluationError, match="saw 8 images of 11"):
        evaluate(_step, [1, 1], TASK, num_steps=2, num_examples=11, max_missing=2)
    with pytest.raises(IncompleteEvaluationError, match="saw 8 images of 7"):
        evaluate(_step, [1, 1], TASK, num_steps=2, num_examples=7, max_missing=2)

"""Evaluation counts every image once, or refuses to give figures."""

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from training.evaluate import IncompleteEvaluationError, evaluate

SUMS = {"examples": 4.0, "cross_entropy": 2.0, "top_1": 3.0, "top_5": 4.0}


def _step(iterator: Iterator[float]) -> dict[str, tf.Tensor]:
    share = next(iterator)
    sums = {name: tf.constant(value * share) for name, value in SUMS.items()}
    return {**sums, "confusion": tf.constant([[1.0, 1.0], [0.0, 2.0]]) * share}


def test_sums_over_batches_become_shares_of_all_images() -> None:
    result = evaluate(_step, [1.0, 0.5], num_steps=2, num_examples=6)
    assert (result.top_1, result.top_5) == (0.75, 1.0)
    assert result.cross_entropy == 0.5
    assert result.num_examples == 6


def test_confusion_adds_up_to_the_images() -> None:
    result = evaluate(_step, [1.0, 1.0], num_steps=2, num_examples=8)
    np.testing.assert_array_equal(result.confusion, [[2, 2], [0, 4]])


def test_a_missing_image_is_an_error_and_no_figure() -> None:
    with pytest.raises(IncompleteEvaluationError, match="saw 8 images of 9"):
        evaluate(_step, [1.0, 1.0], num_steps=2, num_examples=9)


def test_every_step_is_reported() -> None:
    steps: list[int] = []
    evaluate(_step, [1.0] * 3, num_steps=3, num_examples=12, on_step=steps.append)
    assert steps == [1, 2, 3]


def test_broken_images_may_be_left_out_up_to_a_number() -> None:
    result = evaluate(_step, [1.0, 1.0], num_steps=2, num_examples=10, may_miss=2)
    assert result.num_examples == 8
    with pytest.raises(IncompleteEvaluationError, match="saw 8 images of 11"):
        evaluate(_step, [1.0, 1.0], num_steps=2, num_examples=11, may_miss=2)
    with pytest.raises(IncompleteEvaluationError, match="saw 8 images of 7"):
        evaluate(_step, [1.0, 1.0], num_steps=2, num_examples=7, may_miss=2)

"""Losses in numbers worked out by hand; the published arrays are in test_parity_detection."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tasks.detection.losses import IOU_KINDS, focal, huber, iou_loss


def test_focal_loss_weighs_by_what_is_wrong():
    logits = tf.math.log([[[3.0, 1.0]]])  # probabilities 3/4 and 1/2
    found = focal(logits, tf.constant([[0]]), alpha=0.25, gamma=2.0)
    expected = [0.25 * 0.25**2 * -math.log(0.75), 0.75 * 0.5**2 * -math.log(0.5)]
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-6)


def test_no_class_is_a_row_of_negatives():
    logits = tf.constant([[[0.3, -2.0]]])
    found = focal(logits, tf.constant([[-1]]))
    swapped = focal(logits[..., ::-1], tf.constant([[-1]]))
    np.testing.assert_allclose(found[0, 0], swapped[0, 0, ::-1], rtol=1e-6)


def test_huber_is_quadratic_up_to_delta_and_has_no_factor():
    targets = tf.constant([[[1.0, 1.0, 0.0, -1.0]]])
    codes = tf.constant([[[1.05, 1.3, 9.0, -1.0]]])
    expected = [0.05**2 / 2, 0.1 * 0.3 - 0.1**2 / 2, 0.0, 0.0]
    np.testing.assert_allclose(huber(codes, targets)[0, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", IOU_KINDS)
def test_equal_boxes_have_no_iou_loss_and_zeros_do_not_count(kind):
    box = tf.constant([[1.0, 2.0, 5.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(iou_loss(box, box, kind), [0.0, 0.0], atol=1e-6)
    other = tf.constant([[1.0, 2.0, 5.0, 9.0], [3.0, 3.0, 4.0, 4.0]])
    np.testing.assert_allclose(iou_loss(other, box, kind), [0.0, 0.0], atol=1e-6)


def test_generalised_forms_are_above_one_for_boxes_apart():
    a, b = tf.constant([[0.0, 0.0, 1.0, 1.0]]), tf.constant([[0.0, 3.0, 1.0, 4.0]])
    assert float(iou_loss(a, b, "iou")[0]) == 1.0
    assert float(iou_loss(a, b, "giou")[0]) == pytest.approx(1.5)  # the hull of 4 is half empty
    assert float(iou_loss(a, b, "diou")[0]) == pytest.approx(1 + 9 / 17)
    assert float(iou_loss(a, b, "ciou")[0]) == pytest.approx(1 + 9 / 17)  # the same aspect ratio

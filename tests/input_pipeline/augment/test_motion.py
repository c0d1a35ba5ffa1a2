"""Boxes are moved as policies move the pixels under them."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import get_augment, levels, operations
from input_pipeline.augment.motion import Motion, move_boxes
from input_pipeline.augment.policies import make_motions

HEIGHT, WIDTH = 90, 120
BOXES = np.array(
    [[20, 30, 50, 80], [0, 0, 12, 9], [60, 100, 90, 120], [44, 59, 47, 62]], np.float32
)
SIZE = tf.constant([HEIGHT, WIDTH])


def filled(box: np.ndarray) -> tf.Tensor:
    """Draw a white box on black."""
    image = np.zeros([HEIGHT, WIDTH, 3], np.uint8)
    top, left, bottom, right = box.astype(int)
    image[top:bottom, left:right] = 255
    return tf.constant(image)


def hull(image: tf.Tensor) -> np.ndarray | None:
    """The box of the white pixels; None if there are none."""
    rows, columns = np.nonzero(image.numpy()[..., 0] == 255)
    if not len(rows):
        return None
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


def assert_around(box: np.ndarray, image: tf.Tensor, slack: float) -> None:
    """Hold a box against the pixels; `slack` is how much larger it may be, unless the image cuts it off."""
    seen = hull(image)
    if seen is None:
        assert (box[2:] - box[:2]).min() <= 1.5, box
        return
    outward = np.array([-1, -1, 1, 1]) * (box - seen)
    assert (outward > -1.01).all(), (box, seen)
    whole = (box > 0).all() and (box < [HEIGHT, WIDTH] * 2).all()
    assert (outward < slack).all() or not whole, (box, seen)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("Rotate", lambda x, level: operations.rotate(x, levels.rotate_degrees(level))),
        ("ShearX", lambda x, level: operations.shear_x(x, levels.shear_level(level))),
        ("ShearY", lambda x, level: operations.shear_y(x, levels.shear_level(level))),
        ("TranslateX", lambda x, level: operations.translate_x(x, level / 10 * 40.0)),
        ("TranslateY", lambda x, level: operations.translate_y(x, level / 10 * 40.0)),
    ],
)
def test_a_box_moves_as_its_pixels(name, operation, sign):
    for level in (3.0, 8.0):
        motions = tf.constant([np.multiply(make_motions(40.0)[name], level * sign)], tf.float32)
        moved = move_boxes(tf.constant(BOXES), SIZE, motions).numpy()
        assert ((moved >= 0) & (moved <= [HEIGHT, WIDTH] * 2)).all()
        for box, result in zip(BOXES, moved, strict=True):
            assert_around(result, operation(filled(box), level * sign), slack=1.51)


def test_translation_by_a_share_depends_on_the_sides():
    motions = tf.constant([make_motions(None)["TranslateX"]], tf.float32) * 5.0
    moved = move_boxes(tf.constant(BOXES[:1]), SIZE, motions).numpy()
    np.testing.assert_allclose(moved, [[20, 30 - WIDTH * 75 / 331, 50, 80 - WIDTH * 75 / 331]])


def test_the_hull_is_that_of_all_operations_together():
    there_and_back = tf.constant([Motion(degrees=20.0), Motion(degrees=-20.0)])
    moved = move_boxes(tf.constant(BOXES[:1]), SIZE, there_and_back).numpy()
    np.testing.assert_allclose(moved, BOXES[:1], atol=1e-3)


def test_what_an_operation_moves_out_of_the_image_does_not_come_back():
    there_and_back = tf.constant([Motion(left=40.0), Motion(left=-40.0)])
    moved = move_boxes(tf.constant(BOXES), SIZE, there_and_back).numpy()
    np.testing.assert_allclose(moved[0], [20, 40, 50, 80], atol=1e-4)
    assert moved[1, 3] - moved[1, 1] == 0
    np.testing.assert_allclose(moved[2:], BOXES[2:], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("autoaugment", {"translate_const": 30.0}),
        ("autoaugment", {"quirks": False}),
        ("randaugment", {"layers": 1}),
        ("randaugment", {"layers": 3, "quirks": False, "magnitude": 7.0}),
        ("randaugment", {"layers": 2, "magnitude_std": 3.0, "translate_const": 20.0}),
        ("cutout", {}),
        ("none", {}),
    ],
)
def test_boxes_follow_what_a_policy_draws(policy, options):
    augment = get_augment(policy, **options)
    image, boxes = filled(BOXES[0]), tf.constant(BOXES[:1])
    run = tf.function(
        lambda seed: (augment.move(image, seed), augment.move_boxes(boxes, SIZE, seed)),
        autograph=False,
    )
    moved = 0
    for number in range(60):
        pixels, (box,) = run(tf.constant([7, number], tf.int64))
        # With several operations the hull of what is left may be smaller than that of the corners.
        assert_around(box.numpy(), pixels, slack=1.51 if options.get("layers", 2) == 1 else 20)
        moved += np.abs(box.numpy() - BOXES[0]).max() > 1
    assert moved > 8 or policy in ("cutout", "none")

"""Framings: what they show, and that their placement says where it comes from."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.images.framing import (
    EVAL_FRAMINGS,
    TRAIN_FRAMINGS,
    CenterCrop,
    Letterbox,
    RandomCrop,
    RandomSample,
    ScaleJitter,
    Squash,
    frame_eval,
    frame_train,
)
from input_pipeline.images.placement import Placement
from input_pipeline.images.view import EvalView, TrainView

HEIGHT, WIDTH, SIZE = 180, 240, (48, 32)


def located() -> bytes:
    """An image whose red is the row and whose green is the column of a pixel."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([rows, columns, np.full_like(rows, 200)], axis=-1).astype(np.uint8)
    return tf.io.encode_png(pixels).numpy()


IMAGE = located()


@tf.function(reduce_retracing=True)
def framed(index: tf.Tensor, framing, size=SIZE):
    return frame_train(IMAGE, tf.stack([4, index]), framing, size, resize="bilinear")


@pytest.mark.slow
@pytest.mark.parametrize("framing", [RandomCrop(), Squash(), ScaleJitter(), Letterbox()])
def test_the_placement_says_which_source_pixel_a_pixel_shows(framing):
    mirrored = 0
    for index in range(12):
        image, placement = framed(tf.constant(index, tf.int64), framing)
        corner, (height, width) = placement.corner.numpy(), placement.valid.numpy()
        assert image.shape == (height, width, 3)
        centres = np.stack(np.mgrid[:height, :width], axis=-1) + corner + 0.5
        source = placement.to_source(tf.constant(centres, tf.float32)).numpy() - 0.5
        # The kernel looks at a pixel and the next one; the last has none.
        inside = ((source > -0.01) & (source < [HEIGHT - 0.99, WIDTH - 0.99])).all(axis=-1)
        assert inside.mean() > 0.8
        shown = image.numpy()[..., :2].astype(float)
        assert np.abs(shown - source)[inside].max() <= 1.01  # truncated
        mirrored += int(placement.scale[1] < 0)
        assert placement.source_size.numpy().tolist() == [HEIGHT, WIDTH]
    assert 2 < mirrored < 10


def test_points_go_to_the_source_and_back():
    _, placement = framed(tf.constant(3, tf.int64), RandomCrop())
    points = tf.constant([[0.0, 0.0], [10.0, 31.5]])
    back = placement.to_result(placement.to_source(points))
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_placements_are_composed():
    first = Placement(
        tf.constant([0.5, 0.5]),
        tf.constant([0.0, 4.0]),
        tf.constant([HEIGHT, WIDTH]),
        tf.constant([0, 4]),
        tf.constant([20, 24]),
    )
    second = Placement(
        tf.constant([2.0, 2.0]),
        tf.constant([-10.0, 0.0]),
        tf.constant([40, 32]),
        tf.constant([0, 0]),
        tf.constant([60, 64]),
    ).mirror()
    both = first.then(second)
    points = tf.constant([[0.0, 0.0], [12.0, 7.0]])
    np.testing.assert_allclose(
        both.to_result(points), second.to_result(first.to_result(points)), atol=1e-5
    )
    assert both.source_size.numpy().tolist() == [HEIGHT, WIDTH]
    # Rows 0 to 20 go to -10 to 30, of which 30 are left; columns 4 to 28 to 8 to 56, mirrored.
    assert (both.corner.numpy().tolist(), both.valid.numpy().tolist()) == ([0, 8], [30, 48])


def test_squash_shows_the_whole_image_in_any_shape():
    image, placement = frame_eval(IMAGE, Squash(), SIZE, resize="bilinear")
    assert image.shape == SIZE + (3,)
    np.testing.assert_allclose(placement.scale, [48 / HEIGHT, 32 / WIDTH])
    assert image[0, 0, :2].numpy().tolist() == [0, 0]
    assert image[-1, -1, :2].numpy().tolist() == [round(47 * 180 / 48), round(31 * 240 / 32)]


@pytest.mark.parametrize(("alignment", "corner"), [("center", [12, 0]), ("top_left", [0, 0])])
def test_letterbox_fits_the_whole_image_and_pads_with_zeros(alignment, corner):
    view = EvalView(SIZE, Letterbox(alignment), resize="bilinear")
    batch = view(IMAGE)
    assert batch["valid"].numpy().tolist() == [24, 32]  # 180 x 240 into 48 x 32
    assert ("corner" in batch) == (alignment == "center")
    assert batch.get("corner", tf.zeros(2)).numpy().tolist() == corner
    shown = batch["image"].numpy()[..., 2] > 0
    rows = np.arange(48)
    assert (shown == ((rows >= corner[0]) & (rows < corner[0] + 24))[:, None]).all()


def test_scale_jitter_covers_its_range_and_stays_inside():
    scales, corners, framing = [], set(), ScaleJitter((0.5, 1.5))  # one object: traced once
    for index in range(60):
        image, placement = framed(tf.constant(index, tf.int64), framing, (32, 32))
        assert (placement.valid.numpy() <= 32).all()
        assert image.shape == (*placement.valid.numpy(), 3)
        scales.append(np.abs(placement.scale.numpy()) / (32 / WIDTH))
        corners.add(tuple(placement.to_source(tf.zeros(2)).numpy().round().tolist()))
    scales = np.array(scales)
    assert 0.45 < scales.min() < 0.65
    assert 1.35 < scales.max() < 1.55
    assert np.abs(scales[:, 0] - scales[:, 1]).max() < 0.1  # whole pixels
    assert len(corners) > 20


def test_a_wide_result_takes_a_wide_window_of_the_centre():
    image, placement = frame_eval(IMAGE, CenterCrop(crop_padding=0), (20, 60), resize="bilinear")
    assert image.shape == (20, 60, 3)
    top, left = placement.to_source(tf.zeros(2)).numpy()
    bottom, right = placement.to_source(tf.constant([20.0, 60.0])).numpy()
    assert abs(bottom - top - 80) < 0.01  # 80 x 240 of 180 x 240
    assert abs(right - left - 240) < 0.01
    assert abs((top + bottom) / 2 - 90) < 2
    _, placement = frame_eval(IMAGE, CenterCrop(crop_padding=5), (20, 60))
    np.testing.assert_allclose(placement.scale, [20 / 64, 60 / 192], rtol=1e-6)  # 20 / (20 + 5)


KINDS = dict.fromkeys(
    [*TRAIN_FRAMINGS.values(), *EVAL_FRAMINGS.values()]
)  # in one order in all workers


@pytest.mark.parametrize("kind", KINDS)
def test_only_framings_that_pad_have_a_valid_size(kind):
    views = [EvalView(SIZE, kind())] if kind in EVAL_FRAMINGS.values() else []
    if kind in TRAIN_FRAMINGS.values():
        views.append(TrainView(SIZE, kind()))
    for view in views:
        assert ("valid" in view.blank()) == kind.pads
        assert view.blank()["image"].shape == (*SIZE, 3)


def test_a_policy_sees_the_image_without_padding():
    seen = []

    def augment(image, seed):
        seen.append(image.numpy())
        return image

    view = TrainView(SIZE, ScaleJitter((0.4, 0.6)), augment=augment)
    seed = tf.constant([1, 2], tf.int64)
    batch = view(IMAGE, seed, seed)
    assert batch["image"].shape == (*SIZE, 3)
    (image,) = seen
    assert image.shape[:2] == tuple(batch["valid"].numpy())
    assert image.shape[0] < SIZE[0]
    np.testing.assert_array_equal(batch["image"][: image.shape[0], : image.shape[1]], image)


# -- EfficientNetV2's ----------------------------------------------------------------------------


def test_the_odd_pixels_of_a_centre_crop_go_where_they_are_told_to():
    shape = tf.constant([65, 65, 3])
    before, after = (
        CenterCrop(0, odd).part(shape, (64, 64), None).window.numpy() for odd in ("before", "after")
    )
    assert (*before, *after) == (0, 0, 65, 65, 0, 0, 65, 65)
    before, after = (
        CenterCrop(1, odd).part(shape, (64, 64), None).window.numpy() for odd in ("before", "after")
    )
    assert (before.tolist(), after.tolist()) == ([1, 1, 64, 64], [0, 0, 64, 64])


def test_random_samples_cover_what_they_are_asked_to_or_all_of_the_image():
    shape = tf.constant([60, 90, 3])
    framing = RandomSample((0.25, 0.5), (1.0, 1.2))
    for index in range(20):
        window = framing.part(shape, (32, 32), tf.constant([1, index])).window.numpy()
        assert 0.2 <= window[2] * window[3] / 5400 <= 0.55
        assert 0.9 <= window[3] / window[2] <= 1.3
    impossible = RandomSample((0.9, 1.0), (4.0, 5.0))
    window = impossible.part(shape, (32, 32), tf.constant([1, 1])).window.numpy()
    assert window.tolist() == [0, 0, 60, 90]

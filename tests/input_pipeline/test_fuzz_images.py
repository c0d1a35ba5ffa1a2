"""Bytes from anybody: a square of pixels, or an error that names what is wrong; never a crash."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from input_pipeline.images.check import BrokenImageError, CheckedImage, check_image
from input_pipeline.images.headers import MOST_PIXELS, check_header
from tests.crops import eval_crop_uint8, train_crop
from tests.fuzz import bounded, damaged, peak_mib
from tests.hostile_images import BOMBS, IMAGES, MOST_MIB, gif_of_frames

pytestmark = pytest.mark.slow

SIZE = 8


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def both_crops(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return (
        eval_crop_uint8(image_bytes, image_size=SIZE),
        train_crop(image_bytes, tf.constant([1, 2]), image_size=SIZE),
    )


def crop(content: bytes) -> str:
    """Crop an image; what was wrong with it, "" if nothing was."""
    try:
        for pixels in both_crops(tf.constant(content)):
            assert pixels.shape == (SIZE, SIZE, 3)
    except tf.errors.InvalidArgumentError as error:
        return error.message
    return ""


def check(content: bytes) -> str:
    try:
        found = check_image(content)
    except BrokenImageError as error:
        return str(error)
    assert isinstance(found, CheckedImage)
    assert found.height * found.width <= MOST_PIXELS
    return ""


@bounded(300)
@given(content=damaged(IMAGES) | st.binary(max_size=64))
def test_fuzz_of_image_bytes(content: bytes) -> None:
    crop(content)
    assert len(check(content).splitlines()) <= 1


@pytest.mark.parametrize("kind", sorted(set(IMAGES) - {"nothing"}))
def test_every_sound_image_is_cropped_and_checked(kind: str) -> None:
    assert crop(IMAGES[kind]) == ""
    assert check(IMAGES[kind]) == ""


@pytest.mark.parametrize("kind", BOMBS)
def test_a_header_bomb_is_refused_before_memory_is_asked_for(kind: str) -> None:
    before = peak_mib()
    assert f"pixels, more than {MOST_PIXELS}" in crop(BOMBS[kind])
    assert f"pixels, more than {MOST_PIXELS}" in check(BOMBS[kind])
    assert peak_mib() - before < MOST_MIB


def test_of_a_gif_only_the_first_frame_is_decoded() -> None:
    bomb = IMAGES["gif"][:-1] + gif_of_frames(8_000, 8_000, 200)[19:]
    before = peak_mib()
    assert crop(bomb) == ""
    assert peak_mib() - before < MOST_MIB
    assert check_header(tf.constant(bomb)).numpy() == IMAGES["gif"]
    one, four = (both_crops(tf.constant(IMAGES[k])) for k in ("gif", "animated gif"))
    np.testing.assert_array_equal(one[0], four[0])

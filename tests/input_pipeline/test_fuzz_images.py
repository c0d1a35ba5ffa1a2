"""Bytes from anybody: a square of pixels, or an error that names what is wrong; never a crash."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from input_pipeline.claims import MOST_PIXELS, checked
from input_pipeline.crop import eval_crop_uint8, train_crop
from input_pipeline.image_check import BrokenImageError, CheckedImage, check_image
from tests.fuzz import bounded, damaged, peak_mib

SIZE = 8
MOST_MIB = 256  # that a bomb may cost, of which the pixels alone would take gigabytes


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def picture(mode: str, height: int = 20, width: int = 30, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


FRAMES = [picture("P", seed=seed) for seed in range(4)]
IMAGES = {
    "jpeg": encode(picture("RGB"), "JPEG"),
    "progressive jpeg": encode(picture("RGB"), "JPEG", progressive=True),
    "grey jpeg": encode(picture("L"), "JPEG"),
    "cmyk jpeg": encode(picture("CMYK"), "JPEG"),
    "png": encode(picture("RGB"), "PNG"),
    "palette png": encode(picture("P"), "PNG"),
    "16-bit png": encode(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)), "PNG"),
    "bmp": encode(picture("RGB"), "BMP"),
    "gif": encode(FRAMES[0], "GIF"),
    "animated gif": encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "webp": encode(picture("RGB"), "WEBP"),
    "lossless webp": encode(picture("RGB"), "WEBP", lossless=True),
    "1 x 1": encode(picture("RGB", 1, 1), "PNG"),
    "1 x 3000": encode(picture("RGB", 1, 3000), "PNG"),
    "3000 x 1": encode(picture("RGB", 3000, 1), "JPEG"),
    "nothing": b"",
}


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


def gif_of_frames(height: int, width: int, frames: int) -> bytes:
    """A GIF of one pixel whose frames claim another size."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return screen + frame * frames + b";"


def resized(kind: str, at: int, form: str) -> bytes:
    """An image whose header claims 30,000 x 30,000 pixels."""
    content = bytearray(IMAGES[kind])
    claim = struct.pack(form, 30_000, 30_000)
    content[at : at + len(claim)] = claim
    return bytes(content)


BOMBS = {
    "png": resized("png", 16, ">II"),
    "bmp": resized("bmp", 18, "<ii"),
    "bmp from the top": resized("bmp", 18, "<ii")[:22] + struct.pack("<i", -30_000) + bytes(40),
    "jpeg": resized("jpeg", IMAGES["jpeg"].index(b"\xff\xc0") + 5, ">HH"),
    "gif": resized("gif", 6, "<HH"),
    "gif frame": gif_of_frames(30_000, 30_000, 1),
    "webp": IMAGES["webp"][:12]
    + b"VP8X"
    + struct.pack("<II", 10, 0)
    + b"\xff\xff\x00" * 2
    + bytes(20),
}


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
    assert checked(tf.constant(bomb)).numpy() == IMAGES["gif"]
    one, four = (both_crops(tf.constant(IMAGES[k])) for k in ("gif", "animated gif"))
    np.testing.assert_array_equal(one[0], four[0])

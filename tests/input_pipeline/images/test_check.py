import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.images.check import BrokenImageError, check_image
from input_pipeline.images.headers import MOST_PIXELS

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def encoded(image_format: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_jpeg_is_left_as_it_is(mode: str):
    content = encoded("JPEG", mode)
    checked = check_image(content)
    assert checked.encoded == content
    assert (checked.image_format, checked.height, checked.width) == ("JPEG", 20, 30)
    assert checked.change == ""


@pytest.mark.parametrize(
    ("content", "change"),
    [
        (encoded("PNG"), "PNG converted to JPEG"),
        (encoded("PNG", "P"), "PNG converted to JPEG"),
        (encoded("PNG", "RGBA"), "PNG converted to JPEG"),
        (encoded("PNG", "I;16"), "PNG converted to JPEG"),
        (encoded("GIF"), "GIF converted to JPEG"),
        (encoded("BMP"), "BMP converted to JPEG"),
        (encoded("WebP", lossless=True), "WebP converted to JPEG"),
        (encoded("JPEG", "CMYK"), "CMYK JPEG converted to RGB"),
        (encoded("JPEG")[:-400], "truncated JPEG: recovered and encoded again"),
    ],
    ids=["png", "palette", "alpha", "16 bit", "gif", "bmp", "webp", "cmyk", "truncated"],
)
def test_everything_else_becomes_an_rgb_jpeg_and_says_so(content: bytes, change: str):
    checked = check_image(content)
    assert checked.change == change
    assert tf.io.is_jpeg(checked.encoded)
    assert tf.io.extract_jpeg_shape(checked.encoded).numpy().tolist() == [20, 30, 3]


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "WebP"])
def test_conversion_keeps_the_picture(image_format: str):
    options = {"lossless": True} if image_format == "WebP" else {}
    checked = check_image(encoded(image_format, **options))
    pixels = tf.io.decode_jpeg(checked.encoded, dct_method="INTEGER_ACCURATE").numpy()
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 1.0


def test_png_can_be_kept():
    content = encoded("PNG")
    checked = check_image(content, keep_png=True)
    assert (checked.encoded, checked.image_format, checked.change) == (content, "PNG", "")


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(
        ">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 2, 0, 0, 0, 0
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image: it starts with 3c 68 74 6d"),
        (b"\xff\xd8\xff", "damaged JPEG header"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG header"),
        (png_header(30_000, 30_000), f"30000 x 30000 pixels, more than {MOST_PIXELS}"),
        (encoded("PNG")[:200], "PNG"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(content: bytes, reason: str):
    with pytest.raises(BrokenImageError) as raised:
        check_image(content)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("share_left", "fine"), [(0.7, True), (0.2, False)])
def test_a_truncated_jpeg_is_used_when_half_of_it_is_there(share_left: float, fine: bool):
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(PIXELS, 16, axis=0)).save(buffer, "JPEG", quality=95)
    content = buffer.getvalue()
    content = content[: int(len(content) * share_left)]
    if fine:
        assert check_image(content).change.startswith("truncated JPEG")
    else:
        with pytest.raises(BrokenImageError, match="more than half of the image is missing"):
            check_image(content)

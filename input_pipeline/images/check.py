"""Check image files, and convert those that are not plain JPEGs.

The published pipeline reads RGB or grey JPEGs only; ImageNet itself holds a PNG named .JPEG and
CMYK JPEGs. Everything else is therefore converted to JPEG, and a file that cannot be read raises an
error with the reason.
"""

import re
from dataclasses import dataclass

import tensorflow as tf

from input_pipeline.errors import plain_message
from input_pipeline.images.headers import check_header

JPEG_QUALITY = 100  # as in the published conversion
MOST_BYTES = 256 << 20


class BrokenImageError(ValueError):
    """An image file that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class CheckedImage:
    """An image that decodes: JPEG (or PNG if asked for) of `height` x `width` pixels."""

    encoded: bytes
    image_format: str
    height: int
    width: int
    change: str = ""  # the conversion and its reason; "" if the bytes are unchanged


def check_image(content: bytes, *, keep_png: bool = False) -> CheckedImage:
    """Decode an image file once, and convert it to JPEG unless it is a plain one already.

    Args:
      content: JPEG, PNG, BMP, GIF (its first frame) or WebP bytes.
      keep_png: leave PNGs as they are; the original code cannot read such records.

    Raises:
      BrokenImageError: not an image, too damaged to recover, or too large.
    """
    if not content:
        raise BrokenImageError("the file is empty")
    if len(content) > MOST_BYTES:
        raise BrokenImageError(f"too large: {len(content)} bytes; expected at most {MOST_BYTES}")
    kind = _kind(content)
    content = _check_header(content, kind)
    with tf.device("CPU"):
        try:
            return _check_jpeg(content) if kind == "JPEG" else _convert(content, kind, keep_png)
        except tf.errors.OpError as error:
            raise BrokenImageError(plain_message(error.message)) from None


def _check_jpeg(content: bytes) -> CheckedImage:
    channels = int(tf.io.extract_jpeg_shape(content)[2])
    try:
        pixels = tf.io.decode_jpeg(content, channels=3)
    except tf.errors.InvalidArgumentError:
        return _recover(content)
    if channels == 4:
        return _as_jpeg(pixels, "CMYK JPEG converted to RGB")
    return CheckedImage(content, "JPEG", pixels.shape[0], pixels.shape[1])


def _recover(content: bytes) -> CheckedImage:
    """Recover the rows present in a truncated JPEG; the decoder fills the rest with equal rows."""
    pixels = tf.io.decode_jpeg(content, channels=3, try_recover_truncated=True).numpy()
    differs = (pixels != pixels[-1:]).any(axis=(1, 2))
    rows = differs.nonzero()[0].max(initial=-1) + 1
    if rows < pixels.shape[0] / 2:
        raise BrokenImageError("truncated JPEG: more than half of the image is missing")
    return _as_jpeg(pixels, "truncated JPEG: recovered and encoded again")


def _convert(content: bytes, kind: str, keep_png: bool) -> CheckedImage:
    pixels = tf.io.decode_image(content, channels=3, expand_animations=False)
    if kind == "PNG" and keep_png:
        return CheckedImage(content, "PNG", pixels.shape[0], pixels.shape[1])
    return _as_jpeg(pixels, f"{kind} converted to JPEG")


def _as_jpeg(pixels: tf.Tensor, change: str) -> CheckedImage:
    encoded = tf.io.encode_jpeg(
        pixels, format="rgb", quality=JPEG_QUALITY, chroma_downsampling=False
    )
    return CheckedImage(encoded.numpy(), "JPEG", pixels.shape[0], pixels.shape[1], change)


def _kind(content: bytes) -> str:
    for kind, start in (
        ("JPEG", b"\xff\xd8\xff"),
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("GIF", b"GIF8"),
        ("BMP", b"BM"),
    ):
        if content.startswith(start):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    raise BrokenImageError(f"not an image: it starts with {content[:8].hex(' ')}")


def _check_header(content: bytes, kind: str) -> bytes:
    """Check the header of an image, and return the bytes to decode; see headers.check_header."""
    try:
        return _check_header_graph(content).numpy()
    except tf.errors.InvalidArgumentError as error:
        assertion = re.search(r"assertion failed: \[(.*?)\]", error.message)
        raise BrokenImageError(assertion[1] if assertion else f"damaged {kind} header") from None


# A graph function, because eager assertions have another message.
_check_header_graph = tf.function(check_header, input_signature=[tf.TensorSpec([], tf.string)])

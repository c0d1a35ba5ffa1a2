"""Images of every kind for fuzz tests to damage, and images with huge sizes in their headers."""

import io
import struct

import numpy as np
from PIL import Image

MOST_MIB = 256  # memory that a bomb may take; its pixels would take gigabytes


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


def gif_of_frames(height: int, width: int, frames: int) -> bytes:
    """Encode a GIF of one pixel whose frame headers give another size."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return screen + frame * frames + b";"


def resized(kind: str, at: int, form: str) -> bytes:
    """Return an image whose header gives a size of 30,000 x 30,000 pixels."""
    content = bytearray(IMAGES[kind])
    size = struct.pack(form, 30_000, 30_000)
    content[at : at + len(size)] = size
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

"""Draw label maps: a colour for each class, over the image."""

import io

import numpy as np

OPACITY = 0.6
_BITS = 8


def class_colours() -> np.ndarray:
    """Return the colour of each of 256 classes, that of PASCAL VOC: uint8 [256, 3]; IGNORED is pale."""
    colours = np.zeros([256, 3], np.int64)
    for value in range(256):
        rest = value
        for bit in reversed(range(_BITS)):
            for channel in range(3):
                colours[value, channel] |= (rest >> channel & 1) << bit
            rest >>= 3
    return colours.astype(np.uint8)


def overlay_classes(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Blend the colours of classes into an image; class 0 leaves it as it is.

    Args:
      image: uint8 [H, W, 3].
      labels: integers [H, W] in 0..255.

    Returns:
      uint8 [H, W, 3].
    """
    opacity = np.where(labels == 0, 0.0, OPACITY)[..., np.newaxis]
    blend = (1.0 - opacity) * image + opacity * class_colours()[labels]
    return blend.round().astype(np.uint8)


def palette_png(labels: np.ndarray) -> bytes:
    """Encode labels, uint8 [H, W], as a PNG whose palette has the colours of the classes."""
    from PIL import Image

    picture = Image.fromarray(labels)
    picture.putpalette(class_colours().ravel().tolist())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()

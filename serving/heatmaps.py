"""Compute Grad-CAM heatmaps and draw them over the images that the network saw."""

import numpy as np
import tensorflow as tf

from system.errors import UserError, first_line
from system.files import write_bytes

OPACITY = 0.5

# Colours at heat 0, 1/4, 1/2, 3/4 and 1.
_COLOURS = np.array([[0, 0, 130], [0, 100, 255], [80, 220, 120], [255, 200, 0], [200, 0, 0]])


class HeatmapError(UserError):
    """A heatmap that cannot be written."""


def overlay(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Blend a heatmap into an image: blue where the heat is low, red where it is high.

    Args:
      image: uint8 [H, W, 3].
      heatmap: float [H, W] in [0, 1].

    Returns:
      uint8 [H, W, 3].
    """
    stops = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(heatmap, stops, _COLOURS[:, channel]) for channel in range(3)]
    blend = (1 - OPACITY) * image + OPACITY * np.stack(channels, axis=-1)
    return np.clip(blend.round(), 0, 255).astype(np.uint8)


def heat_of(maps: tf.Tensor, gradient: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Compute the heat of Grad-CAM (arXiv 1610.02391).

    Args:
      maps: feature maps, float32 [n, h, w, C].
      gradient: of the output to explain, by the maps; of their shape.
      size: (height, width) of the result in pixels.

    Returns:
      float32 [n, H, W] in [0, 1]; 1 is the largest value of an image, 0 what speaks against the output.
    """
    importance = tf.reduce_mean(gradient, axis=[1, 2], keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(importance * maps, axis=-1, keepdims=True))
    heat = tf.image.resize(heat, size)[..., 0]
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=[1, 2], keepdims=True))


def write_png(path: str, image: np.ndarray) -> None:
    """Write `image`, uint8 [H, W, 3], as a PNG file, local or gs://.

    Raises:
      HeatmapError: the file cannot be written.
    """
    try:
        write_bytes(path, tf.io.encode_png(image).numpy())
    except OSError as error:
        raise HeatmapError(f"{path}: cannot be written ({first_line(error)})") from error

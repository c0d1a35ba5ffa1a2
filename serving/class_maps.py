"""Exports that return a class for each pixel of the original image.

Images of a batch differ in size: maps are padded with IGNORED to the largest, and returned with their sizes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from efficientnet import normalize_images
from efficientnet.spec import RGB
from input_pipeline.images.label_map import IGNORED
from input_pipeline.images.placement import height_width
from input_pipeline.images.view import EvalView
from serving.saved_model import ENCODED, Servable, crop_each, pixels_of
from tasks.segmentation.resize import resize_logits

Outputs = dict[str, tf.Tensor]
IMAGES_AT_ONCE = 2  # whose logits are held in the original's size


class ClassMaps(NamedTuple):
    """The class maps of a batch.

    Attributes:
      maps: the classes of each image's pixels, uint8 [h, w]; empty for a broken image.
      valid: bool [n]; false for a broken image.
    """

    maps: list[np.ndarray]
    valid: np.ndarray


class Placed(NamedTuple):
    """A batch of framed images with their placements; see `place_all`."""

    framed: Outputs
    placement: tf.Tensor
    sizes: tf.Tensor
    shown: tf.Tensor
    valid: tf.Tensor


def place_all(image_bytes: tf.Tensor, view: EvalView) -> Placed:
    """Frame encoded images in parallel.

    Args:
      image_bytes: string [n].
      view: frames an image for the network.

    Returns:
      The framed images; float32 [n, 4], scale and offset of their placements; int32 [n, 2], height and width;
      int32 [n, 4], corner and extent of the image in the network's input; bool [n], whether the image can be
      decoded. Images that cannot have size 0.
    """

    def place(encoded: tf.Tensor) -> Outputs:
        framed, seen = view.show(encoded)
        placement = seen.placement
        return {
            **view.finish(framed),
            "placement": tf.concat([placement.scale, placement.offset], axis=0),
            "size": placement.source_size,
            "shown": tf.concat([placement.corner, placement.valid], axis=0),
        }

    nothing = {
        "placement": tf.constant([1.0, 1.0, 0.0, 0.0]),
        "size": tf.zeros([2], tf.int32),
        "shown": tf.zeros([4], tf.int32),
    }
    made, valid = crop_each(image_bytes, place, {**view.blank(), **nothing})
    placement, sizes, shown = (made.pop(key) for key in nothing)
    return Placed(made, placement, sizes, shown, valid)


def class_maps(logits: tf.Tensor, placed: Placed) -> Outputs:
    """Return the class of each pixel of the original images.

    Args:
      logits: float32 [n, H, W, classes], of the framed images.
      placed: the same images.

    Returns:
      "classes": uint8 [n, h, w], h and w the largest in the batch; IGNORED beyond the image and where
        the network did not see it.
      "sizes": int32 [n, 2], height and width of each image; 0 for one that cannot be decoded.
      "valid": bool [n].
    """

    def classes_of(large: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
        best = tf.cast(tf.argmax(large, -1, output_type=tf.int32), tf.uint8)
        return tf.where(there, best, tf.constant(IGNORED, tf.uint8))

    maps = _each(logits, placed, classes_of, tf.TensorSpec([None, None], tf.uint8))
    return {"classes": maps, "sizes": placed.sizes, "valid": placed.valid}


def probability_maps(logits: tf.Tensor, placed: Placed) -> Outputs:
    """Return "probabilities", float32 [n, h, w, classes], 0 where there is no class; else as `class_maps`."""
    spec = tf.TensorSpec([None, None, logits.shape[-1]], tf.float32)
    maps = _each(
        logits,
        placed,
        lambda large, there: tf.where(there[..., tf.newaxis], tf.nn.softmax(large), 0.0),
        spec,
    )
    return {"probabilities": maps, "sizes": placed.sizes, "valid": placed.valid}


def _each(
    logits: tf.Tensor,
    placed: Placed,
    answer: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    spec: tf.TensorSpec,
) -> tf.Tensor:
    """Resize the logits of a few images at a time; return `answer` of the logits and of where they hold."""
    largest = tf.reduce_max(tf.concat([placed.sizes, [[0, 0]]], axis=0), axis=0)

    def one(parts: tuple[tf.Tensor, ...]) -> tf.Tensor:
        own, placement, size, shown = parts
        large = resize_logits(own[tf.newaxis], placement[tf.newaxis], (largest[0], largest[1]))[0]
        rows, columns = (
            _is_shown(largest[axis], axis, placement, size, shown) for axis in range(2)
        )
        return answer(large, rows[:, tf.newaxis] & columns[tf.newaxis, :])

    return tf.map_fn(
        one,
        (logits, placed.placement, placed.sizes, placed.shown),
        fn_output_signature=spec,
        parallel_iterations=IMAGES_AT_ONCE,
    )


def _is_shown(
    extent: tf.Tensor, axis: int, placement: tf.Tensor, size: tf.Tensor, shown: tf.Tensor
) -> tf.Tensor:
    """Return whether each row or column is in the image and the network saw it: bool [extent]."""
    number = tf.range(extent)
    place = (tf.cast(number, tf.float32) + 0.5) * placement[axis] + placement[axis + 2]
    # Half a pixel of slack on both sides, because some kernels align the centres of the first pixels.
    slack = 0.5 * tf.abs(placement[axis]) + 0.5
    first, last = (tf.cast(x, tf.float32) for x in (shown[axis], shown[axis] + shown[axis + 2]))
    return (number < size[axis]) & (place >= first - slack) & (place <= last + slack)


def map_signatures(servable: Servable, network: keras.Model) -> dict[str, Any]:
    """Return the signatures of a SavedModel, for any number n of images.

    serving_default: `image_bytes`, string [n]; see `class_maps`.
    probabilities: the same; see `probability_maps`.
    predict_images: `images`, float32 [n, H, W, 3] on the scale 0..255, already framed. It returns `classes`,
      uint8 [n, H, W], `probabilities`, float32 [n, H, W, classes], and `valid`, bool [n], false where a pixel
      is not finite.
    predict_images_uint8: the same, uint8.
    """
    view, mean_rgb, stddev_rgb = servable.view, servable.spec.mean_rgb, servable.spec.stddev_rgb
    shape = [None, *view.pixels]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32)])
    def run(images: tf.Tensor) -> tf.Tensor:
        return network(normalize_images(images, mean_rgb, stddev_rgb), training=False)

    @tf.function(autograph=False, input_signature=[ENCODED])
    def maps(image_bytes: tf.Tensor) -> Outputs:
        placed = place_all(image_bytes, view)
        return class_maps(run(pixels_of(placed.framed, mean_rgb)), placed)

    @tf.function(autograph=False, input_signature=[ENCODED])
    def probabilities(image_bytes: tf.Tensor) -> Outputs:
        placed = place_all(image_bytes, view)
        return probability_maps(run(pixels_of(placed.framed, mean_rgb)), placed)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32, "images")])
    def predict_images(images: tf.Tensor) -> Outputs:
        logits = run(images)
        best = tf.cast(tf.argmax(logits, -1, output_type=tf.int32), tf.uint8)
        valid = tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])
        return {"classes": best, "probabilities": tf.nn.softmax(logits), "valid": valid}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.uint8, "images")])
    def predict_images_uint8(images: tf.Tensor) -> Outputs:
        return predict_images(tf.cast(images, tf.float32))

    return {
        "serving_default": maps,
        "probabilities": probabilities,
        "predict_images": predict_images,
        "predict_images_uint8": predict_images_uint8,
    }


def cut(outputs: Mapping[str, tf.Tensor]) -> ClassMaps:
    """Cut the maps of a batch to the sizes of their images."""
    classes, sizes = outputs["classes"].numpy(), outputs["sizes"].numpy()
    maps = [each[:height, :width] for each, (height, width) in zip(classes, sizes, strict=True)]
    return ClassMaps(maps, outputs["valid"].numpy())


def maps_from_pixels(
    view: EvalView, mean_rgb: RGB, logits: Callable[[np.ndarray], np.ndarray], num_classes: int
) -> Callable[[Sequence[bytes]], ClassMaps]:
    """Wrap a network that takes framed pixels as a function from encoded images to class maps."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def place(image_bytes: tf.Tensor) -> Placed:
        return place_all(image_bytes, view)

    def predict(images: Sequence[bytes]) -> ClassMaps:
        batch = place(tf.constant(list(images), tf.string))
        pixels = batch.framed["image"]
        if view.framing.pads:
            pixels = pixels_of(batch.framed, mean_rgb)
        found = logits(pixels.numpy()).reshape([-1, *height_width(view.size), num_classes])
        return cut(class_maps(tf.constant(found, tf.float32), batch))

    return predict

"""Exports that return boxes of objects in pixels of the original image."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from efficientnet import normalize_images
from input_pipeline.images.placement import height_width
from input_pipeline.targets.boxes import NO_CLASS
from serving.class_maps import Placed, place_all
from serving.model_card import ModelCard
from serving.network import ExportError
from serving.saved_model import ENCODED, Servable, pixels_of
from tasks.detection import Detection, suppression_of
from tasks.detection.nms import Detections, candidates, clip_boxes, suppress
from tasks.detection.task import to_original

Outputs = dict[str, tf.Tensor]
ANCHORS_FILE = "anchors.npy"  # beside networks without suppression: float32 [anchors, 4], in pixels


class Found(NamedTuple):
    """The detections of one image, the best first.

    Attributes:
      boxes: float32 [n, 4], [ymin, xmin, ymax, xmax] in pixels of the original image.
      scores: float32 [n].
      classes: int64 [n].
      valid: whether the image can be decoded.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    valid: bool


def box_signatures(servable: Servable, network: keras.Model) -> dict[str, Any]:
    """Return the signatures of a SavedModel, for any number n of images and k = task.max_detections.

    serving_default: `image_bytes`, string [n]. It returns detections, the best first:
      boxes: float32 [n, k, 4], [ymin, xmin, ymax, xmax] in pixels of each original, clipped to it.
      scores: float32 [n, k]; classes: int64 [n, k]; labels: string [n, k].
      count: int32 [n], number of detections. Later rows are zeros, with class -1 and an empty label.
      valid: bool [n], false for bytes that cannot be decoded.
    predict_images: `images`, float32 [n, H, W, 3] on the scale 0..255, already framed; the same, with
      boxes in pixels of these images, and `valid`, whether all pixels are finite.
    predict_images_uint8: the same, uint8.
    """
    task = servable.task
    if not isinstance(task, Detection):
        raise ExportError("boxes need a network that detects objects")
    view, mean_rgb, stddev_rgb = servable.view, servable.spec.mean_rgb, servable.spec.stddev_rgb
    shape, names = [None, *view.pixels], servable.names

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32)])
    def run(images: tf.Tensor) -> Detections:
        outputs = network(normalize_images(images, mean_rgb, stddev_rgb), training=False)
        return task.detect(outputs, images)

    @tf.function(autograph=False, input_signature=[ENCODED])
    def boxes(image_bytes: tf.Tensor) -> Outputs:
        placed = place_all(image_bytes, view)
        found = _in_originals(run(pixels_of(placed.framed, mean_rgb)), placed)
        return _answer(found, placed.valid, names)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32, "images")])
    def predict_images(images: tf.Tensor) -> Outputs:
        valid = tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])
        finite = tf.where(valid[:, tf.newaxis, tf.newaxis, tf.newaxis], images, 0.0)
        found = run(finite)
        height, width = (tf.constant(float(side)) for side in height_width(view.size))
        return _answer(found._replace(boxes=clip_boxes(found.boxes, height, width)), valid, names)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.uint8, "images")])
    def predict_images_uint8(images: tf.Tensor) -> Outputs:
        return predict_images(tf.cast(images, tf.float32))

    return {
        "serving_default": boxes,
        "predict_images": predict_images,
        "predict_images_uint8": predict_images_uint8,
    }


def _in_originals(found: Detections, placed: Placed) -> Detections:
    """Map the boxes to the original images and clip them."""
    sizes = tf.cast(placed.sizes, tf.float32)[:, tf.newaxis]
    boxes = to_original(found.boxes, placed.placement)
    return found._replace(boxes=clip_boxes(boxes, sizes[..., 0], sizes[..., 1]))


def _answer(found: Detections, valid: tf.Tensor, names: Sequence[str]) -> Outputs:
    """Return the outputs of a signature; an invalid image has no detections."""
    count = tf.where(valid, found.count, 0)
    real = tf.range(found.scores.shape[1]) < count[:, tf.newaxis]
    labels = tf.gather(tf.constant(list(names), tf.string), found.classes)
    return {
        "boxes": tf.where(real[..., tf.newaxis], found.boxes, 0.0),
        "scores": tf.where(real, found.scores, 0.0),
        "classes": tf.cast(tf.where(real, found.classes, NO_CLASS), tf.int64),
        "labels": tf.where(real, labels, ""),
        "count": count,
        "valid": valid,
    }


def split(outputs: Mapping[str, tf.Tensor]) -> list[Found]:
    """Return the detections of each image of a batch."""
    columns = (outputs[key].numpy() for key in ("boxes", "scores", "classes", "count", "valid"))
    return [
        Found(boxes[:count], scores[:count], classes[:count], bool(valid))
        for boxes, scores, classes, count, valid in zip(*columns, strict=True)
    ]


def write_anchors(folder: str, anchors: np.ndarray) -> None:
    """Write FOLDER/ANCHORS_FILE."""
    with tf.io.gfile.GFile(os.path.join(folder, ANCHORS_FILE), "wb") as file:
        np.save(file, anchors)


def read_anchors(folder: str) -> np.ndarray:
    """Read the anchors from FOLDER/ANCHORS_FILE.

    Raises:
      ExportError: the file is missing or broken.
    """
    path = os.path.join(folder, ANCHORS_FILE)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return np.load(file, allow_pickle=False)
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise ExportError(f"{path}: unusable ({error}); export again") from error


def boxes_from_pixels(
    folder: str, card: ModelCard, outputs: Callable[[np.ndarray], Mapping[str, np.ndarray]]
) -> Callable[[Sequence[bytes]], list[Found]]:
    """Wrap a network that takes framed pixels as a function from encoded images to detections.

    Args:
      folder: folder of the export.
      card: model card of the export.
      outputs: maps framed pixels to "classes", float32 [n, anchors, classes], and "boxes" [n, anchors, 4].
    """
    view, mean_rgb = card.preprocessing.view(), card.preprocessing.mean_rgb
    anchors, settings = read_anchors(folder), suppression_of(card.recipe["task"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def place(image_bytes: tf.Tensor) -> Placed:
        return place_all(image_bytes, view)

    @tf.function(autograph=False)
    def answer(logits: tf.Tensor, codes: tf.Tensor, batch: Placed) -> Outputs:
        given = candidates(logits, codes, tf.constant(anchors), settings.max_candidates)
        found = _in_originals(suppress(given, settings), batch)
        return _answer(found, batch.valid, card.class_names)

    def predict(images: Sequence[bytes]) -> list[Found]:
        batch = place(tf.constant(list(images), tf.string))
        found = outputs(pixels_of(batch.framed, mean_rgb).numpy())
        return split(answer(tf.constant(found["classes"]), tf.constant(found["boxes"]), batch))

    return predict

"""Write TFLite (LiteRT) files: float32, float16, dynamic-range and full int8.

Each takes one cropped image [1, H, W, 3] on the scale 0..255, normalises it inside and returns `logits`,
float32 [1, classes], or the outputs of the network by their names. The int8 file takes
uint8 pixels; the others take float32.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec, normalize_images
from serving.network import ExportError, by_name
from system.tensorflow_log import quiet_stderr

VARIANTS = ("float32", "float16", "dynamic_range", "int8")
CALIBRATION_IMAGES = 128  # of the training split; more of them change little

Images = Callable[[], Iterable[np.ndarray]]


def write_tflite(
    folder: str,
    network: keras.Model,
    spec: ModelSpec,
    *,
    calibration_images: Images,
    variants: Iterable[str] = VARIANTS,
) -> None:
    """Write FOLDER/VARIANT.tflite for each variant.

    Args:
      folder: local or gs://; created if missing.
      network: from `build_inference_network`.
      spec: specification of the network.
      calibration_images: returns images [H, W, 3] on the scale 0..255, from which int8 takes the
        ranges of activations; called once.
      variants: among VARIANTS. "dynamic_range" stores weights as int8 and computes in float32;
        "int8" computes all but the last conversion in integers, with weights quantised per channel.

    Raises:
      ExportError: a variant is unknown, or there is no image to calibrate with.
    """
    tf.io.gfile.makedirs(folder)
    for variant in variants:
        if variant not in VARIANTS:
            raise ExportError(f"unknown TFLite variant {variant!r}; expected {', '.join(VARIANTS)}")
        content = _convert(network, spec, variant, calibration_images)
        with tf.io.gfile.GFile(os.path.join(folder, f"{variant}.tflite"), "wb") as file:
            file.write(content)


def _convert(network: keras.Model, spec: ModelSpec, variant: str, images: Images) -> bytes:
    module = tf.Module()
    module.held = [variable.value for variable in network.variables]
    shape = [1, *network.input.shape[1:]]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, "images")])
    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = normalize_images(images, spec.mean_rgb, spec.stddev_rgb)
        return by_name(network(pixels, training=False))

    concrete = run.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant == "int8":
        _quantise(converter, images)
    with quiet_stderr():  # `fully_quantize: 0, inference_type: 6, ...`
        return converter.convert()


def _quantise(converter: Any, images: Images) -> None:
    samples = [np.asarray(image, np.float32)[np.newaxis] for image in images()]
    if not samples:
        raise ExportError("int8 needs at least one training image for calibration, found none")
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8

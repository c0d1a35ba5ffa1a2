"""Write an ONNX file: normalised float32 images [n, H, W, 3] in, `logits` float32 [n, classes] out,
or the outputs of the network by their names.

Normalisation stays outside, as in other ONNX models of images; the model card has its numbers.
"""

import os

import keras
import tensorflow as tf

from serving.network import by_name
from serving.packages import require

OPSET = 17
FILE = "model.onnx"


def write_onnx(folder: str, network: keras.Model) -> None:
    """Write FOLDER/model.onnx.

    Args:
      folder: local or gs://; created if missing.
      network: from `build_inference_network`.

    Raises:
      ExportError: tf2onnx is not installed.
    """
    tf2onnx = require("tf2onnx", "export.formats=[onnx]")
    images = tf.TensorSpec([None, *network.input.shape[1:]], tf.float32, "images")

    @tf.function(input_signature=[images])
    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return by_name(network(images, training=False))

    model, _ = tf2onnx.convert.from_function(run, input_signature=[images], opset=OPSET)
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(os.path.join(folder, FILE), "wb") as file:
        file.write(model.SerializeToString())

"""Write the requests that TensorFlow Serving warms up a new version with before it serves it.

The file is VERSION/assets.extra/tf_serving_warmup_requests, a TFRecord file of
`tensorflow.serving.PredictionLog` messages. Their few fields are encoded here by hand, so that an
export does not need TensorFlow Serving's package. The field numbers are those of prediction_log.proto,
predict.proto and model.proto in tensorflow_serving/apis.
"""

import os
from collections.abc import Collection

import numpy as np
import tensorflow as tf

FILE = "tf_serving_warmup_requests"


def write_warmup_requests(
    version_folder: str, model_name: str, size: tuple[int, int], signatures: Collection[str]
) -> None:
    """Write one request for each of `serving_default`, `predict_images` and `features` that there is.

    Args:
      version_folder: version folder of the SavedModel.
      model_name: name of the model in the requests; the server ignores it when it warms up.
      size: height and width of the images in pixels.
      signatures: of the SavedModel.
    """
    rows, columns = (np.linspace(0, 255, side).astype(np.uint8) for side in size)
    picture = np.stack(np.broadcast_arrays(rows[:, None], columns[None, :], rows[:, None]), axis=-1)
    encoded = tf.io.encode_jpeg(picture).numpy()
    folder = os.path.join(version_folder, "assets.extra")
    tf.io.gfile.makedirs(folder)
    with tf.io.TFRecordWriter(os.path.join(folder, FILE)) as writer:
        for signature, name, value in (
            ("serving_default", "image_bytes", np.array([encoded], object)),
            ("predict_images", "images", picture[np.newaxis].astype(np.float32)),
            ("features", "image_bytes", np.array([encoded], object)),
        ):
            if signature not in signatures:
                continue
            writer.write(_prediction_log(model_name, signature, name, value))


def _prediction_log(model: str, signature: str, name: str, value: np.ndarray) -> bytes:
    tensor = tf.make_tensor_proto(value).SerializeToString()
    model_spec = _field(1, model.encode()) + _field(3, signature.encode())
    entry = _field(1, name.encode()) + _field(2, tensor)  # of the map of inputs
    request = _field(1, model_spec) + _field(2, entry)
    return _field(6, _field(1, request))  # PredictionLog.predict_log.request


def _field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])

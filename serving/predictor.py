"""Open an export of any format as a function from encoded images to probabilities, class maps or boxes."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from run_folder.experiment import run_experiment_file
from serving.boxes import Found, boxes_from_pixels, split
from serving.class_maps import ClassMaps, cut, maps_from_pixels
from serving.model_card import ModelCard, read_model_card
from serving.network import ACTIVATIONS, ExportError, NoRunError
from serving.onnx import FILE as ONNX_FILE
from serving.packages import require
from serving.saved_model import crop_all, pixels_of
from serving.tflite import VARIANTS
from system.errors import first_line
from system.tensorflow_log import quiet_stderr

NetworkOutputs = Callable[[np.ndarray], Mapping[str, np.ndarray]]
FORMATS = ("saved_model", "tflite", "onnx")
Answers = TypeVar("Answers")


class Probabilities(NamedTuple):
    """The class probabilities of a batch.

    Attributes:
      values: float32 [n, classes]; zeros for a broken image.
      valid: bool [n]; false for a broken image.
    """

    values: np.ndarray
    valid: np.ndarray


class Predictor(NamedTuple):
    """An open export.

    Attributes:
      card: the export's model card.
      folder: the export's version folder.
      predict: takes encoded images.
      from_pixels: takes uint8 [n, H, W, 3], cropped, and returns probabilities, float32 [n, classes].
    """

    card: ModelCard
    folder: str
    predict: Callable[[Sequence[bytes]], Probabilities]
    from_pixels: Callable[[np.ndarray], np.ndarray]


class OpenExport(NamedTuple, Generic[Answers]):
    """An open export that takes encoded images only and returns class maps or boxes.

    Attributes:
      card: the export's model card.
      folder: the export's version folder.
      predict: takes encoded images.
    """

    card: ModelCard
    folder: str
    predict: Callable[[Sequence[bytes]], Answers]


def find_export(model_dir: str, format_name: str = "saved_model") -> str:
    """Return the folder of the newest version of a format in a run's folder.

    Raises:
      NoRunError: there is neither an export nor a run.
      ExportError: the run has no such export; the message has the command that writes one.
    """
    directory = os.path.join(model_dir, "export", format_name)
    names = tf.io.gfile.listdir(directory) if tf.io.gfile.isdir(directory) else []
    versions = [int(name.rstrip("/")) for name in names if name.rstrip("/").isdigit()]
    if not versions:
        has_exports = tf.io.gfile.isdir(os.path.join(model_dir, "export"))
        if not has_exports and run_experiment_file(model_dir) is None:
            raise NoRunError(model_dir)
        raise ExportError(
            f"{directory}: no export here; write one with python main.py --mode=export "
            f"--model_dir={model_dir} --set 'export.formats=[{format_name}]'"
        )
    return os.path.join(directory, str(max(versions)))


def open_predictor(folder: str, variant: str = "float32") -> Predictor:
    """Open a version folder of any format.

    Args:
      folder: holds model_card.json.
      variant: of a TFLite export: "float32", "float16", "dynamic_range" or "int8".

    Raises:
      ExportError: the folder is not an export or lacks the variant, or the package that runs the
        format is not installed.
    """
    card = read_model_card(folder)
    if card.answers != "classes":
        raise ExportError(
            f"{folder}: it answers with {card.answers}; expected an export that answers with classes of whole"
            " images"
        )
    if card.format == "saved_model":
        return _open_saved_model(folder, card)
    return _with_preprocessing(folder, card, _open_logits(folder, card, variant))


def open_map_predictor(folder: str, variant: str = "float32") -> OpenExport[ClassMaps]:
    """Open a version folder of any format that returns class maps; see `open_predictor`."""
    card = read_model_card(folder)
    if card.format == "saved_model":
        return OpenExport(card, folder, _by_signature(folder, cut))
    predict = maps_from_pixels(
        card.preprocessing.view(),
        card.preprocessing.mean_rgb,
        _open_logits(folder, card, variant),
        len(card.class_names),
    )
    return OpenExport(card, folder, predict)


def open_box_predictor(folder: str, variant: str = "float32") -> OpenExport[list[Found]]:
    """Open a version folder of any format that returns boxes; see `open_predictor`."""
    card = read_model_card(folder)
    if card.format == "saved_model":
        return OpenExport(card, folder, _by_signature(folder, split))
    outputs = open_outputs(folder, card, variant)
    return OpenExport(card, folder, boxes_from_pixels(folder, card, outputs))


def _by_signature(
    folder: str, convert: Callable[[Mapping[str, tf.Tensor]], Answers]
) -> Callable[[Sequence[bytes]], Answers]:
    """Return a function from encoded images to the converted outputs of a SavedModel."""
    signature = load_signatures(folder)["serving_default"]
    return lambda images: convert(signature(image_bytes=tf.constant(list(images), tf.string)))


def _open_logits(folder: str, card: ModelCard, variant: str) -> Callable[[np.ndarray], np.ndarray]:
    """Open a network that takes framed pixels, uint8 or float32 [n, H, W, 3], and returns logits."""
    outputs = open_outputs(folder, card, variant)
    return lambda pixels: outputs(pixels)["logits"]


def open_outputs(folder: str, card: ModelCard, variant: str) -> NetworkOutputs:
    """Open a network that takes framed pixels, and returns its outputs by name."""
    if card.format == "tflite":
        return _open_tflite(folder, card, variant)
    if card.format == "onnx":
        return _open_onnx(folder, card)
    raise ExportError(f"{folder}: unknown format {card.format!r}; expected {', '.join(FORMATS)}")


def _open_saved_model(folder: str, card: ModelCard) -> Predictor:
    signatures = load_signatures(folder)

    def predict(images: Sequence[bytes]) -> Probabilities:
        outputs = signatures["serving_default"](image_bytes=tf.constant(list(images), tf.string))
        return Probabilities(outputs["probabilities"].numpy(), outputs["valid"].numpy())

    def from_pixels(pixels: np.ndarray) -> np.ndarray:
        outputs = signatures["predict_images_uint8"](images=tf.constant(pixels, tf.uint8))
        return outputs["probabilities"].numpy()

    return Predictor(card, folder, predict, from_pixels)


def load_signatures(folder: str) -> Any:
    """Load the signatures of a SavedModel; they keep the model alive.

    Raises:
      ExportError: the SavedModel cannot be loaded.
    """
    try:
        return tf.saved_model.load(folder).signatures
    except (OSError, tf.errors.OpError, ValueError) as error:
        raise ExportError(f"{folder}: no usable SavedModel ({first_line(error)})") from error


def _with_preprocessing(
    folder: str, card: ModelCard, logits: Callable[[np.ndarray], np.ndarray]
) -> Predictor:
    """Add the crop before a network that takes pixels, and the activation after it."""
    view, activation = card.preprocessing.view(), ACTIVATIONS[card.activation]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def crops(image_bytes: tf.Tensor) -> Any:
        framed, valid = crop_all(image_bytes, view)
        if view.framing.pads:
            return pixels_of(framed, card.preprocessing.mean_rgb), valid
        return framed["image"], valid

    def from_pixels(pixels: np.ndarray) -> np.ndarray:
        return activation(tf.constant(logits(pixels))).numpy()

    def predict(images: Sequence[bytes]) -> Probabilities:
        pixels, valid = (x.numpy() for x in crops(tf.constant(list(images), tf.string)))
        return Probabilities(from_pixels(pixels) * valid[:, np.newaxis], valid)

    return Predictor(card, folder, predict, from_pixels)


def _open_tflite(folder: str, card: ModelCard, variant: str) -> NetworkOutputs:
    if variant not in VARIANTS:
        raise ExportError(f"unknown TFLite variant {variant!r}; expected {', '.join(VARIANTS)}")
    if f"{variant}.tflite" not in card.files:
        raise ExportError(f"{folder}: no {variant}.tflite here; it holds {', '.join(card.files)}")
    litert = require("ai_edge_litert.interpreter", "TFLite")
    with tf.io.gfile.GFile(os.path.join(folder, f"{variant}.tflite"), "rb") as file:
        content = file.read()
    with quiet_stderr():  # `INFO: Created TensorFlow Lite XNNPACK delegate for CPU.`
        interpreter = litert.Interpreter(model_content=content, num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    runner = interpreter.get_signature_runner()
    shapes = {name: tuple(x["shape"][1:]) for name, x in runner.get_output_details().items()}

    def outputs(pixels: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = [runner(images=image[np.newaxis].astype(entry["dtype"])) for image in pixels]
        empty = {name: np.zeros([0, *shape], np.float32) for name, shape in shapes.items()}
        return {
            name: np.concatenate([x, *(row[name] for row in rows)]) for name, x in empty.items()
        }

    return outputs


def _open_onnx(folder: str, card: ModelCard) -> NetworkOutputs:
    onnxruntime = require("onnxruntime", "ONNX")
    with tf.io.gfile.GFile(os.path.join(folder, ONNX_FILE), "rb") as file:
        session = onnxruntime.InferenceSession(file.read(), providers=["CPUExecutionProvider"])
    mean = np.array(card.preprocessing.mean_rgb, np.float32)
    stddev = np.array(card.preprocessing.stddev_rgb, np.float32)

    names = [output.name for output in session.get_outputs()]

    def outputs(pixels: np.ndarray) -> Mapping[str, np.ndarray]:
        images = (pixels.astype(np.float32) - mean) / stddev
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return outputs

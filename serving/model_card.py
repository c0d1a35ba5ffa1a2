"""Describe an export and its use: model_card.json for programs, MODEL_CARD.md for people."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from input_pipeline.images.crop import Resize
from input_pipeline.images.framing import EVAL_FRAMINGS
from input_pipeline.images.placement import Size, height_width
from input_pipeline.images.view import EvalView
from serving.network import ACTIVATIONS, ExportError
from system.files import Fingerprint, fingerprint

JSON_FILE = "model_card.json"
TEXT_FILE = "MODEL_CARD.md"
FORMAT_VERSION = 1

RGB = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The steps from an encoded image to the network's input.

    Attributes:
      image_size: side of the network's input in pixels, or (height, width); S is the shorter side.
      framing: "center_crop", "squash" or "letterbox".
      crop_padding: of center_crop, in pixels; the crop is S / (S + crop_padding) of the largest centred
        window of the input's shape. None is the padding that keeps 87.5 %.
      odd_pixels: of center_crop, where a pixel too many is cut off: "before" or "after" the window.
      alignment: of letterbox, "center" or "top_left".
      resize: "bicubic" or "bilinear" without half-pixel centres, or "bilinear_half_pixel"; without
        antialiasing.
      mean_rgb: subtracted from pixels on the scale 0..255.
      stddev_rgb: divides the pixels after the subtraction.
    """

    image_size: Size
    framing: str = "center_crop"
    crop_padding: int | None = None
    odd_pixels: str = "before"
    alignment: str | None = None
    resize: Resize
    mean_rgb: RGB
    stddev_rgb: RGB

    @classmethod
    def of(cls, view: EvalView, mean_rgb: RGB, stddev_rgb: RGB) -> "Preprocessing":
        """Describe a view and the normalisation after it."""
        return cls(
            image_size=view.size,
            framing=next(
                name for name, kind in EVAL_FRAMINGS.items() if kind is type(view.framing)
            ),
            **dataclasses.asdict(view.framing),  # type: ignore[call-overload]
            resize=view.resize,
            mean_rgb=mean_rgb,
            stddev_rgb=stddev_rgb,
        )

    def view(self) -> EvalView:
        """Return the steps up to the normalisation."""
        kind = EVAL_FRAMINGS[self.framing]
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(kind)}
        return EvalView(self.image_size, kind(**settings), self.resize)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The content of a model card.

    Attributes:
      name: name of the network.
      format: "saved_model", "tflite" or "onnx".
      weights: "ema", the moving average over training, or "raw", the last weights.
      step: number of updates; also the version of the export.
      stage: number of the training's stage that made the last of them, from 1; None if there was one stage.
      class_names: in the order of the logits.
      preprocessing: the steps from an encoded image to the network's input.
      activation: from logits to probabilities, "softmax" or "sigmoid".
      metrics: measured at the checkpoint, such as top_1 in [0, 1]; empty if it was not evaluated.
      data: name of the data set and number of examples in each split.
      recipe: the whole experiment, as in experiment.yaml.
      answers: "classes" of whole images, "class_maps", classes of their pixels, or
        "boxes" of objects.
      parameters: number of values in the weights and in batch norm's moving statistics.
      files: size in bytes and SHA-256 of each file by name.
    """

    name: str
    format: str
    weights: str
    step: int
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, float]
    data: Mapping[str, Any]
    recipe: Mapping[str, Any]
    parameters: int
    activation: str = "softmax"  # cards of earlier versions have none
    answers: str = "classes"  # likewise
    stage: int | None = None
    files: Mapping[str, Fingerprint] = dataclasses.field(default_factory=dict)


def write_model_card(folder: str, card: ModelCard) -> None:
    """Write both files, with the size and the checksum of every file that is in the folder."""
    card = dataclasses.replace(card, files=_fingerprints(folder))
    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(card)}
    with tf.io.gfile.GFile(os.path.join(folder, JSON_FILE), "w") as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    with tf.io.gfile.GFile(os.path.join(folder, TEXT_FILE), "w") as file:
        file.write(_text(card))


def read_model_card(folder: str) -> ModelCard:
    """Read FOLDER/model_card.json.

    Raises:
      ExportError: the file is missing, or this project did not write it.
    """
    path = os.path.join(folder, JSON_FILE)
    try:
        with tf.io.gfile.GFile(path) as file:
            content = json.loads(file.read())
        if content.pop("format_version") != FORMAT_VERSION:
            raise ValueError(f"format_version must be {FORMAT_VERSION}")
        preprocessing = content.pop("preprocessing")
        for key in ("mean_rgb", "stddev_rgb", "image_size"):
            if isinstance(preprocessing[key], list):
                preprocessing[key] = tuple(preprocessing[key])
        content["class_names"] = tuple(content["class_names"])
        card = ModelCard(preprocessing=Preprocessing(**preprocessing), **content)
        if card.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {card.activation!r}")
        return card
    except tf.errors.NotFoundError:
        raise ExportError(f"{folder}: not an export (no {JSON_FILE} in it)") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: unusable ({error}); export again") from error


def _fingerprints(folder: str) -> dict[str, Fingerprint]:
    paths = [
        os.path.join(place, name) for place, _, names in tf.io.gfile.walk(folder) for name in names
    ]
    return {path.removeprefix(folder).lstrip("/"): fingerprint(path) for path in sorted(paths)}


_USE = {
    "saved_model": "TensorFlow Serving, or `tf.saved_model.load`. Encoded images go in as they are; "
    "decoding, crop and normalisation are inside.",
    "tflite": "LiteRT. Pixels on the scale 0..255, float32 (uint8 for int8.tflite), "
    "[1, {height}, {width}, 3], cropped as below; normalisation is inside. Output: logits.",
    "onnx": "Any ONNX runtime. `images`: float32 [n, {height}, {width}, 3], cropped and normalised as "
    "below. Output: logits.",
}


_ANSWERS = {
    "classes": "",
    "class_maps": " Logits are [n, height, width, classes] of the input's size. The SavedModel returns"
    " `classes`, uint8 [n, h, w] in the size of the original images, padded to the largest with 255, and"
    " `sizes`.",
    "boxes": " The SavedModel returns `boxes`, float32 [n, k, 4], [ymin, xmin, ymax, xmax] in pixels of the"
    " original images, with `scores`, `classes`, `labels` and `count`. The other formats return, instead of"
    " logits, `classes`, logits [n, anchors, classes], and `boxes` [n, anchors, 4]: shifts of the centre in"
    " sides of the anchor, y and x, then logarithms of height and width in the same. anchors.npy has the"
    " anchors in pixels of the input; suppress with the settings of `task` below.",
}


_KERNELS: Mapping[Resize, str] = {
    "bicubic": "bicubic (a = -0.75), without half-pixel centres",
    "bilinear": "bilinear, without half-pixel centres",
    "bilinear_half_pixel": "bilinear, with half-pixel centres",
}


def _framing_text(preprocessing: Preprocessing) -> str:
    if preprocessing.framing == "squash":
        return "Keep the whole image, whatever its aspect ratio."
    if preprocessing.framing == "letterbox":
        where = "on all sides" if preprocessing.alignment == "center" else "below and on the right"
        return (
            "Keep the whole image at its aspect ratio, as large as it fits. Pad the result of step 2 "
            f"{where}, so that the padding is 0 after step 3."
        )
    height, width = height_width(preprocessing.image_size)
    side, crop_padding = min(height, width), preprocessing.crop_padding
    padding = "12.5 % of S / 0.875" if crop_padding is None else f"{crop_padding} px"
    share = 0.875 if crop_padding is None else side / (side + crop_padding)
    if height == width:
        odd = {"before": "above and on the left", "after": "below and on the right"}
        return (
            f"Keep the centred square of {share:.4f} of the shorter side (padding {padding}); a pixel too "
            f"many is cut off {odd[preprocessing.odd_pixels]}."
        )
    return (
        f"Keep {share:.4f} of the largest centred window of {height}:{width} (height:width; padding "
        f"{padding})."
    )


def _text(card: ModelCard) -> str:
    preprocessing = card.preprocessing
    height, width = height_width(preprocessing.image_size)
    average = {"ema": "moving average over training", "raw": "last update"}[card.weights]
    lines = [
        f"# {card.name}, {card.format}, step {card.step}"
        + (f" in stage {card.stage}" if card.stage else ""),
        "",
        _USE[card.format].format(height=height, width=width) + _ANSWERS[card.answers],
        "",
        f"- Weights: {average} ({card.weights}), {card.parameters:,} values",
        f"- Classes: {len(card.class_names)}; probabilities are the {card.activation} of the logits",
        f"- Data: {card.data['name']}, "
        + ", ".join(f"{count:,} {split}" for split, count in card.data["splits"].items()),
        *(f"- Measured {name}: {value:.4f}" for name, value in sorted(card.metrics.items())),
        "",
        "## Preprocessing",
        "",
        f"1. {_framing_text(preprocessing)}",
        f"2. Resize it to {height} x {width}, {_KERNELS[preprocessing.resize]}, without antialiasing; "
        "round, clip to 0..255.",
        f"3. Subtract {list(preprocessing.mean_rgb)}, divide by {list(preprocessing.stddev_rgb)} "
        "(R, G, B).",
        "",
        "## Files",
        "",
        "| file | bytes | SHA-256 |",
        "|---|---:|---|",
        *(f"| {name} | {f['bytes']:,} | `{f['sha256']}` |" for name, f in card.files.items()),
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps(card.recipe, indent=1, ensure_ascii=False),
        "```",
        "",
    ]
    return "\n".join(lines)

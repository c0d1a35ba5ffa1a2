"""The sections `eval`, `checkpoint` and `export`: what a run measures and keeps."""

from typing import Literal

from pydantic import model_validator

from configs.durations import Duration, PositiveDuration
from configs.schema.fields import ConflictError, Count, Natural, Positive, Resize, Size, Text
from configs.sections import Section


class Evaluation(Section):
    """When and how the model is measured, and what the exports show it."""

    framing: str  # the part of an image that is shown
    image_size: Size | None = None  # None: the model's own, or model.image_size
    resize: Resize | None = None  # of the part to that size; None: augment.resize
    every: PositiveDuration = Duration(1, "epochs")  # between two evaluations
    global_batch_size: Count | None = None  # None: the training batch, at most 1024
    weights: Literal["ema", "raw"] | None = None  # which to measure; None: ema, raw if ema.decay=0
    timeout_minutes: Positive = 60.0  # --mode=eval_loop: to wait for the next checkpoint
    at: Literal["network", "original"] = "network"  # the size at which pixels are compared
    max_size: Size | None = None  # for at=original: of the largest image
    labels: Text | None = None  # --mode=eval: folders or a JSON file, of data_dir; None: the data's

    @model_validator(mode="after")
    def _check_size(self) -> "Evaluation":
        if (self.at == "original") != (self.max_size is not None):
            raise ConflictError(
                f"eval.at={self.at} and eval.max_size={self.max_size}: the size of the largest image is"
                " needed with original, and has no effect without",
                "eval.at",
                "eval.max_size",
            )
        if self.at == "original" and self.framing == "center_crop":
            raise ConflictError(
                "eval.at=original compares every pixel of an image, and eval.framing=center_crop cuts some"
                " off: set eval.framing=squash or letterbox",
                "eval.at",
                "eval.framing",
            )
        return self


class CenterCrop(Evaluation):
    """The centre, S / (S + crop_padding) of the largest window of the result's shape, S its shorter side."""

    framing: Literal["center_crop"] = "center_crop"
    crop_padding: Natural | None = None  # pixels; None: round(S * (1/.875 - 1))
    odd_pixels: Literal["before", "after"] = "before"  # where an odd pixel is cut; V2's: after


class Squash(Evaluation):
    """The whole image, whatever its aspect ratio."""

    framing: Literal["squash"] = "squash"


class Letterbox(Evaluation):
    """The whole image at its aspect ratio, with zeros around it after the normalisation."""

    framing: Literal["letterbox"] = "letterbox"
    alignment: Literal["center", "top_left"] = "center"  # where the image is


class Checkpoint(Section):
    """Which checkpoints a run keeps."""

    every: PositiveDuration = Duration(1, "epochs")  # between two checkpoints
    keep: Count = 3  # newest ones; the best is kept too
    asynchronous: bool = True  # write while training goes on, never more than one write behind


class Export(Section):
    """The exports and the report of a finished run."""

    formats: tuple[Literal["saved_model", "tflite", "onnx"], ...] = ("saved_model",)  # which files
    weights: Literal["ema", "raw"] | None = None  # which to export; None: ema, raw if ema.decay=0
    report: bool = True  # write MODEL_DIR/report.html when the training ends

"""Predict the most probable classes of images with any export of a run.

    python -m serving.predict --model_dir=runs/digits IMAGE_OR_FOLDER...

prints a table; --json prints one line of JSON per image. An image that cannot be decoded is reported, and
the exit status is 1; the other images are still classified. --explain writes IMAGE.cam.png beside each
image: a class-activation map (Grad-CAM) of the SavedModel's best class, drawn over the network's input.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import numpy as np
import tensorflow as tf
from rich.progress import track
from rich.table import Table

from serving.heatmaps import overlay, write_png
from serving.images import (
    HEATMAP_ENDING,
    find_images,
    read_batches,
)
from serving.network import ExportError
from serving.predictor import FORMATS, Predictor, find_export, load_signatures, open_predictor
from serving.tflite import VARIANTS
from system.command import Parser, command, positive
from system.console import console, error_console

BROKEN = "cannot be decoded as JPEG, PNG, BMP or GIF"


class Prediction(NamedTuple):
    """The classes of one image, most probable first; `best` is empty for a broken image."""

    file: str
    best: list[dict[str, Any]]  # class, label, probability


@command("serving.predict")
def main(argv: Sequence[str] | None = None) -> int:
    """Predict and print; return the exit status: 1 when an image is broken."""
    args = _parser().parse_args(argv)
    files = find_images(args.images)
    predictor = open_predictor(find_export(args.model_dir, args.format), args.variant)
    write_heatmaps = _heatmap_writer(predictor, args.model_dir) if args.explain else None
    predictions = []
    for prediction in predict_files(
        predictor, files, args.images_per_batch, args.top, write_heatmaps
    ):
        if not prediction.best:
            print(f"serving.predict: {prediction.file}: {BROKEN}", file=sys.stderr)
        if args.json:
            print(json.dumps(_as_json(prediction), ensure_ascii=False))
        predictions.append(prediction)
    if not args.json:
        _print_table(predictions, predictor)
    return 0 if all(prediction.best for prediction in predictions) else 1


def predict_files(
    predictor: Predictor,
    files: Sequence[str],
    images_per_batch: int,
    top: int = 5,
    write_heatmaps: Callable[[list[str], list[bytes]], None] | None = None,
) -> Iterator[Prediction]:
    """Yield a prediction for each file, in order; show a progress bar on a terminal.

    Args:
      predictor: from `open_predictor`.
      files: names, local or gs://.
      images_per_batch: number of files read and classified at a time.
      top: number of classes in a prediction.
      write_heatmaps: called with the names and the contents of each batch.
    """
    steps = -(-len(files) // images_per_batch)
    batches = track(
        read_batches(files, images_per_batch),
        "images",
        total=steps,
        console=error_console,
        disable=not error_console.is_terminal,
        transient=True,
    )
    for names, contents in batches:
        probabilities, valid = predictor.predict(contents)
        if write_heatmaps:
            write_heatmaps(names, contents)
        for name, row, is_valid in zip(names, probabilities, valid, strict=True):
            yield Prediction(name, _best(row, predictor, top) if is_valid else [])


def _best(row: np.ndarray, predictor: Predictor, top: int) -> list[dict[str, Any]]:
    # A stable sort of the negatives: ties go to the first class, as in tf.math.top_k.
    return [
        {
            "class": int(index),
            "label": predictor.card.class_names[index],
            "probability": round(float(row[index]), 6),
        }
        for index in np.argsort(-row, kind="stable")[:top]
    ]


def _heatmap_writer(
    predictor: Predictor, model_dir: str
) -> Callable[[list[str], list[bytes]], None]:
    """Return a function that writes the heatmaps of a batch.

    They come from the SavedModel of the predictor's checkpoint, whatever the predictor's format.

    Raises:
      ExportError: there is no SavedModel of that checkpoint.
    """
    folder = os.path.join(model_dir, "export", "saved_model", str(predictor.card.step))
    if not tf.io.gfile.isdir(folder):
        raise ExportError(
            f"{folder}: no SavedModel here, and --explain needs its gradients; export it with "
            f"python main.py --mode=export --model_dir={model_dir} "
            "--set 'export.formats=[saved_model]'"
        )
    signatures = load_signatures(folder)

    def write_heatmaps(names: list[str], contents: list[bytes]) -> None:
        outputs = signatures["explain"](image_bytes=tf.constant(contents, tf.string))
        rows = (outputs[key].numpy() for key in ("images", "heatmaps", "valid"))
        for name, image, heatmap, valid in zip(names, *rows, strict=True):
            if valid:
                write_png(name + HEATMAP_ENDING, overlay(image, heatmap))

    return write_heatmaps


def _as_json(prediction: Prediction) -> dict[str, Any]:
    if not prediction.best:
        return {"file": prediction.file, "error": BROKEN}
    return {"file": prediction.file, "predictions": prediction.best}


def _print_table(predictions: Sequence[Prediction], predictor: Predictor) -> None:
    card = predictor.card
    table = Table(title=f"{card.name}, {card.format}, step {card.step}", title_justify="left")
    for column, justify in (("image", "left"), ("label", "left"), ("probability", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for prediction in predictions:
        for place, best in enumerate(prediction.best):
            name = prediction.file if place == 0 else ""
            table.add_row(name, best["label"], f"{best['probability']:.2%}")
        if not prediction.best:
            table.add_row(prediction.file, "(broken)", "")
        table.add_section()
    console.print(table, markup=False)


def _parser() -> Parser:
    parser = Parser("serving.predict", __doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model_dir", required=True, help="folder of the run")
    parser.add_argument("--format", choices=FORMATS, default="saved_model")
    parser.add_argument(
        "--variant", choices=VARIANTS, default="float32", help="of the TFLite export"
    )
    parser.add_argument("--top", type=positive, default=5, help="classes per image")
    parser.add_argument(
        "--images_per_batch", type=positive, default=32, help="(default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON per image")
    parser.add_argument(
        "--explain", action="store_true", help="write a heatmap, IMAGE.cam.png, beside each image"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

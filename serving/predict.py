"""Predict classes, class maps or boxes of images with any export of a run.

    python -m serving.predict --model_dir=runs/digits IMAGE_OR_FOLDER...

It prints a table; --json prints one line of JSON per image. An image that cannot be decoded is reported, and
the exit status is 1; the other images are still predicted. --explain writes IMAGE.cam.png beside each
image: a class-activation map (Grad-CAM) of the SavedModel's best class, drawn over the network's input.

For a segmentation run it writes IMAGE.mask.png, the class of each pixel with the palette of PASCAL VOC, and
IMAGE.overlay.png beside each image, and prints the shares of the classes.

For a detection run it writes IMAGE.boxes.png beside each image, with the boxes that score 0.3 or more, and
prints them.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import numpy as np
import tensorflow as tf
from rich.progress import track
from rich.table import Table

from input_pipeline.images.boxes import draw_boxes
from input_pipeline.images.label_map import IGNORED
from input_pipeline.images.overlay import overlay_classes, palette_png
from serving.boxes import Found
from serving.heatmaps import overlay, write_png
from serving.images import (
    BOXES_ENDING,
    HEATMAP_ENDING,
    MASK_ENDING,
    OVERLAY_ENDING,
    find_images,
    read_batches,
)
from serving.model_card import ModelCard, read_model_card
from serving.network import ExportError
from serving.predictor import (
    FORMATS,
    Predictor,
    find_export,
    load_signatures,
    open_box_predictor,
    open_map_predictor,
    open_predictor,
)
from serving.tflite import VARIANTS
from system.command import Namespace, Parser, command, positive
from system.console import console, error_console
from system.files import write_bytes
from tasks.detection.task import SHOWN

BROKEN = "cannot be decoded as JPEG, PNG, BMP or GIF"


class Prediction(NamedTuple):
    """The classes of one image, most probable first; `best` is empty for a broken image."""

    file: str
    best: list[dict[str, Any]]  # class, label, probability


class MapPrediction(NamedTuple):
    """The classes of an image's pixels, largest share first; `shares` is empty for a broken image."""

    file: str
    shares: list[dict[str, Any]]  # class, label, share of the pixels


@command("serving.predict")
def main(argv: Sequence[str] | None = None) -> int:
    """Predict and print; return the exit status: 1 when an image is broken."""
    args = _parser().parse_args(argv)
    files = find_images(args.images)
    folder = find_export(args.model_dir, args.format)
    return PRINTERS[read_model_card(folder).answers](args, files, folder)


def _print_classes(args: Namespace, files: Sequence[str], folder: str) -> int:
    predictor = open_predictor(folder, args.variant)
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
    for names, contents in _batches(files, images_per_batch):
        probabilities, valid = predictor.predict(contents)
        if write_heatmaps:
            write_heatmaps(names, contents)
        for name, row, is_valid in zip(names, probabilities, valid, strict=True):
            yield Prediction(name, _best(row, predictor, top) if is_valid else [])


def _batches(
    files: Sequence[str], images_per_batch: int
) -> Iterable[tuple[list[str], list[bytes]]]:
    """Read the files in batches; show a progress bar on a terminal."""
    return track(
        read_batches(files, images_per_batch),
        "images",
        total=-(-len(files) // images_per_batch),
        console=error_console,
        disable=not error_console.is_terminal,
        transient=True,
    )


def _print_maps(args: Namespace, files: Sequence[str], folder: str) -> int:
    """Write the masks and overlays of all images, and print the shares of their classes."""
    if args.explain:
        raise ExportError(
            "--explain draws the class of a whole image, and this run has a class for each pixel"
        )
    predictor = open_map_predictor(folder, args.variant)
    found = []
    for names, contents in _batches(files, args.images_per_batch):
        maps, valid = predictor.predict(contents)
        for name, content, classes, is_valid in zip(names, contents, maps, valid, strict=True):
            if not is_valid:
                print(f"serving.predict: {name}: {BROKEN}", file=sys.stderr)
            else:
                _write_map(name, content, classes)
            shares = _shares(classes, predictor.card.class_names)[: args.top] if is_valid else []
            prediction = MapPrediction(name, shares)
            if args.json:
                print(json.dumps(_map_as_json(prediction), ensure_ascii=False))
            found.append(prediction)
    if not args.json:
        _print_shares(found, predictor.card)
    return 0 if all(prediction.shares for prediction in found) else 1


def _write_map(name: str, content: bytes, classes: np.ndarray) -> None:
    image = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    write_bytes(name + MASK_ENDING, palette_png(classes))
    write_png(name + OVERLAY_ENDING, overlay_classes(image, classes))


def _shares(classes: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """List the classes of an image with their shares of its pixels, largest first."""
    counts = np.bincount(classes.ravel(), minlength=IGNORED + 1)[: len(names)]
    return [
        {"class": int(n), "label": names[n], "share": round(float(counts[n] / classes.size), 6)}
        for n in np.argsort(-counts, kind="stable")
        if counts[n]
    ]


def _map_as_json(prediction: MapPrediction) -> dict[str, Any]:
    if not prediction.shares:
        return {"file": prediction.file, "error": BROKEN}
    return {
        "file": prediction.file,
        "mask": prediction.file + MASK_ENDING,
        "overlay": prediction.file + OVERLAY_ENDING,
        "classes": prediction.shares,
    }


def _print_shares(predictions: Sequence[MapPrediction], card: ModelCard) -> None:
    table = Table(title=f"{card.name}, {card.format}, step {card.step}", title_justify="left")
    for column, justify in (("image", "left"), ("label", "left"), ("share of pixels", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for prediction in predictions:
        for place, best in enumerate(prediction.shares):
            name = prediction.file if place == 0 else ""
            table.add_row(name, best["label"], f"{best['share']:.2%}")
        if not prediction.shares:
            table.add_row(prediction.file, "(broken)", "")
        table.add_section()
    console.print(table, markup=False)


def _print_boxes(args: Namespace, files: Sequence[str], folder: str) -> int:
    """Draw the detections of all images, and print them."""
    if args.explain:
        raise ExportError(
            "--explain draws the class of a whole image, and this run has boxes of objects"
        )
    predictor = open_box_predictor(folder, args.variant)
    names, table = (
        predictor.card.class_names,
        _table(predictor.card, "score", "ymin, xmin, ymax, xmax"),
    )
    broken = 0
    for paths, contents in _batches(files, args.images_per_batch):
        for name, content, found in zip(paths, contents, predictor.predict(contents), strict=True):
            if not found.valid:
                broken += 1
                print(f"serving.predict: {name}: {BROKEN}", file=sys.stderr)
            shown = _list_detections(found, names)
            if found.valid:
                _write_boxes(name, content, shown)
            if args.json:
                print(json.dumps(_boxes_as_json(name, found.valid, shown), ensure_ascii=False))
            for place, each in enumerate(shown):
                box = ", ".join(f"{end:.1f}" for end in each["box"])
                table.add_row(
                    name if place == 0 else "", each["label"], f"{each['score']:.2%}", box
                )
            if not shown:
                table.add_row(name, "(nothing)" if found.valid else "(broken)", "", "")
            table.add_section()
    if not args.json:
        console.print(table, markup=False)
    return 1 if broken else 0


def _list_detections(found: Found, names: Sequence[str]) -> list[dict[str, Any]]:
    """List the detections of an image that score at least SHOWN."""
    rows = zip(found.boxes, found.scores, found.classes, strict=True)
    return [
        {
            "class": int(n),
            "label": names[n],
            "score": round(float(score), 6),
            "box": [round(float(end), 2) for end in box],
        }
        for box, score, n in rows
        if score >= SHOWN
    ]


def _write_boxes(name: str, content: bytes, shown: Sequence[dict[str, Any]]) -> None:
    image = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    boxes = np.array([each["box"] for each in shown]).reshape(-1, 4)
    texts = [f"{each['label']} {each['score']:.0%}" for each in shown]
    write_png(
        name + BOXES_ENDING, draw_boxes(image, boxes, texts, [each["class"] for each in shown])
    )


def _boxes_as_json(name: str, valid: bool, shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not valid:
        return {"file": name, "error": BROKEN}
    return {"file": name, "picture": name + BOXES_ENDING, "detections": shown}


def _table(card: ModelCard, *columns: str) -> Table:
    table = Table(title=f"{card.name}, {card.format}, step {card.step}", title_justify="left")
    for column in ("image", "label"):
        table.add_column(column, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


# Print functions by `Task.answers` of the run.
PRINTERS: Mapping[str, Callable[[Namespace, Sequence[str], str], int]] = {
    "classes": _print_classes,
    "class_maps": _print_maps,
    "boxes": _print_boxes,
}


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
    parser.add_argument(
        "--top", type=positive, default=5, help="classes per image; all boxes are printed"
    )
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

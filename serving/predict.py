"""The most probable classes of images, from any export of a run.

    python -m serving.predict --model_dir=runs/digits IMAGE_OR_FOLDER...

prints a table; --json prints one line of JSON an image. An image that cannot be decoded is reported,
the others are answered; the exit code is 1 then. --explain writes, beside each image, IMAGE.cam.png: a
class-activation map (Grad-CAM) of the SavedModel's best class, over what the network saw.
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


class Answer(NamedTuple):
    """One image: what it probably shows, the best first; `best` is empty for a broken image."""

    file: str
    best: list[dict[str, Any]]  # class, label, probability


@command("serving.predict")
def main(argv: Sequence[str] | None = None) -> int:
    """Predict and print; return the exit status: 1 when an image is broken."""
    args = _parser().parse_args(argv)
    files = find_images(args.images)
    predictor = open_predictor(find_export(args.model_dir, args.format), args.variant)
    explain = _explainer(predictor, args.model_dir) if args.explain else None
    answers = []
    for answer in predict_files(predictor, files, args.images_per_batch, args.top, explain):
        if not answer.best:
            print(f"serving.predict: {answer.file}: {BROKEN}", file=sys.stderr)
        if args.json:
            print(json.dumps(_as_json(answer), ensure_ascii=False))
        answers.append(answer)
    if not args.json:
        _print_table(answers, predictor)
    return 0 if all(answer.best for answer in answers) else 1


def predict_files(
    predictor: Predictor,
    files: Sequence[str],
    images_per_batch: int,
    top: int = 5,
    explain: Callable[[list[str], list[bytes]], None] | None = None,
) -> Iterator[Answer]:
    """Answers for files, in their order; a progress bar goes to the terminal, if there is one.

    Args:
      predictor: from `open_predictor`.
      files: names, local or gs://.
      images_per_batch: files read and answered at a time.
      top: how many classes to name.
      explain: called with names and contents of each batch.
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
        if explain:
            explain(names, contents)
        for name, row, is_valid in zip(names, probabilities, valid, strict=True):
            yield Answer(name, _best(row, predictor, top) if is_valid else [])


def _best(row: np.ndarray, predictor: Predictor, top: int) -> list[dict[str, Any]]:
    # A stable sort of the negative: of equals the first class, as top_k has it.
    return [
        {
            "class": int(index),
            "label": predictor.card.class_names[index],
            "probability": round(float(row[index]), 6),
        }
        for index in np.argsort(-row, kind="stable")[:top]
    ]


def _explainer(predictor: Predictor, model_dir: str) -> Callable[[list[str], list[bytes]], None]:
    """Writes the maps of a batch; they are the SavedModel's, whichever format answers.

    Raises:
      ExportError: there is no SavedModel of the checkpoint that answers.
    """
    folder = os.path.join(model_dir, "export", "saved_model", str(predictor.card.step))
    if not tf.io.gfile.isdir(folder):
        raise ExportError(
            f"{folder}: no SavedModel here, and --explain needs its gradients; write it with "
            f"python main.py --mode=export --model_dir={model_dir} "
            "--set 'export.formats=[saved_model]'"
        )
    signatures = load_signatures(folder)

    def explain(names: list[str], contents: list[bytes]) -> None:
        answer = signatures["explain"](image_bytes=tf.constant(contents, tf.string))
        rows = (answer[key].numpy() for key in ("images", "heatmaps", "valid"))
        for name, image, heatmap, valid in zip(names, *rows, strict=True):
            if valid:
                write_png(name + HEATMAP_ENDING, overlay(image, heatmap))

    return explain


def _as_json(answer: Answer) -> dict[str, Any]:
    if not answer.best:
        return {"file": answer.file, "error": BROKEN}
    return {"file": answer.file, "predictions": answer.best}


def _print_table(answers: Sequence[Answer], predictor: Predictor) -> None:
    card = predictor.card
    table = Table(title=f"{card.name}, {card.format}, step {card.step}", title_justify="left")
    for column, justify in (("image", "left"), ("label", "left"), ("probability", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for answer in answers:
        for place, best in enumerate(answer.best):
            name = answer.file if place == 0 else ""
            table.add_row(name, best["label"], f"{best['probability']:.2%}")
        if not answer.best:
            table.add_row(answer.file, "(broken)", "")
        table.add_section()
    console.print(table, markup=False)


def _parser() -> Parser:
    parser = Parser("serving.predict", __doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model_dir", required=True, help="folder of the run")
    parser.add_argument("--format", choices=FORMATS, default="saved_model")
    parser.add_argument("--variant", choices=VARIANTS, default="float32", help="of TFLite")
    parser.add_argument("--top", type=positive, default=5, help="classes to name")
    parser.add_argument(
        "--images_per_batch", type=positive, default=32, help="(default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON an image")
    parser.add_argument("--explain", action="store_true", help="write IMAGE.cam.png beside each")
    return parser


if __name__ == "__main__":
    sys.exit(main())

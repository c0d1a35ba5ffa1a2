"""Pooled features of images, for transfer learning and retrieval.

    python -m serving.features --model_dir=runs/digits --output=features.npz IMAGE_OR_FOLDER...

writes `features` float32 [n, F] and `files` [n] to an .npz file, or, for an --output ending in
.tfrecord, one tf.train.Example an image with "image/filename" and "features". Images that cannot be
decoded are reported and left out; the exit code is 1 then.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a broken image is told by its name

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from serving.images import ImagesError, find_images, positive_number, read_batches
from serving.network import ExportError
from serving.predictor import find_export, load_signatures
from system.files import replacing, write_bytes

ENDINGS = (".npz", ".tfrecord")


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says: 0, or 1 when something went wrong."""
    args = _parser().parse_args(arguments)
    try:
        files = find_images(args.images)
        folder = find_export(args.model_dir)
        features, valid = compute_features(folder, files, args.images_per_batch)
    except (ExportError, ImagesError) as error:
        print(f"serving.features: {error}", file=sys.stderr)
        return 1
    good = [name for name, is_valid in zip(files, valid, strict=True) if is_valid]
    try:
        write_features(args.output, features[valid], good)
    except (OSError, tf.errors.OpError) as error:
        print(f"serving.features: {args.output}: cannot be written ({error})", file=sys.stderr)
        return 1
    for name, is_valid in zip(files, valid, strict=True):
        if not is_valid:
            print(f"serving.features: {name}: cannot be decoded, left out", file=sys.stderr)
    print(f"{args.output}: {len(good)} images, {features.shape[1]} features each")
    return 0 if valid.all() else 1


def compute_features(
    folder: str, files: Sequence[str], images_per_batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [n, F] of files, and valid, bool [n].

    Args:
      folder: version folder of a SavedModel.
      files: at least one.
      images_per_batch: files read at a time.
    """
    signature = load_signatures(folder)["features"]
    console = Console(stderr=True)
    batches = track(
        read_batches(files, images_per_batch),
        "images",
        total=-(-len(files) // images_per_batch),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    answers = [signature(image_bytes=tf.constant(contents)) for _, contents in batches]
    return (
        np.concatenate([answer["features"].numpy() for answer in answers]),
        np.concatenate([answer["valid"].numpy() for answer in answers]),
    )


def write_features(path: str, features: np.ndarray, files: Sequence[str]) -> None:
    """Writes an .npz or .tfrecord file, by the ending of `path`.

    Args:
      path: local or gs://.
      features: float32 [n, F].
      files: n names.
    """
    if path.endswith(".npz"):
        content = io.BytesIO()
        np.savez(content, features=features, files=np.array(files, str))
        write_bytes(path, content.getvalue())
        return
    with replacing(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for name, row in zip(files, features, strict=True):
            example = tf.train.Example()
            example.features.feature["image/filename"].bytes_list.value.append(name.encode())
            example.features.feature["features"].float_list.value.extend(row.tolist())
            writer.write(example.SerializeToString())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"serving.features: {message} (--help tells more)\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m serving.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model_dir", required=True, help="folder of the run")
    parser.add_argument("--output", required=True, type=_output, help="FILE.npz or FILE.tfrecord")
    parser.add_argument(
        "--images_per_batch", type=positive_number, default=32, help="(default %(default)s)"
    )
    return parser


def _output(text: str) -> str:
    if not text.endswith(ENDINGS):
        raise argparse.ArgumentTypeError(f"{text!r} must end in {' or '.join(ENDINGS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())

"""Compute the pooled features of images, for transfer learning and retrieval.

    python -m serving.features --model_dir=runs/digits --output=features.npz IMAGE_OR_FOLDER...

writes `features` float32 [n, F] and `files` [n] to an .npz file. With an --output that ends in .tfrecord
it writes one tf.train.Example per image, with "image/filename" and "features". Images that cannot be
decoded are reported and left out, and the exit status is 1.
"""

import io
import sys
from collections.abc import Sequence

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import numpy as np
import tensorflow as tf
from rich.progress import track

from serving.images import find_images, read_batches
from serving.network import ExportError
from serving.predictor import find_export, load_signatures
from system.command import ArgumentTypeError, Parser, command, positive
from system.console import error_console
from system.errors import UserError, first_line
from system.files import replacing, write_bytes

ENDINGS = (".npz", ".tfrecord")


@command("serving.features")
def main(argv: Sequence[str] | None = None) -> int:
    """Compute and write the features; return the exit status: 1 when an image is left out."""
    args = _parser().parse_args(argv)
    files = find_images(args.images)
    folder = find_export(args.model_dir)
    features, valid = compute_features(folder, files, args.images_per_batch)
    good = [name for name, is_valid in zip(files, valid, strict=True) if is_valid]
    try:
        write_features(args.output, features[valid], good)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{args.output}: cannot be written ({first_line(error)})") from error
    for name, is_valid in zip(files, valid, strict=True):
        if not is_valid:
            print(f"serving.features: {name}: cannot be decoded, left out", file=sys.stderr)
    print(f"{args.output}: {len(good)} images, {features.shape[1]} features each")
    return 0 if valid.all() else 1


def compute_features(
    folder: str, files: Sequence[str], images_per_batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of image files.

    Args:
      folder: version folder of a SavedModel.
      files: names, at least one.
      images_per_batch: number of files read at a time.

    Returns:
      features: float32 [n, F], zeros for an image that cannot be decoded; valid: bool [n].

    Raises:
      ExportError: the SavedModel cannot be loaded, or is of another task.
    """
    signatures = load_signatures(folder)
    if "features" not in signatures:
        raise ExportError(
            f"{folder}: it has no features of whole images; expected the export of a classifier"
        )
    signature = signatures["features"]
    batches = track(
        read_batches(files, images_per_batch),
        "images",
        total=-(-len(files) // images_per_batch),
        console=error_console,
        disable=not error_console.is_terminal,
        transient=True,
    )
    answers = [signature(image_bytes=tf.constant(contents)) for _, contents in batches]
    return (
        np.concatenate([answer["features"].numpy() for answer in answers]),
        np.concatenate([answer["valid"].numpy() for answer in answers]),
    )


def write_features(path: str, features: np.ndarray, files: Sequence[str]) -> None:
    """Write an .npz or a .tfrecord file, depending on the extension of `path`.

    Args:
      path: local or gs://.
      features: float32 [n, F].
      files: n names.

    Raises:
      OSError: the file cannot be written.
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


def _parser() -> Parser:
    parser = Parser("serving.features", __doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model_dir", required=True, help="folder of the run")
    parser.add_argument("--output", required=True, type=_output, help="FILE.npz or FILE.tfrecord")
    parser.add_argument(
        "--images_per_batch", type=positive, default=32, help="(default %(default)s)"
    )
    return parser


def _output(text: str) -> str:
    if not text.endswith(ENDINGS):
        raise ArgumentTypeError(f"{text!r} must end in {' or '.join(ENDINGS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())

"""Find image files in folders and read them in batches."""

import os
from collections.abc import Iterator, Sequence

import tensorflow as tf

from system.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
HEATMAP_ENDING = ".cam.png"  # what `serving.predict --explain` writes beside images
MASK_ENDING, OVERLAY_ENDING = (
    ".mask.png",
    ".overlay.png",
)  # what it writes where it answers with maps
BOXES_ENDING = ".boxes.png"  # and where it answers with boxes
WRITTEN = (HEATMAP_ENDING, MASK_ENDING, OVERLAY_ENDING, BOXES_ENDING)


class ImagesError(UserError):
    """Image files that cannot be found."""


def find_images(paths: Sequence[str]) -> list[str]:
    """List the given files, and the image files below the given folders, sorted by name.

    Args:
      paths: files or folders, local or gs://; a file may have any extension.

    Raises:
      ImagesError: a path does not exist, or a folder holds no image.
    """
    found = []
    for path in paths:
        if tf.io.gfile.isdir(path):
            files = [
                os.path.join(folder, name)
                for folder, _, names in tf.io.gfile.walk(path)
                for name in names
                if name.lower().endswith(EXTENSIONS) and not name.endswith(WRITTEN)
            ]
            if not files:
                raise ImagesError(f"{path}: no image in this folder ({', '.join(EXTENSIONS)})")
            found += sorted(files)
        elif tf.io.gfile.exists(path):
            found.append(path)
        else:
            raise ImagesError(f"{path}: no such file or folder")
    return found


def read_batches(files: Sequence[str], images_per_batch: int) -> Iterator[tuple[list[str], list]]:
    """Yield the names and the contents of `images_per_batch` files at a time.

    The content of a file that cannot be read is b"", which no decoder takes.
    """
    for start in range(0, len(files), images_per_batch):
        names = list(files[start : start + images_per_batch])
        yield names, [_read(name) for name in names]


def _read(name: str) -> bytes:
    try:
        with tf.io.gfile.GFile(name, "rb") as file:
            return file.read()
    except (tf.errors.OpError, OSError):
        return b""

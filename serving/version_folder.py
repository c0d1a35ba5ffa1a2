"""Write the folder DIRECTORY/VERSION, which TensorFlow Serving watches, atomically."""

import contextlib
import os
import uuid
from collections.abc import Callable

import tensorflow as tf

from system.files import is_remote


def write_version(directory: str, version: int, write: Callable[[str], object]) -> str:
    """Fill a folder of another name with `write` and rename it to DIRECTORY/VERSION.

    TensorFlow Serving takes only numbers for names of versions, so it never sees the folder while it
    is being filled. An existing version is replaced last, and restored if the new one cannot take its
    name. The next export of the same version removes what a killed export left. An object store
    (gs://) cannot rename a folder: there the files are copied, `saved_model.pb` last, so a version
    without that file is still being copied.

    Args:
      directory: local or gs:// folder of versions; created if missing.
      version: number of the version.
      write: called with the path of the folder to fill.

    Returns:
      DIRECTORY/VERSION.

    Raises:
      OSError: the folder cannot be written; an existing version is unchanged. Other exceptions of
        `write` pass through.
    """
    path = os.path.join(directory, str(version))
    mark = uuid.uuid4().hex[:8]
    new = os.path.join(directory, f"temporary-{version}-{mark}")
    old = os.path.join(directory, f"replaced-{version}-{mark}")
    try:
        tf.io.gfile.makedirs(directory)
        _clean_up(directory, version)
        write(new)
        replaces = tf.io.gfile.exists(path)
        if replaces:
            _move(path, old)
        try:
            _move(new, path)
        except BaseException:
            _remove(path)  # files of an unfinished copy
            if replaces:
                _move(old, path)
            raise
        if replaces:
            tf.io.gfile.rmtree(old)
    except tf.errors.OpError as error:
        raise OSError(f"{path}: cannot be written ({error.message})") from error
    finally:
        _remove(new)
    return path


def _clean_up(directory: str, version: int) -> None:
    """Undo what a killed export of this version left.

    If it was killed between the two renames, the old version has another name: restore it.
    """
    path = os.path.join(directory, str(version))
    for name in sorted(entry.rstrip("/") for entry in tf.io.gfile.listdir(directory)):
        left = os.path.join(directory, name)
        if name.startswith(f"replaced-{version}-") and not tf.io.gfile.exists(path):
            _move(left, path)
        elif name.startswith((f"temporary-{version}-", f"replaced-{version}-")):
            _remove(left)


def _remove(path: str) -> None:
    with contextlib.suppress(tf.errors.OpError):
        tf.io.gfile.rmtree(path)


def _move(source: str, target: str) -> None:
    """Move a folder to `target`, which must not exist."""
    if not is_remote(source):
        tf.io.gfile.rename(source, target)
        return
    files = [
        os.path.join(folder, name)
        for folder, _, names in tf.io.gfile.walk(source)
        for name in names
    ]
    for file in sorted(files, key=lambda file: (file.endswith("saved_model.pb"), file)):
        copy = target + file.removeprefix(source)
        tf.io.gfile.makedirs(os.path.dirname(copy))
        tf.io.gfile.copy(file, copy)
    tf.io.gfile.rmtree(source)

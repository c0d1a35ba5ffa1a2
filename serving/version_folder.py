"""DIRECTORY/VERSION, as TensorFlow Serving watches it: there whole, or not there."""

import contextlib
import os
import uuid
from collections.abc import Callable

import tensorflow as tf

from system.files import is_remote


def write_version(directory: str, version: int, write: Callable[[str], object]) -> str:
    """Has `write` fill a folder of another name and renames it to DIRECTORY/VERSION.

    TensorFlow Serving takes only names that are numbers for versions, so it never sees the folder
    while it is being filled. A version that was there makes room last, and comes back if the new
    one can't take its place. What an export that was killed left half done is removed by the next one of
    the same version. An object store (gs://) has no folders to rename: there the files are
    copied, `saved_model.pb` last, so that a version without it is one that is still being copied.

    Args:
      directory: local or gs:// folder of versions; made if it isn't there.
      version: the number.
      write: called with the path of the folder to fill.

    Returns:
      DIRECTORY/VERSION.

    Raises:
      OSError: it cannot be written; what was there before is still there.
      Whatever `write` raises besides.
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
            _remove(path)  # what a copy left
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
    """Undo what an export of this version that was killed left half done.

    Killed between the two renames it left the old version under another name: that one comes back.
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
    """Gives a folder another path, which must be free."""
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

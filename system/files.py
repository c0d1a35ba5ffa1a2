"""Small files, local or remote (`gs://...`): read within a limit, written whole or not at all.

Remote ones go through `tf.io.gfile`, imported only then: reading an experiment from a local file
needs no TensorFlow.
"""

import contextlib
import os
import posixpath
import uuid
from collections.abc import Iterator


def is_remote(path: str) -> bool:
    """Whether `path` names a file system (`gs://bucket/file`) rather than a local file."""
    return "://" in path


def beside(path: str, name: str) -> str:
    """`name` as `path` means it: relative to the folder of `path`, unless it is absolute."""
    if is_remote(name):
        return name
    if os.path.isabs(name) or not is_remote(path):
        return os.path.normpath(os.path.join(os.path.dirname(path), name))
    scheme, _, place = path.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(place), name))}"


def read_text(path: str, *, limit: int) -> str:
    """The UTF-8 text of a file; OSError when out of reach, ValueError when over `limit` bytes.

    A text that is not UTF-8 is a UnicodeDecodeError, which is a ValueError too.
    """
    with _oserrors_only():
        if is_remote(path):
            import tensorflow as tf

            with tf.io.gfile.GFile(path, "rb") as file:
                content = file.read(limit + 1)
        else:
            with open(path, "rb") as file:
                content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes")
    return content.decode("utf-8")


def write_text(path: str, text: str) -> None:
    """Write `text` as UTF-8 so that `path` is the old file or the new one, never a part of it.

    Folders are made; OSError when it cannot be written.
    """
    with _oserrors_only():
        if is_remote(path):
            _write_remote(path, text)
        else:
            _write_local(path, text)


def _write_local(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = _temporary(path)
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def _write_remote(path: str, text: str) -> None:
    import tensorflow as tf

    tf.io.gfile.makedirs(posixpath.dirname(path))
    temporary = _temporary(path)
    try:
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(text)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(temporary)
        raise


def _temporary(path: str) -> str:
    return f"{path}.{uuid.uuid4().hex[:8]}.tmp"


@contextlib.contextmanager
def _oserrors_only() -> Iterator[None]:
    """Turn TensorFlow's file errors, which descend from Exception alone, into OSErrors."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        if not type(error).__module__.startswith("tensorflow"):
            raise
        missing = type(error).__name__ == "NotFoundError"
        reason = getattr(error, "message", "") or type(error).__name__
        raise (FileNotFoundError if missing else OSError)(reason) from error
